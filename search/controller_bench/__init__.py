"""Comparing controllers on objectives that cost microseconds."""
