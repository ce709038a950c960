"""Reduces data before it is drawn: fewer dots, shorter lines, bins and quantiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, float]

MOST_DOTS = 2000
"""Dots of one series; more say no more on a chart of this size."""


def thinned_dots(points: Sequence[Point], cell: Point) -> list[Point]:
    """Return at most MOST_DOTS of some points, those left out next to one that stays.

    Args:
        cell: width and height within which two points look like one; doubled until few enough are left.
    """
    width, height = cell
    # In an order that has nothing to do with theirs: of a series in time the first of each cell would stand in columns.
    kept = [points[index] for index in sorted(range(len(points)), key=lambda index: index * 2654435761 % 2**32)]
    while True:
        kept = list({(x // width, y // height): (x, y) for x, y in kept}.values())
        if len(kept) <= MOST_DOTS:
            return kept
        width, height = 2 * width, 2 * height


def thinned_line(points: Sequence[Point], width: float) -> list[Point]:
    """Return the points that a line needs: of each strip of this width the first, lowest, highest and last one."""
    strips: dict[float, list[Point]] = {}
    for point in points:
        strips.setdefault(point[0] // width, []).append(point)
    kept: list[Point] = []
    for strip in strips.values():
        lowest = min(range(len(strip)), key=lambda index: strip[index][1])
        highest = max(range(len(strip)), key=lambda index: strip[index][1])
        kept += [strip[index] for index in sorted({0, lowest, highest, len(strip) - 1})]
    return kept


def bins(values: Sequence[float], low: float, high: float, count: int) -> list[tuple[float, float, int]]:
    """Return (start, end, number of values) of bins of equal width from low to high."""
    numbers = [0] * count
    for value in values:
        # Halved first: the difference of two numbers may be none any more.
        share = (value / 2 - low / 2) / (high / 2 - low / 2)
        numbers[min(int(share * count), count - 1)] += 1
    edges = [low * (1 - index / count) + high * (index / count) for index in range(count + 1)]
    return list(zip(edges, edges[1:], numbers, strict=False))


def quantile(ascending: Sequence[float], share: float) -> float:
    """Return a quantile of ascending values, by linear interpolation."""
    place = share * (len(ascending) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ascending) - 1)
    return ascending[below] + (place - below) * (ascending[above] - ascending[below])
