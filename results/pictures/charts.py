"""Small charts as SVG text: dots, lines, bands, bars and whiskers on two axes; it knows nothing of files or of runs.

A chart is made for a width of 440 units and is read at 330 pixels, on a phone, as well as at 600: its text is large,
its legend takes as many lines as it needs above the plot, and long names are cut in the middle. However many points are
given, a bounded number is drawn. A viewer's dark mode changes the colours; every text is escaped. The same data give
the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from spinenas.results.pictures.chart_scale import (
    Point,
    Scale,
    bins,
    bounds,
    quantile,
    thinned_dots,
    thinned_line,
    tick_labels,
    ticks,
)
from spinenas.results.pictures.svg import cut, escaped, style_sheet, text_width
from spinenas.results.pictures.svg import short as _n

WIDTH = 440.0
"""Of every chart, in user units."""

_MARGIN, _TEXT, _TITLE = 10.0, 12.5, 16.5
_LINE_HEIGHT = 17.0
_CATEGORY_HEIGHT = 24.0
_WIDEST_CATEGORY = 150.0

Colour = Literal["first", "second", "third", "fourth", "quiet"]

COLOURS: tuple[Colour, ...] = ("first", "second", "third", "fourth")
"""Of series, in the order in which they are used; told apart by the colour-blind, and in both modes."""

_PAINT = {
    # light, dark
    "paper": ("#ffffff", "#14171b"),
    "ink": ("#1b1f24", "#e8eaed"),
    "quiet": ("#5b636d", "#a0a8b2"),
    "line": ("#e1e4e8", "#2c3138"),
    "first": ("#1769aa", "#6cb4ee"),
    "second": ("#c75b00", "#ff9d4d"),
    "third": ("#2f7353", "#7cc4a0"),
    "fourth": ("#8a3d8f", "#d28fd6"),
}

_RULES = """
.chart text { font-family: system-ui, sans-serif; font-size: 12.5px; fill: @ink; }
.chart .paper { fill: @paper; }
.chart .title { font-size: 15px; font-weight: 700; }
.chart .label { fill: @quiet; }
.chart .name { fill: @quiet; stroke: @paper; stroke-width: 5; paint-order: stroke; }
.chart .middle { text-anchor: middle; }
.chart .end { text-anchor: end; }
.chart .grid { stroke: @line; stroke-width: 1; fill: none; }
.chart .axis { stroke: @quiet; stroke-width: 1; fill: none; }
.chart .rule { stroke: @quiet; stroke-width: 1.2; stroke-dasharray: 4 3; fill: none; }
.chart .line { stroke-width: 2; fill: none; stroke-linejoin: round; }
.chart .dashed { stroke-dasharray: 6 4; }
.chart .dots { stroke-width: 6; fill: none; stroke-linecap: round; }
.chart .faint { stroke-width: 4; opacity: 0.35; }
.chart .hollow { stroke-width: 3; stroke: @paper; }
.chart .band { opacity: 0.18; stroke: none; }
.chart .bars { opacity: 0.8; stroke: none; }
.chart .whiskers { stroke-width: 1.8; fill: none; }
""" + "".join(
    f".chart .{name}-stroke {{ stroke: @{name}; }}\n.chart .{name}-fill {{ fill: @{name}; }}\n"
    for name in (*COLOURS, "quiet")
)

STYLE = style_sheet(_RULES, _PAINT)
"""The rules that charts need; a page with several has them once."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis.

    Attributes:
        label: what it shows, with its unit.
        include: values that are shown whatever the data; there is no room beyond them.
        whole: whether there is nothing between whole numbers.
        categories: names of the values 0, 1, 2, ...; on the y axis the first is on top; on the x axis
            they are short.
    """

    label: str
    include: tuple[float, ...] = ()
    whole: bool = False
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dots:
    """Points, as full dots, small faint ones, or rings. A name of "" is in no legend, here and below."""

    name: str
    points: Sequence[Point]
    colour: Colour = "first"
    style: Literal["full", "faint", "hollow"] = "full"


@dataclass(frozen=True, slots=True)
class Line:
    """Points connected in their order; `stepped` keeps each value until the next one."""

    name: str
    points: Sequence[Point]
    colour: Colour = "first"
    stepped: bool = False
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Band:
    """What lies between two values, by x: (x, low, high)."""

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
    """Straight pieces (x0, y0, x1, y1), such as intervals."""

    name: str
    pieces: Sequence[tuple[float, float, float, float]]
    colour: Colour = "first"


@dataclass(frozen=True, slots=True)
class Rule:
    """A value on the x axis with its name above the plot."""

    name: str
    x: float


Mark = Dots | Line | Band | Bars | Whiskers | Rule


@dataclass(frozen=True, slots=True)
class Chart:
    """A finished chart.

    Attributes:
        title, description: what it is, and what it shows in plain words.
        elements: its SVG, without the document.
        height: in user units; the width is WIDTH.
    """

    title: str
    description: str
    elements: str
    height: float

    def svg(self, *, styled: bool = True) -> str:
        """Return it as a document or, with `styled` False, for a page that has STYLE."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {_n(WIDTH)} {_n(self.height)}" '
            f'width="{_n(WIDTH)}" height="{_n(self.height)}" role="img">\n'
            f"<title>{escaped(self.title)}</title>\n<desc>{escaped(self.description)}</desc>\n"
            + (f"<style>{STYLE}</style>\n" if styled else "")
            + f'<rect class="paper" width="{_n(WIDTH)}" height="{_n(self.height)}"/>\n{self.elements}\n</svg>\n'
        )


def chart(
    marks: Sequence[Mark], x: Axis, y: Axis, *, title: str, description: str, plot_height: float = 220.0
) -> Chart:
    """Return a chart of some marks, the first one lowest.

    Args:
        marks: in units of the axes; a category is a value, half a unit wide on either side.
        plot_height: of the plot alone; with categories on the y axis it follows from their number.
    """
    points = [point for mark in marks for point in _extent(mark)]
    y_low, y_high = _ends(y, (value for _, value in points))
    x_low, x_high = _ends(x, (value for value, _ in points))
    if y.categories:
        plot_height = _CATEGORY_HEIGHT * len(y.categories)
        names = [cut(name, _WIDEST_CATEGORY / 1.2, _TEXT) for name in y.categories]
        y_values = [float(index) for index in range(len(names))]
    else:
        y_values = ticks(y_low, y_high, 6, whole=y.whole)
        names = tick_labels(y_values)
    left = _MARGIN + max((_room(name) for name in names), default=0.0) + 8
    across = Scale(x_low, x_high, left, WIDTH - _MARGIN - 6)
    found = [_text(_MARGIN, 24, cut(title, WIDTH - 2 * _MARGIN, _TITLE), "title")]
    legend, top = _legend(marks, 44.0)
    rules, top = _rules([mark for mark in marks if isinstance(mark, Rule)], across, top)
    if y.label:
        found.append(_text(_MARGIN, top, y.label, "label"))
        top += 12
    bottom = top + plot_height
    down = Scale(y_low, y_high, top, bottom) if y.categories else Scale(y_low, y_high, bottom, top)
    grid = "".join(f"M{_n(left)} {_n(down.at(value))}H{_n(across.end)}" for value in y_values)
    found.append(f'<path class="grid" d="{grid}"/>')
    found += [_text(left - 6, down.at(value) + 4, name, "end") for value, name in zip(y_values, names, strict=True)]
    found += _x_ticks(x, across, bottom)
    found.append(_text((left + across.end) / 2, bottom + 36, x.label, "label middle"))
    found += [element for mark in marks for element in _drawn(mark, across, down)]
    found += [f'<path class="rule" d="M{_n(at)} {_n(start)}V{_n(bottom)}"/>' for at, start in rules.lines]
    found += [*rules.names, *legend]
    return Chart(title, description, "\n".join(found), bottom + 46)


def histogram(name: str, values: Sequence[float], low: float, high: float, count: int, colour: Colour) -> Bars:
    """Return bars of how many values lie in each of some bins of equal width."""
    return Bars(name, [(start, 0.0, end, number) for start, end, number in bins(values, low, high, count)], colour)


def box(values: Sequence[float], at: float, colour: Colour = "first") -> list[Mark]:
    """Return the quartiles of values as a box, from the lowest to the highest as a line, on a category of the y axis.

    Up to eight values are dots: there are no quartiles of so few.
    """
    ascending = sorted(values)
    if len(ascending) <= 8:
        return [Dots("", [(value, at) for value in ascending], colour)]
    lower, middle, upper = (quantile(ascending, share) for share in (0.25, 0.5, 0.75))
    return [
        Whiskers("", [(ascending[0], at, ascending[-1], at)], colour),
        Bars("", [(lower, at - 0.3, upper, at + 0.3)], colour),
        Whiskers("", [(middle, at - 0.4, middle, at + 0.4)], "quiet"),
    ]


def dots_on_line(name: str, points: Sequence[Point], colour: Colour, *, dashed: bool = False) -> list[Mark]:
    """Return few points and a line through them, under one name."""
    return [Line(name, points, colour, dashed=dashed), Dots("", points, colour)]


def _extent(mark: Mark) -> Iterable[Point]:
    """Points that the axes have to hold."""
    match mark:
        case Dots() | Line():
            return mark.points
        case Band():
            return [(x, value) for x, *values in mark.points for value in values]
        case Bars():
            return [point for x0, y0, x1, y1 in mark.boxes for point in ((x0, y0), (x1, y1))]
        case Whiskers():
            return [point for x0, y0, x1, y1 in mark.pieces for point in ((x0, y0), (x1, y1))]
        case Rule():
            return [(mark.x, float("nan"))]


def _ends(axis: Axis, values: Iterable[float]) -> tuple[float, float]:
    if axis.categories:
        return -0.5, len(axis.categories) - 0.5
    return bounds(values, axis.include)


def _x_ticks(x: Axis, across: Scale, bottom: float) -> list[str]:
    """The axis with its numbers or categories, as many as there is room for."""
    room = across.end - across.start
    if x.categories:
        values = [float(index) for index in range(len(x.categories))]
        names = [cut(name, room / len(values), _TEXT) for name in x.categories]
    else:
        most = 7
        while True:
            values = ticks(across.low, across.high, most, whole=x.whole)
            names = tick_labels(values)
            if most == 1 or sum(_room(name) + 14 for name in names) <= room:
                break
            most -= 1
    line = f"M{_n(across.start)} {_n(bottom)}H{_n(across.end)}"
    line += "".join(f"M{_n(across.at(value))} {_n(bottom)}v4" for value in values)
    found = [f'<path class="axis" d="{line}"/>']
    for value, name in zip(values, names, strict=True):
        half = _room(name) / 2
        place = min(across.at(value), WIDTH - 2 - half)  # the last one stays on the page
        found.append(_text(place, bottom + 18, name, "middle"))
    return found


def _legend(marks: Sequence[Mark], top: float) -> tuple[list[str], float]:
    """Return one entry for each name, in as many lines as they take, and where they end."""
    found: list[str] = []
    x, y = _MARGIN, top
    seen = set()
    for mark in marks:
        if isinstance(mark, Rule) or not mark.name or mark.name in seen:
            continue
        seen.add(mark.name)
        name = cut(mark.name, (WIDTH - 2 * _MARGIN - 24) / 1.2, _TEXT)
        room = 24 + _room(name)
        if x > _MARGIN and x + room > WIDTH - _MARGIN:
            x, y = _MARGIN, y + _LINE_HEIGHT
        found += [_sample(mark, x, y - 4), _text(x + 24, y, name, "")]
        x += room + 14
    return found, y + _LINE_HEIGHT + 3 if found else top


def _sample(mark: Mark, x: float, y: float) -> str:
    """What a mark looks like, 18 wide."""
    across, down = Scale(0, 1, x, x + 18), Scale(0, 1, y + 5, y - 5)
    match mark:
        case Dots():
            shown: Mark = Dots("", [(0.5, 0.5)], mark.colour, mark.style)
        case Line():
            shown = Line("", [(0, 0.5), (1, 0.5)], mark.colour, dashed=mark.dashed)
        case Band():
            shown = Band("", [(0, 0, 1), (1, 0, 1)], mark.colour)
        case Bars():
            shown = Bars("", [(0, 0, 1, 1)], mark.colour)
        case _:
            shown = Whiskers("", [(0, 0.5, 1, 0.5)], mark.colour if isinstance(mark, Whiskers) else "quiet")
    return "".join(_drawn(shown, across, down))


@dataclass(frozen=True, slots=True)
class _Rules:
    """Lines as (x, where they start) and their names, none over another."""

    lines: list[Point]
    names: list[str]


def _rules(rules: Sequence[Rule], across: Scale, top: float) -> tuple[_Rules, float]:
    """Return the rules, their names in as many lines as it takes, and where these end."""
    rows: list[float] = []  # where the last name of each row ends
    placed = []
    for rule in sorted(rules, key=lambda rule: rule.x):
        name = cut(rule.name, 160, _TEXT)
        half = _room(name) / 2
        middle = min(max(across.at(rule.x), _MARGIN + half), WIDTH - _MARGIN - half)
        row = next((index for index, end in enumerate(rows) if end + 8 <= middle - half), len(rows))
        rows[row : row + 1] = [middle + half]
        placed.append((across.at(rule.x), middle, row, name))
    lines = [(at, top + _LINE_HEIGHT * row + 3) for at, _, row, _ in placed]
    names = [_text(middle, top + _LINE_HEIGHT * row, name, "name middle") for _, middle, row, name in placed]
    return _Rules(lines, names), top + _LINE_HEIGHT * len(rows)


def _drawn(mark: Mark, across: Scale, down: Scale) -> list[str]:
    """The elements of a mark."""
    match mark:
        case Dots():
            at = thinned_dots([(across.at(x), down.at(y)) for x, y in mark.points], (2.0, 2.0))
            path = "".join(f"M{_n(x)} {_n(y)}h0" for x, y in at)
            faint = " faint" * (mark.style == "faint")
            found = [f'<path class="dots {mark.colour}-stroke{faint}" d="{path}"/>']
            return [*found, f'<path class="dots hollow" d="{path}"/>'] if mark.style == "hollow" else found
        case Line():
            dashed = " dashed" * mark.dashed
            path = _path(thinned_line([(across.at(x), down.at(y)) for x, y in mark.points], 1.0), mark.stepped)
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
                f"M{_n(left)} {_n(top)}H{_n(max(right - 0.6, left + 0.4))}V{_n(bottom)}H{_n(left)}Z"
                for left, right, top, bottom in boxes
                if bottom > top
            )
            return [f'<path class="bars {mark.colour}-fill" d="{path}"/>']
        case Whiskers():
            path = "".join(
                f"M{_n(across.at(a))} {_n(down.at(b))}L{_n(across.at(c))} {_n(down.at(d))}"
                for a, b, c, d in mark.pieces
            )
            return [f'<path class="whiskers {mark.colour}-stroke" d="{path}"/>']
        case Rule():
            return []


def _room(text: str) -> float:
    """Width of a text, on the safe side: digits, of which axes are full, are wide in some fonts."""
    return 1.2 * text_width(text, _TEXT)


def _path(points: Sequence[Point], stepped: bool = False) -> str:
    if not points:
        return ""
    x, y = points[0]
    words = [f"M{_n(x)} {_n(y)}"]
    words += [f"H{_n(x)}V{_n(y)}" if stepped else f"L{_n(x)} {_n(y)}" for x, y in points[1:]]
    return "".join(words)


def _text(x: float, y: float, text: str, classes: str) -> str:
    return f'<text class="{classes}" x="{_n(x)}" y="{_n(y)}">{escaped(text)}</text>'
