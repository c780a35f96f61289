"""Plugins for fusion-nas; one module each."""
