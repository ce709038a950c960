"""The two ResNet blocks of SpineNet and the convolution with batch norm they are made of.

Post-activation blocks as in tensorflow/tpu `nn_blocks.py`: conv-BN-act ... conv-BN, plus shortcut, act. Tensors are
NCHW. Module names follow the canonical weight names (conv1, bn1, shortcut.conv, ...).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from spinenas.space.errors import UserError
from spinenas.space.genotype import BlockKind

Activation = Callable[[Tensor], Tensor]
NormFactory = Callable[[int], nn.BatchNorm2d]

_ACTIVATIONS: dict[str, Activation] = {"relu": torch.relu_, "swish": functional.silu}
"""relu works in place: it is only ever given a tensor that nothing else reads again."""


def activation_function(name: str) -> Activation:
    """Return "relu" or "swish" as a function of a tensor. Raises UserError."""
    if name not in _ACTIVATIONS:
        raise UserError(f"activation is {name!r}; known are {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def output_channels(kind: BlockKind, channels: int) -> int:
    """Channels that a block gives on, from those of its 3x3 convolution."""
    return 4 * channels if kind == BlockKind.BOTTLENECK else channels


def conv(in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """A convolution padded by (kernel_size - 1) / 2 on both sides; its weights are left for `initialize`."""
    # Made without storage first: torch's own initialisation would draw from the global generator.
    layer = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, bias=bias, device="meta"
    )
    return layer.to_empty(device="cpu")


class ConvNorm(nn.Module):
    """Convolution and batch norm; the activation is the caller's."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, norm: NormFactory, *, stride: int = 1):
        super().__init__()
        self.conv = conv(in_channels, out_channels, kernel_size, stride=stride)
        self.bn = norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.conv(x))
        return y


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions; gives 4 * channels. A projection where the input has another width."""

    kind = BlockKind.BOTTLENECK

    def __init__(self, in_channels: int, channels: int, norm: NormFactory, activation: Activation):
        super().__init__()
        self.conv1, self.bn1 = conv(in_channels, channels, 1), norm(channels)
        self.conv2, self.bn2 = conv(channels, channels, 3), norm(channels)
        self.conv3, self.bn3 = conv(channels, 4 * channels, 1), norm(4 * channels)
        self.shortcut = None if in_channels == 4 * channels else ConvNorm(in_channels, 4 * channels, 1, norm)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.bn1(self.conv1(x)))
        y = self.activation(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.activation(y + (x if self.shortcut is None else self.shortcut(x)))


class Residual(nn.Module):
    """Two 3x3 convolutions; gives as many channels as it takes."""

    kind = BlockKind.RESIDUAL

    def __init__(self, in_channels: int, channels: int, norm: NormFactory, activation: Activation):
        super().__init__()
        self.conv1, self.bn1 = conv(in_channels, channels, 3), norm(channels)
        self.conv2, self.bn2 = conv(channels, channels, 3), norm(channels)
        self.shortcut = None if in_channels == channels else ConvNorm(in_channels, channels, 1, norm)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.activation(y + (x if self.shortcut is None else self.shortcut(x)))


BLOCKS: dict[BlockKind, type[Bottleneck] | type[Residual]] = {
    BlockKind.BOTTLENECK: Bottleneck,
    BlockKind.RESIDUAL: Residual,
}


def initialize(module: nn.Module, generator: torch.Generator) -> None:
    """Draw all convolution kernels: truncated normal, variance 1 / fan_in (tensorflow/tpu, variance scaling).

    Batch norms start at gamma 1 and beta 0, as torch makes them; convolution biases at 0.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_in = layer.weight[0].numel()
            # 0.8796 is the standard deviation of a unit normal cut at two: dividing by it keeps the variance.
            deviation = 1 / math.sqrt(fan_in) / 0.87962566103423978
            nn.init.trunc_normal_(layer.weight, std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
