"""The three block types of SpineNet: bottleneck, residual and MBConv.

The ResNet blocks are post-activation, as in tensorflow/tpu `nn_blocks.py`: conv-BN-act ... conv-BN, plus shortcut, act.
MBConv ends without activation. Tensors are NCHW. Module names follow the canonical weight names (conv1, bn1,
shortcut.conv, ...).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from spinenas.space.genotype import BlockKind
from spinenas.space.network.layers import ConvNorm, Layers, StochasticDepth, conv
from spinenas.space.scaling import EXPANSION, squeezed_channels


class ResNetBlock(nn.Module):
    """Base of the two ResNet blocks: shortcut, stochastic depth, sum and activation."""

    def add_shortcut(
        self, in_channels: int, width: int, layers: Layers, stride: int, depth: StochasticDepth | None
    ) -> None:
        """Create the shortcut, a projection if width or size change. Call it after creating the convolutions."""
        self.shortcut = None
        if stride > 1 or in_channels != width:
            self.shortcut = ConvNorm(in_channels, width, 1, layers, stride=stride)
        self.depth = depth
        self.activation = layers.activation

    def add_input(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the input x to the branch y, and activate."""
        if self.depth is not None:
            y = self.depth(y)
        return self.activation(y + (x if self.shortcut is None else self.shortcut(x)))


class Bottleneck(ResNetBlock):
    """1x1, 3x3 and 1x1 convolutions; the output has 4 * channels."""

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
        return self.add_input(x, self.bn3(self.conv3(y)))


class Residual(ResNetBlock):
    """Two 3x3 convolutions; the output has `channels` channels."""

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
        return self.add_input(x, self.bn2(self.conv2(y)))


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
    """1x1 expansion, depthwise 3x3, squeeze-excite, 1x1 projection without activation (SpineNet, appendix A)."""

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
