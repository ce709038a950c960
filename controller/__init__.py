"""What to try next: controllers that propose genotypes and learn from results."""
