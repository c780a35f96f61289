"""Studies of a fixed list of designs instead of a search."""
