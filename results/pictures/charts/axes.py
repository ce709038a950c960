"""Axes of a chart: range, ticks, labels, and the scale from values to lengths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spinenas.results.pictures.charts.style import TEXT_SIZE, WIDTH, room_for, text_element
from spinenas.results.pictures.svg import cut, short

_LARGEST = 1e300
"""Larger values are clipped, because their difference could overflow."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis.

    Attributes:
        label: quantity and unit.
        include: values that the axis always covers; no margin is added beyond them.
        least, most: values that the quantity cannot go beyond; neither does the axis, and marks are clipped there.
        whole: whether only whole numbers get ticks.
        categories: names of the values 0, 1, 2, ...; the y axis has the first on top, the x axis needs short
            ones.
    """

    label: str
    include: tuple[float, ...] = ()
    least: float = -math.inf
    most: float = math.inf
    whole: bool = False
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scale:
    """Linear map from values to lengths.

    Attributes:
        low, high: smallest and largest value shown; they differ.
        start, end: their positions; an axis that grows upwards has start > end.
    """

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return the position of a value; values outside the range are clipped to its ends."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def bounds(values: Iterable[float], include: Sequence[float] = ()) -> tuple[float, float]:
    """Return the range of an axis for some values, with a small margin except at values to include."""
    known = [min(max(value, -_LARGEST), _LARGEST) for value in (*values, *include) if not math.isnan(value)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        room = abs(low) / 10 or 0.5
        return low - room, high + room
    room = (high - low) / 20
    return (low if low in include else low - room), (high if high in include else high + room)


def ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Return round values between the ends of an axis, at most about as many as asked for.

    Args:
        least, most: values that the quantity cannot go beyond; neither does the axis, and marks are clipped there.
        whole: whether only whole numbers are allowed.
    """
    raw = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    if whole:
        step = max(step, 1.0)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Return the ticks of one axis as text, all with as many decimals as their distance needs."""
    if not values:
        return []
    step = values[1] - values[0] if len(values) > 1 else abs(values[0]) or 1.0
    largest = max(map(abs, values))
    if largest >= 1e7 or step < 1e-6:
        return [f"{value:.4g}" for value in values]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{value + 0.0:,.{decimals}f}" for value in values]


def axis_range(axis: Axis, values: Iterable[float]) -> tuple[float, float]:
    """Return both ends of an axis that shows these values."""
    if axis.categories:
        return -0.5, len(axis.categories) - 0.5
    low, high = bounds((min(max(value, axis.least), axis.most) for value in values), axis.include)
    return max(low, axis.least), min(high, axis.most)


def x_axis_elements(x: Axis, across: Scale, bottom: float) -> list[str]:
    """Return the x axis with as many numbers or categories as fit."""
    room = across.end - across.start
    if x.categories:
        values = [float(index) for index in range(len(x.categories))]
        names = [cut(name, room / len(values), TEXT_SIZE) for name in x.categories]
    else:
        most = 7
        while True:
            values = ticks(across.low, across.high, most, whole=x.whole)
            names = tick_labels(values)
            if most == 1 or sum(room_for(name) + 14 for name in names) <= room:
                break
            most -= 1
    line = f"M{short(across.start)} {short(bottom)}H{short(across.end)}"
    line += "".join(f"M{short(across.at(value))} {short(bottom)}v4" for value in values)
    found = [f'<path class="axis" d="{line}"/>']
    for value, name in zip(values, names, strict=True):
        half = room_for(name) / 2
        place = min(across.at(value), WIDTH - 2 - half)  # keeps the last label on the page
        found.append(text_element(place, bottom + 18, name, "middle"))
    return found
