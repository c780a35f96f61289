"""Fusion operators and poolings as networks."""
