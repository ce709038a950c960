"""A genotype as a torch module."""
