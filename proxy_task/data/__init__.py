"""Data sets: annotation files, layouts, subsets, caches, and the generated set."""
