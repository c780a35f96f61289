"""Merging of similar tokens inside ViTs: how tokens are matched, and trunks that merge them."""
