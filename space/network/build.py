"""Builds a backbone with weights from plain data, and counts parameters and multiply-adds of a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import torch
from torch import Tensor, nn

from spinenas.space.baseline import Architecture, Baseline
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.network.layers import initialize, layers_of
from spinenas.space.network.resample import MobileResample
from spinenas.space.network.resnet_fpn import ResNetFPN
from spinenas.space.network.spinenet import SpineNet
from spinenas.space.scaling import Scaling


class BackboneOptions(TypedDict, total=False):
    """Keyword arguments of `build_backbone` that a detector passes on."""

    dialect: str
    activation: str
    bn_momentum: float | None
    bn_eps: float | None
    stochastic_depth: float


Backbone = SpineNet | ResNetFPN
"""A module with `levels` and `channels` that maps images (N, 3, H, W) to {level: (N, channels, H / 2**level, ...)}."""


def build_backbone(
    architecture: Architecture,
    scaling: Scaling,
    *,
    dialect: str = "tensorflow/tpu",
    activation: str = "relu",
    bn_momentum: float | None = None,
    bn_eps: float | None = None,
    stochastic_depth: float = 0.0,
    generator: torch.Generator | None = None,
) -> Backbone:
    """Build a backbone.

    Args:
        architecture: a genotype of ResNet blocks on a level-2 stem or of MBConv blocks on a level-1 stem, or a
            baseline.
        scaling: width, alpha and repeats; a baseline uses only the width.
        dialect: rules of padding, pooling, squeeze-excite and batch norm: "tensorflow/tpu" or "tensorflow/models".
        activation: "relu" or "swish".
        bn_momentum, bn_eps: parameters of every batch norm, in PyTorch's sense; None for the dialect's values.
        stochastic_depth: rate of the last block. While training, block i of N drops its residual branches at a rate
            of stochastic_depth * (i + 1) / N; the stem and baselines drop nothing (SpineNet, section 4.1, protocol C).
        generator: draws the weights and seeds stochastic depth; None for a generator seeded with 0.

    Returns:
        A module that maps images (N, 3, H, W) float to {3: (N, C, H/8, W/8), ..., 7: ...}.

    Raises:
        UserError: the architecture or scaling is of another type, or the dialect or activation is unknown.
        GenotypeError: the stem cannot be built, or MBConv blocks are mixed with others.
    """
    if not isinstance(architecture, Genotype | Baseline):
        raise UserError(
            f"architecture is {architecture!r}; pass a Genotype or a Baseline, such as "
            "published('spinenet-49').architecture"
        )
    if not isinstance(scaling, Scaling):
        raise UserError(f"scaling is {scaling!r}; pass a Scaling, such as SCALINGS['49']")
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    layers = layers_of(dialect, activation, bn_momentum, bn_eps)
    network: Backbone
    if isinstance(architecture, Baseline):
        network = ResNetFPN(architecture, scaling, layers)
    else:
        network = SpineNet(architecture, scaling, layers, stochastic_depth=stochastic_depth, generator=generator)
    initialize(network, generator)
    for module in network.modules():
        if isinstance(module, MobileResample | ResNetFPN):
            module.initialize(generator)
    return network


def num_parameters(module: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def count_madds(module: nn.Module, images: Tensor, forward: Callable[[Tensor], object] | None = None) -> int:
    """Count the multiply-adds per image of all convolutions that run on these images.

    On meta tensors nothing is computed: `count_madds(module.to("meta"), torch.empty(1, 3, 640, 640, device="meta"))`.
    """
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d)
        total += layer.weight[0].numel() * output[0].numel()

    handles = [layer.register_forward_hook(count) for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    try:
        with torch.no_grad():
            (forward or module)(images)
    finally:
        for handle in handles:
            handle.remove()
    return total
