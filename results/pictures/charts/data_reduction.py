"""Reduces data before drawing: thinned dots and lines, and bins."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, float]

MOST_DOTS = 2000
"""Maximum number of dots per series; more are not visible at this size."""


def thinned_dots(points: Sequence[Point], cell: Point) -> list[Point]:
    """Return at most MOST_DOTS points; each point left out lies near a kept one.

    Args:
        cell: width and height within which points look like one; doubled until few enough are left.
    """
    width, height = cell
    # In pseudo-random order: the first point of each cell in a time series would make visible columns.
    kept = [points[index] for index in sorted(range(len(points)), key=lambda index: index * 2654435761 % 2**32)]
    while True:
        kept = list({(x // width, y // height): (x, y) for x, y in kept}.values())
        if len(kept) <= MOST_DOTS:
            return kept
        width, height = 2 * width, 2 * height


def thinned_line(points: Sequence[Point], width: float) -> list[Point]:
    """Return the first, lowest, highest and last point of each strip of this width."""
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
        # Halved first, because the difference of two large numbers could overflow.
        share = (value / 2 - low / 2) / (high / 2 - low / 2)
        numbers[min(int(share * count), count - 1)] += 1
    edges = [low * (1 - index / count) + high * (index / count) for index in range(count + 1)]
    return list(zip(edges, edges[1:], numbers, strict=False))
