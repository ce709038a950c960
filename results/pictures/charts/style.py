"""Sizes, colours, style rules and text elements of all charts."""

from __future__ import annotations

from typing import Literal

from spinenas.results.pictures.svg import escaped, short, style_sheet, text_width

WIDTH = 440.0
"""Width of every chart in user units."""

MARGIN, TEXT_SIZE, TITLE_SIZE = 10.0, 12.5, 16.5
LINE_HEIGHT = 17.0

Colour = Literal["first", "second", "third", "fourth", "quiet"]

COLOURS: tuple[Colour, ...] = ("first", "second", "third", "fourth")
"""Colours of series in order of use, distinct for colour-blind readers in light and dark mode."""

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
"""Style rules of all charts; a page with several charts contains them once."""


def room_for(text: str) -> float:
    """Return a safe estimate of the width of a text; digits are wide in some fonts."""
    return 1.2 * text_width(text, TEXT_SIZE)


def text_element(x: float, y: float, text: str, classes: str) -> str:
    """Return a line of text as SVG."""
    return f'<text class="{classes}" x="{short(x)}" y="{short(y)}">{escaped(text)}</text>'
