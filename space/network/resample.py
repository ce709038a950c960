"""Bringing a parent's feature map to the size and width of the block that takes it (SpineNet, Figure 5).

1x1 convolution to alpha times the parent's width, BN, act; then down by one strided 3x3 convolution, BN, act and a
max-pool for the rest, or up by nearest neighbours; then 1x1 to the target's width, BN, no activation. Tensors are NCHW.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from spinenas.space.genotype import BlockKind
from spinenas.space.network.blocks import Activation, ConvNorm, NormFactory, output_channels


def max_pool_same(x: Tensor, kernel_size: int, stride: int) -> Tensor:
    """TensorFlow's SAME max-pool: output ceil(n / stride); of an odd padding the larger half comes after."""
    before, after = [], []
    for size in x.shape[-2:]:
        total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    # A window that reaches past the end by ceil_mode sees what padding with -inf would show it, without a copy.
    ceil_mode = after != before
    return functional.max_pool2d(x, kernel_size, stride, padding=tuple(before), ceil_mode=ceil_mode)


class Resample(nn.Module):
    """One cross-scale connection.

    Args:
        parent_level, parent_kind, parent_channels: of the parent; channels are those of its 3x3 convolution.
        level, channels: of the taking block; channels are those the block takes in.
        alpha: factor on the parent's channels inside the connection; the product is truncated.
    """

    def __init__(
        self,
        *,
        parent_level: int,
        parent_kind: BlockKind,
        parent_channels: int,
        level: int,
        channels: int,
        alpha: float,
        norm: NormFactory,
        activation: Activation,
    ):
        super().__init__()
        width = max(1, int(parent_channels * alpha))
        self.reduce = ConvNorm(output_channels(parent_kind, parent_channels), width, 1, norm)
        self.down = ConvNorm(width, width, 3, norm, stride=2) if level > parent_level else None
        self.expand = ConvNorm(width, channels, 1, norm)
        self.activation = activation

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map (N, C, h, w) to (N, channels, *size)."""
        width, target_width = x.shape[-1], size[1]
        x = self.activation(self.reduce(x))
        if self.down is not None:
            x = self.activation(self.down(x))
            if width > 2 * target_width:
                # One pool, whatever the ratio; where sizes do not divide, a stride of 2 and the resize below.
                stride = 2 if width % target_width else width // target_width // 2
                x = max_pool_same(x, 3 if width <= 4 * target_width else 5, stride)
        if x.shape[-2:] != size:
            x = functional.interpolate(x, size=size, mode="nearest")
        y: Tensor = self.expand(x)
        return y
