"""Marks of a chart in units of its axes, and their SVG: dots, lines, bands, bars, whiskers and rules."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from spinenas.results.pictures.charts.axes import Scale
from spinenas.results.pictures.charts.data_reduction import Point, bins, thinned_dots, thinned_line
from spinenas.results.pictures.charts.style import Colour
from spinenas.results.pictures.svg import short


@dataclass(frozen=True, slots=True)
class Dots:
    """Points as full dots, small faint dots, or rings. For all marks, an empty name means no legend entry."""

    name: str
    points: Sequence[Point]
    colour: Colour = "first"
    style: Literal["full", "faint", "hollow"] = "full"


@dataclass(frozen=True, slots=True)
class Line:
    """Points connected in order; `stepped` keeps each value until the next point."""

    name: str
    points: Sequence[Point]
    colour: Colour = "first"
    stepped: bool = False
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Band:
    """Area between two curves: (x, low, high)."""

    name: str
    points: Sequence[tuple[float, float, float]]
    colour: Colour = "first"


@dataclass(frozen=True, slots=True)
class Bars:
    """Rectangles (x0, y0, x1, y1)."""

    name: str
    boxes: Sequence[tuple[float, float, float, float]]
    colour: Colour = "first"


@dataclass(frozen=True, slots=True)
class Whiskers:
    """Straight segments (x0, y0, x1, y1), such as intervals."""

    name: str
    pieces: Sequence[tuple[float, float, float, float]]
    colour: Colour = "first"


@dataclass(frozen=True, slots=True)
class Rule:
    """Vertical line at an x value, with its name above the plot."""

    name: str
    x: float


_DASH = 18.0
"""Length of a line through a single place."""

Mark = Dots | Line | Band | Bars | Whiskers | Rule


def histogram(name: str, values: Sequence[float], low: float, high: float, count: int, colour: Colour) -> Bars:
    """Return the histogram of some values in bins of equal width."""
    return Bars(name, [(start, 0.0, end, number) for start, end, number in bins(values, low, high, count)], colour)


def box(values: Sequence[float], at: float, colour: Colour = "first") -> list[Mark]:
    """Return a box plot on a category of the y axis: quartiles as a box, lowest to highest value as a line.

    Up to eight values are shown as dots, since they are too few for quartiles.
    """
    ascending = sorted(values)
    if len(ascending) <= 8:
        return [Dots("", [(value, at) for value in ascending], colour)]
    lower, middle, upper = statistics.quantiles(ascending, n=4, method="inclusive")
    return [
        Whiskers("", [(ascending[0], at, ascending[-1], at)], colour),
        Bars("", [(lower, at - 0.3, upper, at + 0.3)], colour),
        Whiskers("", [(middle, at - 0.4, middle, at + 0.4)], "quiet"),
    ]


def dots_on_line(name: str, points: Sequence[Point], colour: Colour, *, dashed: bool = False) -> list[Mark]:
    """Return points and a line through them, under one name."""
    return [Line(name, points, colour, dashed=dashed), Dots("", points, colour)]


def extent(mark: Mark) -> Iterable[Point]:
    """Return points that the axes must cover."""
    match mark:
        case Dots() | Line():
            return mark.points
        case Band():
            return [(x, value) for x, *values in mark.points for value in values]
        case Bars(_, corners) | Whiskers(_, corners):
            return [point for x0, y0, x1, y1 in corners for point in ((x0, y0), (x1, y1))]
        case Rule():
            return [(mark.x, float("nan"))]


def mark_elements(mark: Mark, across: Scale, down: Scale) -> list[str]:
    """Return a mark as SVG elements."""
    match mark:
        case Dots():
            at = thinned_dots([(across.at(x), down.at(y)) for x, y in mark.points], (2.0, 2.0))
            path = "".join(f"M{short(x)} {short(y)}h0" for x, y in at)
            faint = " faint" * (mark.style == "faint")
            found = [f'<path class="dots {mark.colour}-stroke{faint}" d="{path}"/>']
            return [*found, f'<path class="dots hollow" d="{path}"/>'] if mark.style == "hollow" else found
        case Line():
            dashed = " dashed" * mark.dashed
            at = [(across.at(x), down.at(y)) for x, y in mark.points]
            if len(set(at)) == 1:  # a line through one place would be invisible
                ((x, y),) = set(at)
                at = [(max(x - _DASH / 2, across.start), y), (min(x + _DASH / 2, across.end), y)]
            path = _path(thinned_line(at, 1.0), mark.stepped)
            return [f'<path class="line {mark.colour}-stroke{dashed}" d="{path}"/>']
        case Band():
            upper = thinned_line([(across.at(x), down.at(high)) for x, _, high in mark.points], 1.0)
            lower = thinned_line([(across.at(x), down.at(low)) for x, low, _ in mark.points], 1.0)
            return [f'<path class="band {mark.colour}-fill" d="{_path([*upper, *lower[::-1]])}Z"/>']
        case Bars():
            boxes = (
                sorted((across.at(a), across.at(c))) + sorted((down.at(b), down.at(d))) for a, b, c, d in mark.boxes
            )
            path = "".join(
                f"M{short(left)} {short(top)}H{short(max(right - 0.6, left + 0.4))}V{short(bottom)}H{short(left)}Z"
                for left, right, top, bottom in boxes
                if bottom > top
            )
            return [f'<path class="bars {mark.colour}-fill" d="{path}"/>']
        case Whiskers():
            path = "".join(
                f"M{short(across.at(a))} {short(down.at(b))}L{short(across.at(c))} {short(down.at(d))}"
                for a, b, c, d in mark.pieces
            )
            return [f'<path class="whiskers {mark.colour}-stroke" d="{path}"/>']
        case Rule():
            return []


def _path(points: Sequence[Point], stepped: bool = False) -> str:
    if not points:
        return ""
    x, y = points[0]
    words = [f"M{short(x)} {short(y)}"]
    words += [f"H{short(x)}V{short(y)}" if stepped else f"L{short(x)} {short(y)}" for x, y in points[1:]]
    return "".join(words)
