"""Samplers by name, and our own sampler with its acquisition and surrogate models."""
