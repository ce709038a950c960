"""The head and anchors of a RetinaNet, as plain data.

Messages name the configuration keys of a search, `task.head`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spinenas.space.dialect import dialect_named
from spinenas.space.errors import UserError
from spinenas.space.published import PublishedModel


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """RetinaNet's head and anchors (tensorflow/tpu `heads.py`, `anchor.py`).

    Attributes:
        num_convs, channels: number of 3x3 convolutions in each tower, and their width.
        anchor_scale: side of the smallest anchor in strides (3 in the paper for SpineNet-96 and smaller).
        num_scales: anchor sizes per octave.
        aspect_ratios: width / height, in the order of the predictor's channels.
        separable: depthwise and 1x1 convolutions instead of 3x3 ones, as in the mobile models.
    """

    num_convs: int = 4
    channels: int = 256
    anchor_scale: float = 3.0
    num_scales: int = 3
    aspect_ratios: tuple[float, ...] = (1.0, 2.0, 0.5)
    separable: bool = False

    @property
    def num_anchors(self) -> int:
        """Number of anchors at each location."""
        return self.num_scales * len(self.aspect_ratios)

    def as_cost_arguments(self) -> dict[str, Any]:
        """Return the head as keyword arguments for `spinenas.space.cost`."""
        return {
            "head_convs": self.num_convs,
            "head_channels": self.channels,
            "num_anchors": self.num_anchors,
            "separable_head": self.separable,
        }

    def __post_init__(self) -> None:
        for name, least in (("num_convs", 0), ("channels", 1), ("num_scales", 1)):
            if getattr(self, name) < least:
                raise UserError(f"task.head.{name} is {getattr(self, name)}; it is at least {least}")
        if not 0 < self.anchor_scale < float("inf"):
            raise UserError(f"task.head.anchor_scale is {self.anchor_scale}; it is above 0")
        if not self.aspect_ratios or min(self.aspect_ratios) <= 0:
            raise UserError(
                f"task.head.aspect_ratios is {list(self.aspect_ratios)}; it is a list of one or more positive numbers"
            )


def published_head(model: PublishedModel, dialect: str = "tensorflow/tpu") -> HeadConfig:
    """Return the head and anchors of a published model. Raises UserError for an unknown dialect."""
    return HeadConfig(
        num_convs=model.head_convs,
        channels=model.head_channels,
        anchor_scale=model.anchor_scale,
        aspect_ratios=dialect_named(dialect).aspect_ratios,
        separable=model.separable_head,
    )
