"""Fusion operators: what each takes and gives, its work, its NumPy reference and its network."""
