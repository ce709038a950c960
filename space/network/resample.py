"""Connections: resample a parent's feature map to the size and width of the target block (SpineNet, Figure 5).

Between ResNet blocks: 1x1 convolution to alpha times the parent's width, BN, act; then down by one strided 3x3
convolution, BN, act and max-pooling for the rest, or up by nearest neighbours; then 1x1 to the target's width and BN
without activation. Between MBConv blocks there is no first 1x1, and each halving is a depthwise convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from spinenas.space.genotype import BlockKind
from spinenas.space.network.layers import ConvNorm, Layers, draw_glorot, same_padding
from spinenas.space.scaling import Scaling


def max_pool_same(x: Tensor, kernel_size: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """TensorFlow's SAME max-pool: output ceil(n / stride); if the padding is odd, the larger half comes after."""
    sizes = x.shape[-2:]
    pads = [same_padding(*what) for what in zip(sizes, kernel_size, stride, strict=True)]
    before = [pad[0] for pad in pads]
    # ceil_mode lets a window reach past the end, which equals padding with -inf, but without a copy.
    ceil_mode = any(first != last for first, last in pads)
    return functional.max_pool2d(x, kernel_size, stride, padding=before, ceil_mode=ceil_mode)


class Resample(nn.Module):
    """One cross-scale connection between ResNet blocks."""

    def __init__(self, parent: tuple[int, BlockKind], target: tuple[int, BlockKind], scaling: Scaling, layers: Layers):
        """Build the connection from a block of (level, kind) `parent` to one of (level, kind) `target`."""
        super().__init__()
        inner = scaling.connection_width(*parent)
        self.halvings = target[0] - parent[0]
        self.reduce = ConvNorm(scaling.width(*parent), inner, 1, layers)
        self.down = ConvNorm(inner, inner, 3, layers, stride=2) if self.halvings > 0 else None
        self.expand = ConvNorm(inner, scaling.width(*target), 1, layers)
        self.activation = layers.activation
        self.repeated_pools = layers.dialect.repeated_pools

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map (N, C, h, w) to (N, channels, *size)."""
        parent_size = x.shape[-2:]
        x = self.activation(self.reduce(x))
        if self.down is not None:
            x = self.activation(self.down(x))
            if self.repeated_pools:
                for _ in range(self.halvings - 1):
                    x = max_pool_same(x, (3, 3), (2, 2))
            else:
                # An axis of ratio 2 needs no pooling: kernel 1, stride 1.
                pools = [single_pool(*sizes) for sizes in zip(parent_size, size, strict=True)]
                kernel_size, stride = ((pools[0][i], pools[1][i]) for i in range(2))
                if max(kernel_size) > 1:
                    x = max_pool_same(x, kernel_size, stride)
        y: Tensor = self.expand(_resized(x, size))
        return y


class MobileResample(nn.Module):
    """One cross-scale connection between MBConv blocks."""

    def __init__(self, parent: tuple[int, BlockKind], target: tuple[int, BlockKind], scaling: Scaling, layers: Layers):
        """Build the connection from a block of (level, kind) `parent` to one of (level, kind) `target`."""
        super().__init__()
        width = scaling.width(*parent)
        self.downs = []
        for i in range(target[0] - parent[0]):
            down = ConvNorm(width, width, 3, layers, stride=2, groups=width)
            self.add_module(f"dw{i}", down)
            self.downs.append(down)
        self.proj = ConvNorm(width, scaling.width(*target), 1, layers)
        self.activation = layers.activation
        self.glorot = layers.dialect.glorot_resampling

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the depthwise kernels again if the dialect initialises them Glorot-uniform."""
        if self.glorot:
            for down in self.downs:
                draw_glorot(down.conv, generator)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map (N, C, h, w) to (N, channels, *size)."""
        for down in self.downs:
            x = self.activation(down(x))
        y: Tensor = self.proj(_resized(x, size))
        return y


def single_pool(parent_size: int, size: int) -> tuple[int, int]:
    """Kernel and stride of tensorflow/tpu's single max-pool along an axis, after the strided convolution.

    If the sizes do not divide, the stride is 2 whatever the ratio, and the resize that follows does the rest.
    """
    if parent_size // size <= 2:
        return 1, 1
    return 3 if parent_size <= 4 * size else 5, 2 if parent_size % size else parent_size // size // 2


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize by nearest neighbours: cell i takes floor(i * in / out)."""
    return x if x.shape[-2:] == size else functional.interpolate(x, size=size, mode="nearest")
