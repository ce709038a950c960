"""Width, resampling and depth of a network built from a genotype: the published scalings and a proxy's own.

Source: SpineNet, section 3.3 and Table 2; tensorflow/tpu `spinenet.py` (SCALING_MAP).
"""

from __future__ import annotations

from dataclasses import dataclass

from spinenas.space.errors import UserError

BASE_CHANNELS = {1: 32, 2: 64, 3: 128, 4: 256, 5: 256, 6: 256, 7: 256}
"""Channels of a block's 3x3 convolution by level, before filter_scale (tensorflow/tpu `spinenet.py`)."""

STEM_CHANNELS = 64
"""Channels of the 7x7 stem convolution; not scaled (tensorflow/tpu)."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """How wide and deep a genotype is built.

    Attributes:
        name: what it is called in tables.
        filter_scale: factor on BASE_CHANNELS; the product is truncated.
        endpoint_channels: channels of every endpoint P3..P7.
        resample_alpha: factor on the channels inside a resampling connection.
        block_repeats: how often each block is repeated in sequence.
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

    def channels(self, level: int) -> int:
        """Channels of the 3x3 convolution of a block at this level; truncated, as in the published code."""
        return max(1, int(BASE_CHANNELS[level] * self.filter_scale))


SCALINGS = {
    scaling.name: scaling
    for scaling in (
        Scaling("49S", 0.65, 256, 0.5, 1),  # as released: reproduces 11.94 M parameters
        Scaling("49S-code", 0.65, 128, 0.5, 1),  # as in the published code
        Scaling("49", 1.0, 256, 0.5, 1),
        Scaling("96", 1.0, 256, 0.5, 2),
        Scaling("143", 1.0, 256, 1.0, 3),
        Scaling("143L", 1.3, 256, 1.0, 3),
        Scaling("190", 1.3, 512, 1.0, 4),
    )
}
"""The published ResNet-type scalings by name."""
