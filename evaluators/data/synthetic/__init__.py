"""Data sets drawn from a seed, for use without real data."""
