"""Axes of charts and what is done to data before it is drawn on them: plain numbers; it knows nothing of SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Point = tuple[float, float]

MOST_DOTS = 2000
"""Dots of one series; more say no more on a chart of this size."""

_LARGEST = 1e300
"""Beyond it a difference of two values may be no number any more."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A straight line from values to lengths.

    Attributes:
        low, high: the smallest and largest value shown, apart.
        start, end: where they stand; an axis that grows upwards has its end above.
    """

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value stands; one that is not shown, at the end it lies beyond."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def bounds(values: Iterable[float], include: Sequence[float] = ()) -> tuple[float, float]:
    """Return the ends of an axis for some values: a little room beyond them, none beyond those to include."""
    known = [min(max(value, -_LARGEST), _LARGEST) for value in (*values, *include) if not math.isnan(value)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        room = abs(low) / 10 or 0.5
        return low - room, high + room
    room = (high - low) / 20
    return (low if low in include else low - room), (high if high in include else high + room)


def ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Return round values between the ends of an axis, about as many as asked for and no more than that.

    Args:
        whole: whether there is nothing between whole numbers.
    """
    raw = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    if whole:
        step = max(step, 1.0)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Return values of one axis as text, all with as many decimals as their distance needs."""
    if not values:
        return []
    step = values[1] - values[0] if len(values) > 1 else abs(values[0]) or 1.0
    largest = max(map(abs, values))
    if largest >= 1e7 or step < 1e-6:
        return [f"{value:.4g}" for value in values]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{value + 0.0:,.{decimals}f}" for value in values]


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
