"""The folder of cached files: who uses it, and what killed runs left in it."""
