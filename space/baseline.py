"""The paper's baselines as plain data: ResNets with a feature pyramid (SpineNet, section 5.2)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from spinenas.space.errors import UserError, nearest
from spinenas.space.genotype import Genotype

RESNET_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Bottlenecks of each stage, by depth (He et al., CVPR 2016, table 1)."""

RESNET_CHANNELS = (64, 128, 256, 512)
"""Channels of a stage's 3x3 convolutions before filter_scale; stage i ends at level i + 2."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A ResNet-FPN of levels 3 to 7. Raises UserError for an unknown depth.

    Attributes:
        depth: 50, 101 or 152.
    """

    depth: int

    def __post_init__(self) -> None:
        if self.depth not in RESNET_BLOCKS:
            raise UserError(f"there is no ResNet-{self.depth} here; known are {', '.join(map(str, RESNET_BLOCKS))}")

    @property
    def text(self) -> str:
        """Name such as "r50-fpn", which `architecture_from_text` reads back."""
        return f"r{self.depth}-fpn"

    @property
    def key(self) -> str:
        """Identity of the baseline: 16 hex digits, like the key of a genotype."""
        return hashlib.sha256(f"spinenas-baseline/1 {self.text}".encode()).hexdigest()[:16]


Architecture = Genotype | Baseline
"""Anything a detector can be built on."""


def genotype_of(architecture: Architecture, name: str) -> Genotype:
    """Return the genotype of an architecture; `name` is for the message. Raises UserError for a baseline."""
    if isinstance(architecture, Baseline):
        raise UserError(
            f"{name} is a ResNet-FPN, which has no genotype; name one of the SpineNets, or build it in Python with "
            "spinenas.space.network.build_backbone"
        )
    return architecture


def architecture_from_text(text: str) -> Architecture:
    """Read the `text` of a genotype or a baseline. Raises UserError."""
    if "/" in text:
        return Genotype.from_text(text)
    names = {Baseline(depth).text: depth for depth in RESNET_BLOCKS}
    if text not in names:
        raise UserError(f"{text!r} is neither a genotype's text nor a baseline{nearest(text, names)}")
    return Baseline(names[text])
