"""Routes the connections of a drawn architecture as curves.

Each connection takes the cheapest of about a thousand candidates: simple arcs, and paths along a lane between the rows.
No connection of a published model runs through a block. Of random genotypes' connections one in two hundred does, and
most of these only graze a corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from spinenas.results.pictures.architecture.parts import COLUMN, Box, Direction, Floats, Points, Role, Wire
from spinenas.space.genotype import BlockKind

LABEL_WIDTH, LABEL_HEIGHT = 24.0, 15.0
"""Room above a block for the name of an output."""

_CLEARANCE = 4.0
_STEP = 7.0
"""Maximum horizontal distance of the points at which a candidate's cost is sampled."""
_CELL = 3.0
"""Side of the grid squares that record where curves run already."""


def wires(links: Sequence[tuple[int, int, Role]], boxes: Sequence[Box], height: float) -> tuple[Wire, ...]:
    """Route all connections. Short ones come first, as they have the least choice, and unbuilt ones last."""
    starts = _ports(links, boxes, of_source=True)
    ends = _ports(links, boxes, of_source=False)
    order = sorted(links, key=lambda link: (link[2] == Role.GHOST, link[1] - link[0], link[1], link[0]))
    routed: dict[tuple[int, int], Points] = {}
    taken = np.zeros((int(COLUMN * len(boxes) / _CELL) + 1, int(height / _CELL) + 1), dtype=bool)
    for x, y in ends.values():  # keeps arrow heads visible
        left, right, top, bottom = (int(value / _CELL) for value in (x - 9, x, y - 4, y + 4))
        taken[left : right + 1, top : bottom + 1] = True
    for source, target, _ in order:
        ends_here = boxes[source], boxes[target]
        points, curve = _route(starts[source, target], ends[source, target], ends_here, boxes, taken, height)
        routed[source, target] = points
        across, down = _cells(curve, taken.shape)
        for step in (-1, 0, 1):
            taken[across, np.clip(down + step, 0, taken.shape[1] - 1)] = True
    found = []
    for source, target, role in links:
        step = boxes[target].level - boxes[source].level
        direction = Direction.DOWN if step > 0 else Direction.UP if step < 0 else Direction.SAME
        found.append(Wire(source, target, role, direction, routed[source, target]))
    return tuple(found)


def _ports(
    links: Sequence[tuple[int, int, Role]], boxes: Sequence[Box], *, of_source: bool
) -> dict[tuple[int, int], tuple[float, float]]:
    """Return where each connection leaves its source or meets its target.

    The ports of a block are spread over one side, in the order of their far ends.
    """
    ports = {}
    for box in boxes:
        mine = [(source, target) for source, target, _ in links if (source if of_source else target) == box.node]

        def slope(link: tuple[int, int], box: Box = box) -> float:
            far = boxes[link[1] if of_source else link[0]]
            return (far.y - box.y) / abs(far.x - box.x)

        mine.sort(key=lambda link: (slope(link), link))
        level_links = [place for place, link in enumerate(mine) if slope(link) == 0] or range(len(mine))
        middle = sum(level_links) / max(1, len(level_links))  # a level connection takes the middle
        room = box.height * (0.2 if box.kind == BlockKind.RESIDUAL else 0.36)  # a diamond has a corner on this side
        gap = min(11.0 if of_source else 16.0, room / max(1.0, middle, len(mine) - 1 - middle))
        for place, link in enumerate(mine):
            y = box.y + gap * (place - middle)
            ports[link] = (box.x + box.side(y) if of_source else box.x - box.side(y), y)
    return ports


def _route(
    start: tuple[float, float],
    end: tuple[float, float],
    ends: tuple[Box, Box],
    boxes: Sequence[Box],
    taken: NDArray[np.bool_],
    height: float,
) -> tuple[Points, Floats]:
    """Return the cheapest candidate as control points and as sampled points."""
    across = max(24, int((end[0] - start[0]) / _STEP))
    pools = [(_arcs(start, end), [across]), (_lanes(start, end, height), [16, across // 2, 16])]
    found = []
    for controls, counts in pools:
        curves = sampled(controls, counts)
        cost = _cost(curves, ends, boxes, taken, height)
        best = int(np.argmin(np.round(cost, 3)))  # rounding gives the same choice on every processor
        found.append((float(cost[best]), controls[best], curves[best]))
    _, points, curve = min(found, key=lambda item: round(item[0], 3))
    return tuple((float(x), float(y)) for x, y in points), curve


def _arcs(start: tuple[float, float], end: tuple[float, float]) -> Floats:
    """Return single cubics, (n, 4, 2): horizontal at both ends or along the straight line, then bent."""
    (x0, y0), (x1, y1) = start, end
    width, height = x1 - x0, y1 - y0
    bends = [0.0, *(sign * bend for bend in (14, 30, 50, 75, 105, 150) for sign in (1, -1))]
    bases = [(max(0.4 * width, 12.0), 0.0), (max(0.55 * width, 18.0), 0.0), (width / 3, height / 3)]
    return np.array(
        [
            [start, (x0 + reach, y0 + rise + first), (x1 - reach, y1 - rise + second), end]
            for (reach, rise), first, second in product(bases, bends, bends)
        ]
    )


def _lanes(start: tuple[float, float], end: tuple[float, float], height: float) -> Floats:
    """Return paths along a lane, (n, 10, 2): a bend into it, a straight piece, and a bend out of it."""
    (x0, y0), (x1, y1) = start, end
    found = []
    for lane, first, second in product(np.arange(4.0, height, 8.0), (0.3, 0.7, 1.5), (0.3, 0.7, 1.5)):
        a, b = x0 + first * COLUMN, x1 - second * COLUMN
        if a > b:
            continue
        into, out = (a - x0) * 0.55, (x1 - b) * 0.55
        third = (b - a) / 3
        x = (x0, x0 + into, a - into, a, a + third, b - third, b, b + out, x1 - out, x1)
        y = (y0, y0, lane, lane, lane, lane, lane, lane, y1, y1)
        found.append(list(zip(x, y, strict=True)))
    return np.array(found).reshape(-1, 10, 2) if found else np.array([[*_arcs(start, end)[0], *[end] * 6]])


def sampled(controls: Floats, counts: Sequence[int]) -> Floats:
    """Sample curves, (n, 1 + 3 pieces, 2) to (n, sum of counts, 2), more densely at both ends of each piece."""
    pieces = []
    for piece, count in enumerate(counts):
        t = ((1 - np.cos(np.linspace(0.0, np.pi, count))) / 2)[None, :, None]
        p0, p1, p2, p3 = (controls[:, 3 * piece + index, None, :] for index in range(4))
        pieces.append((1 - t) ** 3 * p0 + 3 * (1 - t) ** 2 * t * p1 + 3 * (1 - t) * t**2 * p2 + t**3 * p3)
    return np.concatenate(pieces, axis=1)


def _cells(points: Floats, shape: tuple[int, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return column and row of each point's grid square."""
    cells = (points / _CELL).astype(np.intp)
    return np.clip(cells[..., 0], 0, shape[0] - 1), np.clip(cells[..., 1], 0, shape[1] - 1)


def _cost(
    curves: Floats, ends: tuple[Box, Box], boxes: Sequence[Box], taken: NDArray[np.bool_], height: float
) -> Floats:
    """Return the cost of each candidate: above all blocks that it crosses, then other curves, length and bends."""
    x, y = curves[..., 0], curves[..., 1]
    steps = np.diff(curves, axis=1)
    lengths = np.hypot(steps[..., 0], steps[..., 1])
    turns = np.abs(np.diff(np.unwrap(np.arctan2(steps[..., 1], steps[..., 0]), axis=1), axis=1))
    cost: Floats = lengths.sum(axis=1) + 22.0 * turns.sum(axis=1) ** 1.5 + 120.0 * turns.max(axis=1)
    cost += 60.0 * np.maximum(0.0, -steps[..., 0]).sum(axis=1)  # back to the left
    cost += 400.0 * ((y < 3) | (y > height - 3)).sum(axis=1)  # off the plot
    share = np.pad(lengths, ((0, 0), (0, 1)))  # curve length that each point represents
    for box in boxes[ends[0].node : ends[1].node + 1]:  # curves stay between their ends
        inside = box.holds(curves, -1.0 if box in ends else _CLEARANCE)
        cost += 500.0 * inside.any(axis=1) + 40.0 * (inside * share).sum(axis=1)
        if box.is_output:
            above = box.y - box.height / 2 - LABEL_HEIGHT / 2
            label = (np.abs(x - box.x) < LABEL_WIDTH / 2 + 2) & (np.abs(y - above) < LABEL_HEIGHT / 2 + 2)
            cost += 6.0 * (label * share).sum(axis=1)
    cost += 1.2 * (taken[_cells(curves, taken.shape)] * share).sum(axis=1)
    return cost
