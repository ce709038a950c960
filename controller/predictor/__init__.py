"""Prediction of the objective of a genotype, and the controller that is guided by it."""
