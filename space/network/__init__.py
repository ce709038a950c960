"""Architectures as torch modules."""

from spinenas.space.network.build import Backbone, build_backbone, count_madds, num_parameters
from spinenas.space.network.resnet_fpn import ResNetFPN
from spinenas.space.network.spinenet import SpineNet

__all__ = ["Backbone", "ResNetFPN", "SpineNet", "build_backbone", "count_madds", "num_parameters"]
