"""A genotype as a torch module."""

from spinenas.space.network.spinenet import SpineNet, build_backbone, count_madds, num_parameters

__all__ = ["SpineNet", "build_backbone", "count_madds", "num_parameters"]
