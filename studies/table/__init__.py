"""A tabulated search space, and samplers replayed on it."""
