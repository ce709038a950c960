"""The three blocks of SpineNet and the layers they are made of.

ResNet's blocks are post-activation, as in tensorflow/tpu `nn_blocks.py`: conv-BN-act ... conv-BN, plus shortcut, act.
MBConv ends linear. Tensors are NCHW. Module names follow the canonical weight names (conv1, bn1, shortcut.conv, ...).
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
from spinenas.space.genotype import BlockKind
from spinenas.space.scaling import EXPANSION, squeezed_channels

Activation = Callable[[Tensor], Tensor]

_ACTIVATIONS: dict[str, Activation] = {"relu": torch.relu_, "swish": functional.silu}
"""relu works in place: it is only ever given a tensor that nothing else reads again."""


def activation_function(name: str) -> Activation:
    """Return "relu" or "swish" as a function of a tensor. Raises UserError."""
    if name not in _ACTIVATIONS:
        raise UserError(f"activation is {name!r}; known are {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


class FeatureInfo(NamedTuple):
    """An output of a backbone.

    Attributes:
        level: its key in what the backbone returns.
        stride: 2**level, input pixels from one cell to the next.
        channels: of its features.
    """

    level: int
    stride: int
    channels: int


def feature_info(levels: Iterable[int], channels: int) -> tuple[FeatureInfo, ...]:
    """Describe outputs that have the same channels."""
    return tuple(FeatureInfo(level, 2**level, channels) for level in levels)


class SameConv2d(nn.Conv2d):
    """A strided convolution padded as TensorFlow's SAME: of an odd padding the larger half comes after."""

    def forward(self, x: Tensor) -> Tensor:
        padding = []
        for size, kernel_size, stride in zip(x.shape[:-3:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            before, after = same_padding(size, kernel_size, stride)
            padding += [before, after]
        y: Tensor = self._conv_forward(functional.pad(x, padding), self.weight, self.bias)
        return y


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Cells that TensorFlow's SAME adds before and after, so that the output has ceil(size / stride)."""
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
    """A convolution whose weights are left for `initialize`.

    It is padded by (kernel_size - 1) / 2 on both sides, or, with `same`, as TensorFlow does.
    """
    kind = SameConv2d if same and stride > 1 else nn.Conv2d
    # Made without storage first: torch's own initialisation would draw from the global generator.
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
    """What the layers of one network have in common.

    Attributes:
        dialect: whose rules.
        activation: in place or not; given tensors that nothing else reads.
        bn_momentum, bn_eps: of every batch norm, in PyTorch's sense.
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
        """A convolution without bias, padded as the dialect does."""
        return conv(
            in_channels, out_channels, kernel_size, stride=stride, groups=groups, same=self.dialect.same_padding
        )


def layers_of(dialect: str, activation: str, bn_momentum: float | None, bn_eps: float | None) -> Layers:
    """What the layers of a network share; None stands for the dialect's own. Raises UserError."""
    rules = dialect_named(dialect)
    return Layers(
        rules,
        activation_function(activation),
        bn_momentum=rules.bn_momentum if bn_momentum is None else bn_momentum,
        bn_eps=rules.bn_eps if bn_eps is None else bn_eps,
    )


class ConvNorm(nn.Module):
    """Convolution and batch norm; the activation is the caller's."""

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
        generator: draws them, on the CPU.
    """

    def __init__(self, rate: float, generator: torch.Generator):
        super().__init__()
        self.rate, self.generator = rate, generator

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = (torch.rand(len(x), generator=self.generator) >= self.rate).to(x.dtype) / (1 - self.rate)
        return x * kept.to(x.device).view(-1, 1, 1, 1)


class ResNetBlock(nn.Module):
    """What both blocks of ResNet do around their convolutions: the shortcut, the dropping of branches, the sum."""

    def add_shortcut(
        self, in_channels: int, width: int, layers: Layers, stride: int, depth: StochasticDepth | None
    ) -> None:
        """Make the shortcut, a projection where the input has another width or size; after the convolutions."""
        self.shortcut = None
        if stride > 1 or in_channels != width:
            self.shortcut = ConvNorm(in_channels, width, 1, layers, stride=stride)
        self.depth = depth
        self.activation = layers.activation

    def joined(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the input x to the branch y, and activate."""
        if self.depth is not None:
            y = self.depth(y)
        return self.activation(y + (x if self.shortcut is None else self.shortcut(x)))


class Bottleneck(ResNetBlock):
    """1x1, 3x3, 1x1 convolutions; gives 4 * channels. A projection where the input has another width or size."""

    kind = BlockKind.BOTTLENECK

    def __init__(
        self,
        in_channels: int,
        channels: int,
        layers: Layers,
        *,
        stride: int = 1,
        depth: StochasticDepth | None = None,
    ):
        super().__init__()
        self.conv1, self.bn1 = layers.conv(in_channels, channels, 1), layers.norm(channels)
        self.conv2, self.bn2 = layers.conv(channels, channels, 3, stride=stride), layers.norm(channels)
        self.conv3, self.bn3 = layers.conv(channels, 4 * channels, 1), layers.norm(4 * channels)
        self.add_shortcut(in_channels, 4 * channels, layers, stride, depth)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.bn1(self.conv1(x)))
        y = self.activation(self.bn2(self.conv2(y)))
        return self.joined(x, self.bn3(self.conv3(y)))


class Residual(ResNetBlock):
    """Two 3x3 convolutions; gives as many channels as it takes."""

    kind = BlockKind.RESIDUAL

    def __init__(
        self,
        in_channels: int,
        channels: int,
        layers: Layers,
        *,
        stride: int = 1,
        depth: StochasticDepth | None = None,
    ):
        super().__init__()
        self.conv1, self.bn1 = layers.conv(in_channels, channels, 3, stride=stride), layers.norm(channels)
        self.conv2, self.bn2 = layers.conv(channels, channels, 3), layers.norm(channels)
        self.add_shortcut(in_channels, channels, layers, stride, depth)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.bn1(self.conv1(x)))
        return self.joined(x, self.bn2(self.conv2(y)))


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the means of all channels."""

    def __init__(self, channels: int, squeezed: int, layers: Layers):
        super().__init__()
        self.reduce = conv(channels, squeezed, 1, bias=True)
        self.expand = conv(squeezed, channels, 1, bias=True)
        self.hard = layers.dialect.hard_squeeze

    def forward(self, x: Tensor) -> Tensor:
        y = self.reduce(x.mean(dim=(2, 3), keepdim=True))
        y = self.expand(functional.relu(y) if self.hard else functional.silu(y))
        # tensorflow/models `modeling/activations` multiplies by this constant, not by 1 / 6.
        gate = functional.relu6(y + 3) * 0.16667 if self.hard else y.sigmoid()
        return x * gate


class MBConv(nn.Module):
    """Expansion by 1x1, depthwise 3x3, squeeze-excite, projection by 1x1 without activation (SpineNet, appendix A)."""

    kind = BlockKind.MBCONV

    def __init__(
        self,
        in_channels: int,
        channels: int,
        layers: Layers,
        *,
        stride: int = 1,
        depth: StochasticDepth | None = None,
    ):
        super().__init__()
        width = EXPANSION * in_channels
        self.expand = ConvNorm(in_channels, width, 1, layers)
        self.dw = ConvNorm(width, width, 3, layers, stride=stride, groups=width)
        self.se = SqueezeExcite(width, squeezed_channels(in_channels), layers)
        self.project = ConvNorm(width, channels, 1, layers)
        self.has_identity = stride == 1 and in_channels == channels
        self.depth = depth
        self.activation = layers.activation

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.expand(x))
        y = self.activation(self.dw(y))
        y = self.project(self.se(y))
        if self.depth is not None and self.has_identity:
            y = self.depth(y)
        return y + x if self.has_identity else y


Block = Bottleneck | Residual | MBConv

BLOCKS: dict[BlockKind, type[Bottleneck] | type[Residual] | type[MBConv]] = {
    BlockKind.BOTTLENECK: Bottleneck,
    BlockKind.RESIDUAL: Residual,
    BlockKind.MBCONV: MBConv,
}


def initialize(module: nn.Module, generator: torch.Generator) -> None:
    """Draw all convolution kernels, in the order of the modules, and set biases to 0.

    Batch norms start at gamma 1 and beta 0, as torch makes them.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            draw_kernel(layer, generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def draw_glorot(layer: nn.Conv2d, generator: torch.Generator) -> None:
    """Glorot-uniform, the default of TensorFlow's layers; a depthwise kernel counts all channels in and one out."""
    cells = layer.kernel_size[0] * layer.kernel_size[1]
    fan_in, fan_out = layer.in_channels * cells, layer.out_channels // layer.groups * cells
    limit = math.sqrt(6 / (fan_in + fan_out))
    nn.init.uniform_(layer.weight, -limit, limit, generator=generator)


def draw_kernel(layer: nn.Conv2d, generator: torch.Generator) -> None:
    """Truncated normal of variance 1 / fan_in (tensorflow/tpu, variance scaling).

    A depthwise kernel counts all its channels as inputs, as TensorFlow does.
    """
    fan_in = layer.weight[0].numel() * layer.groups
    # 0.8796 is the standard deviation of a unit normal cut at two: dividing by it keeps the variance.
    deviation = 1 / math.sqrt(fan_in) / 0.87962566103423978
    nn.init.trunc_normal_(layer.weight, std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator)
