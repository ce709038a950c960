"""The layers that blocks, connections and heads are made of, and how their weights are drawn.

Tensors are NCHW. `Layers` holds the choices that all layers of one network share: dialect, activation, batch norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from spinenas.space.dialect import Dialect, dialect_named
from spinenas.space.errors import UserError

Activation = Callable[[Tensor], Tensor]

_ACTIVATIONS: dict[str, Activation] = {"relu": torch.relu_, "swish": functional.silu}
"""relu works in place: callers pass only tensors that nothing else reads afterwards."""


def activation_function(name: str) -> Activation:
    """Return "relu" or "swish" as a function of a tensor. Raises UserError."""
    if name not in _ACTIVATIONS:
        raise UserError(f"activation is {name!r}; known are {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


class SameConv2d(nn.Conv2d):
    """A strided convolution with TensorFlow's SAME padding: if the padding is odd, the larger half comes after."""

    def forward(self, x: Tensor) -> Tensor:
        padding = []
        for size, kernel_size, stride in zip(x.shape[:-3:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            before, after = same_padding(size, kernel_size, stride)
            padding += [before, after]
        y: Tensor = self._conv_forward(functional.pad(x, padding), self.weight, self.bias)
        return y


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Cells that TensorFlow's SAME padding adds before and after; the output has ceil(size / stride) cells."""
    total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


def conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
    same: bool = False,
) -> nn.Conv2d:
    """Return a convolution with uninitialised weights; call `initialize` afterwards.

    The padding is (kernel_size - 1) / 2 on both sides or, with `same`, TensorFlow's SAME.
    """
    kind = SameConv2d if same and stride > 1 else nn.Conv2d
    # Created on the meta device: torch's own initialisation would draw from the global generator.
    layer = kind(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=0 if kind is SameConv2d else kernel_size // 2,
        groups=groups,
        bias=bias,
        device="meta",
    )
    return layer.to_empty(device="cpu")


@dataclass(frozen=True, slots=True)
class Layers:
    """The choices that all layers of one network share.

    Attributes:
        dialect: rules of the code base that the network follows.
        activation: may work in place, so callers pass only tensors that nothing else reads.
        bn_momentum, bn_eps: parameters of every batch norm, in PyTorch's sense.
    """

    dialect: Dialect
    activation: Activation
    bn_momentum: float
    bn_eps: float

    def norm(self, channels: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(channels, eps=self.bn_eps, momentum=self.bn_momentum)

    def conv(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, groups: int = 1
    ) -> nn.Conv2d:
        """Return a convolution without bias, with the dialect's padding."""
        return conv(
            in_channels, out_channels, kernel_size, stride=stride, groups=groups, same=self.dialect.same_padding
        )


def layers_of(dialect: str, activation: str, bn_momentum: float | None, bn_eps: float | None) -> Layers:
    """Return the shared choices of a network; None means the dialect's own value. Raises UserError."""
    rules = dialect_named(dialect)
    return Layers(
        rules,
        activation_function(activation),
        bn_momentum=rules.bn_momentum if bn_momentum is None else bn_momentum,
        bn_eps=rules.bn_eps if bn_eps is None else bn_eps,
    )


class ConvNorm(nn.Module):
    """Convolution and batch norm; the caller applies the activation."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, layers: Layers, *, stride: int = 1, groups: int = 1
    ):
        super().__init__()
        self.conv = layers.conv(in_channels, out_channels, kernel_size, stride=stride, groups=groups)
        self.bn = layers.norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.conv(x))
        return y


class StochasticDepth(nn.Module):
    """Drops a residual branch for whole samples while training, and scales the others by 1 / (1 - rate).

    Attributes:
        rate: share of the samples whose branch is dropped.
        generator: CPU generator that draws the dropped samples.
    """

    def __init__(self, rate: float, generator: torch.Generator):
        super().__init__()
        self.rate, self.generator = rate, generator

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = (torch.rand(len(x), generator=self.generator) >= self.rate).to(x.dtype) / (1 - self.rate)
        return x * kept.to(x.device).view(-1, 1, 1, 1)


class FeatureInfo(NamedTuple):
    """An output of a backbone.

    Attributes:
        level: key of the output in the dict that the backbone returns.
        stride: 2**level, input pixels from one cell to the next.
        channels: channels of the output.
    """

    level: int
    stride: int
    channels: int


def feature_info(levels: Iterable[int], channels: int) -> tuple[FeatureInfo, ...]:
    """Describe outputs that all have the same number of channels."""
    return tuple(FeatureInfo(level, 2**level, channels) for level in levels)


def initialize(module: nn.Module, generator: torch.Generator) -> None:
    """Draw all convolution kernels, in the order of the modules, and set biases to 0.

    Batch norms keep torch's initial values: gamma 1 and beta 0.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            draw_kernel(layer, generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def draw_glorot(layer: nn.Conv2d, generator: torch.Generator) -> None:
    """Draw Glorot-uniform, TensorFlow's default. For a depthwise kernel, fan-in counts all channels, fan-out one."""
    cells = layer.kernel_size[0] * layer.kernel_size[1]
    fan_in, fan_out = layer.in_channels * cells, layer.out_channels // layer.groups * cells
    limit = math.sqrt(6 / (fan_in + fan_out))
    nn.init.uniform_(layer.weight, -limit, limit, generator=generator)


def draw_kernel(layer: nn.Conv2d, generator: torch.Generator) -> None:
    """Draw a truncated normal of variance 1 / fan_in (tensorflow/tpu, variance scaling).

    For a depthwise kernel, fan-in counts all channels, as in TensorFlow.
    """
    fan_in = layer.weight[0].numel() * layer.groups
    # 0.8796 is the standard deviation of a unit normal truncated at 2; dividing by it keeps the variance.
    deviation = 1 / math.sqrt(fan_in) / 0.87962566103423978
    nn.init.trunc_normal_(layer.weight, std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator)
