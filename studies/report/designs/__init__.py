"""Designs as drawings and as lists of facts."""
