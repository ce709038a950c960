"""Scalings: width, resampling and depth with which a genotype is built; the published ones by name.

Sources: SpineNet, section 3.3, Table 2 and appendix A; the SCALING_MAPs of tensorflow/tpu `spinenet.py` and
tensorflow/models `spinenet_mobile.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from spinenas.space.errors import UserError
from spinenas.space.genotype import BlockKind, Genotype

BASE_CHANNELS = {1: 32, 2: 64, 3: 128, 4: 256, 5: 256, 6: 256, 7: 256}
"""Channels of a block's 3x3 convolution by level, before filter_scale (tensorflow/tpu `spinenet.py`)."""

STEM_CHANNELS = 64
"""Channels of the 7x7 stem convolution; filter_scale does not apply (tensorflow/tpu)."""

MOBILE_CHANNELS = {0: 8, 1: 16, 2: 24, 3: 40, 4: 80, 5: 112, 6: 112, 7: 112}
"""Output channels of an MBConv by level, before filter_scale; 0 is the stem (tensorflow/tpu)."""

EXPANSION = 6
"""Expansion factor of MBConv's first convolution (SpineNet, appendix A)."""


def squeezed_channels(in_channels: int) -> int:
    """Channels between the two convolutions of a squeeze-excite: a fifth of the block's input channels, truncated."""
    return max(1, int(in_channels * 0.2))


@dataclass(frozen=True, slots=True)
class Scaling:
    """Width and depth of a network.

    Attributes:
        name: name in tables.
        filter_scale: factor on BASE_CHANNELS, MOBILE_CHANNELS or RESNET_CHANNELS; the product is truncated.
        endpoint_channels: channels of every endpoint P3..P7.
        resample_alpha: factor on the channels inside a resampling connection; connections of MBConv blocks ignore it.
        block_repeats: number of times each block is repeated in sequence.
    """

    name: str
    filter_scale: float
    endpoint_channels: int
    resample_alpha: float
    block_repeats: int

    def __post_init__(self) -> None:
        if not 0 < self.filter_scale <= 8 or not 0 < self.resample_alpha <= 4:
            raise UserError(
                f"scaling {self.name!r} has filter_scale {self.filter_scale} and resample_alpha "
                f"{self.resample_alpha}; both are positive, up to 8 and 4"
            )
        if self.endpoint_channels < 1 or self.block_repeats < 1:
            raise UserError(
                f"scaling {self.name!r} has endpoint_channels {self.endpoint_channels} and block_repeats "
                f"{self.block_repeats}; both are at least 1"
            )

    def channels(self, level: int, kind: BlockKind) -> int:
        """Channels of the 3x3 convolution of a ResNet block, or of an MBConv's output."""
        base = MOBILE_CHANNELS if kind == BlockKind.MBCONV else BASE_CHANNELS
        return self.scaled(base[level])

    def scaled(self, channels: int) -> int:
        """Channels times filter_scale, truncated, as in the published code; at least 1."""
        return max(1, int(channels * self.filter_scale))

    def width(self, level: int, kind: BlockKind) -> int:
        """Channels of a block's input and output."""
        return self.channels(level, kind) * (4 if kind == BlockKind.BOTTLENECK else 1)

    def connection_width(self, parent_level: int, parent_kind: BlockKind) -> int:
        """Channels inside a connection from a ResNet block: alpha times those of its 3x3 convolution, truncated."""
        return max(1, int(self.channels(parent_level, parent_kind) * self.resample_alpha))

    def stem_channels(self, kind: BlockKind) -> int:
        """Channels of the convolution before the first stem block; `kind` is the kind of that block."""
        return self.channels(0, kind) if kind == BlockKind.MBCONV else STEM_CHANNELS


SCALINGS = {
    scaling.name: scaling
    for scaling in (
        Scaling("49S", 0.65, 256, 0.5, 1),  # as in the released weights: 11.94 M parameters
        Scaling("49S-code", 0.65, 128, 0.5, 1),  # as in the published code
        Scaling("49", 1.0, 256, 0.5, 1),
        Scaling("96", 1.0, 256, 0.5, 2),
        Scaling("143", 1.0, 256, 1.0, 3),
        Scaling("143L", 1.3, 256, 1.0, 3),
        Scaling("190", 1.3, 512, 1.0, 4),
        Scaling("mobile-49XS", 0.6, 24, 1.0, 1),
        Scaling("mobile-49S", 0.65, 40, 1.0, 1),
        Scaling("mobile-49", 1.0, 48, 1.0, 1),
    )
}
"""The published scalings by name; the mobile ones are meant for MBConv blocks."""


def usual_scaling(genotype: Genotype) -> Scaling:
    """Return the scaling of full width for a genotype that comes without one: 49, or mobile-49 for MBConv blocks."""
    is_mobile = any(block.kind == BlockKind.MBCONV for block in genotype.stem)
    return SCALINGS["mobile-49" if is_mobile else "49"]


BASELINE_SCALING = Scaling("resnet-fpn", 1.0, 256, 1.0, 1)
"""Scaling of the baselines; endpoint_channels is the width of their pyramid."""
