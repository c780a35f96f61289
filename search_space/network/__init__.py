"""The network built from a genotype, and its exact rewrites."""
