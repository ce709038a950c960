"""Predicting what a genotype is worth, and controllers guided by the prediction."""
