"""Charts as SVG text: dots, lines, bands, bars, whiskers and rules on two axes."""

from spinenas.results.pictures.charts.axes import Axis
from spinenas.results.pictures.charts.chart import Chart, chart
from spinenas.results.pictures.charts.data_reduction import Point
from spinenas.results.pictures.charts.marks import (
    Band,
    Bars,
    Dots,
    Line,
    Mark,
    Rule,
    Whiskers,
    box,
    dots_on_line,
    histogram,
)
from spinenas.results.pictures.charts.style import COLOURS, STYLE, WIDTH, Colour

__all__ = [
    "COLOURS",
    "STYLE",
    "WIDTH",
    "Axis",
    "Band",
    "Bars",
    "Chart",
    "Colour",
    "Dots",
    "Line",
    "Mark",
    "Point",
    "Rule",
    "Whiskers",
    "box",
    "chart",
    "dots_on_line",
    "histogram",
]
