"""Blocks, connections and layout of a drawn architecture, as plain numbers.

Lengths are in SVG user units from the top left corner of the plot; y grows downwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from spinenas.space.genotype import BlockKind

COLUMN, ROW = 46.0, 76.0
"""Distance between neighbouring columns and rows."""

Points = tuple[tuple[float, float], ...]
Floats = NDArray[np.float64]


class Role(StrEnum):
    """Role of a connection: input, dangling block merged into an output, or connection that is not built."""

    PARENT = "parent"
    MERGE = "merge"
    GHOST = "ghost"


class Direction(StrEnum):
    """Resampling on a connection: downsampling, upsampling or neither."""

    DOWN = "down"
    UP = "up"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Box:
    """A drawn block.

    Attributes:
        node, level, kind, is_output: as in the genotype.
        is_stem: whether it belongs to the stem.
        is_built: whether it reaches an output.
        channels: output channels at full width.
        x, y: centre.
        width, height: size of the shape; the height grows with the square root of the channels.
    """

    node: int
    level: int
    kind: BlockKind
    is_output: bool
    is_stem: bool
    is_built: bool
    channels: int
    x: float
    y: float
    width: float
    height: float

    def side(self, y: float) -> float:
        """Return half the shape's width at height y; a residual block is a diamond."""
        if self.kind != BlockKind.RESIDUAL:
            return self.width / 2
        return self.width / 2 * (1 - abs(y - self.y) / (self.height / 2))

    def holds(self, points: Floats, margin: float) -> NDArray[np.bool_]:
        """Return which points (..., 2) lie inside the shape, enlarged by a margin or shrunk by a negative one."""
        across, down = np.abs(points[..., 0] - self.x), np.abs(points[..., 1] - self.y)
        half_width, half_height = self.width / 2 + margin, self.height / 2 + margin
        if self.kind == BlockKind.RESIDUAL:
            return across / half_width + down / half_height < 1
        return (across < half_width) & (down < half_height)


@dataclass(frozen=True, slots=True)
class Wire:
    """A drawn connection.

    Attributes:
        source, target: node numbers.
        role, direction: kind of connection.
        points: start, then three control points for each cubic Bézier piece.
    """

    source: int
    target: int
    role: Role
    direction: Direction
    points: Points


@dataclass(frozen=True, slots=True)
class Layout:
    """A drawn architecture.

    Attributes:
        boxes: one per node, in order.
        wires: one per connection, by target.
        levels: level of each row from the top.
    """

    boxes: tuple[Box, ...]
    wires: tuple[Wire, ...]
    levels: tuple[int, ...]

    @property
    def width(self) -> float:
        """Width of all columns."""
        return COLUMN * len(self.boxes)

    @property
    def height(self) -> float:
        """Height of all rows."""
        return ROW * len(self.levels)
