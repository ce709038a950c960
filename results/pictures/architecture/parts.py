"""Parts of a drawn architecture, as plain numbers: blocks, connections and the whole layout.

Lengths are in user units, from the top left corner of the plot; y grows downwards, as in SVG.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from spinenas.space.genotype import BlockKind

COLUMN, ROW = 46.0, 76.0
"""Distance of neighbouring columns and rows."""

Points = tuple[tuple[float, float], ...]
Floats = NDArray[np.float64]


class Role(StrEnum):
    """What a connection is: an input, a dangling block merged into an output, or one that is not built."""

    PARENT = "parent"
    MERGE = "merge"
    GHOST = "ghost"


class Direction(StrEnum):
    """What happens to the feature map on its way."""

    DOWN = "down"
    UP = "up"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Box:
    """A block as drawn.

    Attributes:
        node, level, kind, is_output: as in the genotype.
        is_stem: whether it is a stem block.
        is_built: whether it reaches an output.
        channels: that it gives on at full width.
        x, y: its centre.
        width, height: of its shape; the height grows with the root of its channels.
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
        """Half of the shape's width at a height y within it: a residual block is a diamond."""
        if self.kind != BlockKind.RESIDUAL:
            return self.width / 2
        return self.width / 2 * (1 - abs(y - self.y) / (self.height / 2))

    def holds(self, points: Floats, margin: float) -> NDArray[np.bool_]:
        """Which points (..., 2) are inside its shape, made larger by a margin or smaller by a negative one."""
        across, down = np.abs(points[..., 0] - self.x), np.abs(points[..., 1] - self.y)
        half_width, half_height = self.width / 2 + margin, self.height / 2 + margin
        if self.kind == BlockKind.RESIDUAL:
            return across / half_width + down / half_height < 1
        return (across < half_width) & (down < half_height)


@dataclass(frozen=True, slots=True)
class Wire:
    """A connection as drawn.

    Attributes:
        source, target: node numbers.
        role, direction: what it is.
        points: a start, then three points for each cubic Bezier piece.
    """

    source: int
    target: int
    role: Role
    direction: Direction
    points: Points


@dataclass(frozen=True, slots=True)
class Layout:
    """An architecture as drawn.

    Attributes:
        boxes: one for each node, in order.
        wires: one for each connection, by target.
        levels: its rows from the top.
    """

    boxes: tuple[Box, ...]
    wires: tuple[Wire, ...]
    levels: tuple[int, ...]

    @property
    def width(self) -> float:
        """Of all columns."""
        return COLUMN * len(self.boxes)

    @property
    def height(self) -> float:
        """Of all rows."""
        return ROW * len(self.levels)
