"""Assembles a chart as SVG text from marks and two axes.

A chart is 440 units wide and stays readable at 330 pixels, on a phone, as well as at 600. Text is large, the legend
takes as many lines as it needs above the plot, and long names lose their middle. The number of drawn elements is
bounded, however many points are given. Colours follow the viewer's dark mode, and all text is escaped. The same data
give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spinenas.results.pictures.charts.axes import Axis, Scale, axis_range, tick_labels, ticks, x_axis_elements
from spinenas.results.pictures.charts.legend import legend, rule_elements
from spinenas.results.pictures.charts.marks import Mark, Rule, extent, mark_elements
from spinenas.results.pictures.charts.style import MARGIN, STYLE, TEXT_SIZE, TITLE_SIZE, WIDTH, room_for, text_element
from spinenas.results.pictures.svg import cut, escaped, short

_PLOT_HEIGHT = 220.0
_CATEGORY_HEIGHT = 24.0
_WIDEST_CATEGORY = 150.0


@dataclass(frozen=True, slots=True)
class Chart:
    """A finished chart.

    Attributes:
        title, description: heading, and what the chart shows in words.
        elements: SVG elements without the enclosing document.
        height: height in user units; the width is WIDTH.
    """

    title: str
    description: str
    elements: str
    height: float

    def svg(self, *, styled: bool = True) -> str:
        """Return an SVG document; with `styled` False, one for a page that contains STYLE."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {short(WIDTH)} {short(self.height)}" '
            f'width="{short(WIDTH)}" height="{short(self.height)}" role="img">\n'
            f"<title>{escaped(self.title)}</title>\n<desc>{escaped(self.description)}</desc>\n"
            + (f"<style>{STYLE}</style>\n" if styled else "")
            + f'<rect class="paper" width="{short(WIDTH)}" height="{short(self.height)}"/>\n{self.elements}\n</svg>\n'
        )


def chart(marks: Sequence[Mark], x: Axis, y: Axis, *, title: str, description: str) -> Chart:
    """Return a chart of some marks; later marks cover earlier ones.

    Args:
        marks: marks in units of the axes; category i reaches from i - 0.5 to i + 0.5.
        x, y: axes; the number of categories on the y axis sets the plot's height.
    """
    points = [point for mark in marks for point in extent(mark)]
    y_low, y_high = axis_range(y, (value for _, value in points))
    x_low, x_high = axis_range(x, (value for value, _ in points))
    plot_height = _PLOT_HEIGHT
    if y.categories:
        plot_height = _CATEGORY_HEIGHT * len(y.categories)
        names = [cut(name, _WIDEST_CATEGORY / 1.2, TEXT_SIZE) for name in y.categories]
        y_values = [float(index) for index in range(len(names))]
    else:
        y_values = ticks(y_low, y_high, 6, whole=y.whole)
        names = tick_labels(y_values)
    left = MARGIN + max((room_for(name) for name in names), default=0.0) + 8
    across = Scale(x_low, x_high, left, WIDTH - MARGIN - 6)
    found = [text_element(MARGIN, 24, cut(title, WIDTH - 2 * MARGIN, TITLE_SIZE), "title")]
    legend_elements, top = legend(marks, 44.0)
    rules, top = rule_elements([mark for mark in marks if isinstance(mark, Rule)], across, top)
    if y.label:
        found.append(text_element(MARGIN, top, y.label, "label"))
        top += 12
    bottom = top + plot_height
    down = Scale(y_low, y_high, top, bottom) if y.categories else Scale(y_low, y_high, bottom, top)
    grid = "".join(f"M{short(left)} {short(down.at(value))}H{short(across.end)}" for value in y_values)
    found.append(f'<path class="grid" d="{grid}"/>')
    found += [
        text_element(left - 6, down.at(value) + 4, name, "end") for value, name in zip(y_values, names, strict=True)
    ]
    found += x_axis_elements(x, across, bottom)
    found.append(text_element((left + across.end) / 2, bottom + 36, x.label, "label middle"))
    found += [element for mark in marks for element in mark_elements(mark, across, down)]
    found += [f'<path class="rule" d="M{short(at)} {short(start)}V{short(bottom)}"/>' for at, start in rules.lines]
    found += [*rules.names, *legend_elements]
    return Chart(title, description, "\n".join(found), bottom + 46)
