"""Encoders as networks: configurations, weights, inputs, trunks with taps."""
