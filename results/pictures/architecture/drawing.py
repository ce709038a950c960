"""Draws one architecture, or two compared, as SVG text.

The drawing follows SpineNet, Figure 4: a bottleneck block is a rectangle, a residual block is a diamond, and an output
has a strong border. Blocks stand in order from left to right. Level 2 is on top, so downsampling runs down the page.
The axis names level and stride. The same architecture and names give the same bytes. Colours follow the viewer's dark
mode, and all text is escaped.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from spinenas.results.pictures.architecture.difference import Difference, difference_of, difference_summary
from spinenas.results.pictures.architecture.layout import lay_out, shown_levels
from spinenas.results.pictures.architecture.legend import legend
from spinenas.results.pictures.architecture.parts import COLUMN, ROW, Layout
from spinenas.results.pictures.architecture.shapes import STYLE, arrow_head, block_elements, wire_elements
from spinenas.results.pictures.svg import cut, escaped, short
from spinenas.space.genotype import Genotype

_PAGE, _AXIS = 14.0, 66.0
"""Margin of the page, and width of the row labels."""
_SMALLEST_PLOT = 560.0
"""Minimum width, which titles and the legend need."""


@dataclass(frozen=True, slots=True)
class Subject:
    """An architecture to draw.

    Attributes:
        name: title.
        genotype: the blocks.
        note: line below the title.
    """

    name: str
    genotype: Genotype
    note: str = ""


def draw(subject: Subject) -> str:
    """Return the drawing of an architecture as SVG."""
    layout = lay_out(subject.genotype)
    width = _page_width([layout])
    panel, bottom = _panel(subject, layout, 0.0, width, None)
    legend_elements, height = legend([layout], bottom, width, margin=_PAGE, compared=False)
    return _document([*panel, *legend_elements], width, height, subject.name, subject.genotype.text)


def draw_pair(first: Subject, second: Subject) -> str:
    """Return two architectures as SVG, one below the other with columns aligned and differences marked.

    Compared is by position: a block inserted early makes all that follow it differ.
    """
    rows = shown_levels(first.genotype, second.genotype)
    layouts = [lay_out(subject.genotype, rows) for subject in (first, second)]
    width = _page_width(layouts)
    difference = difference_of(*layouts)
    upper, middle = _panel(first, layouts[0], 0.0, width, difference)
    words = _words(difference, middle - 6)
    most_words = max(map(len, difference.words.values()), default=0)
    lower, bottom = _panel(second, layouts[1], middle + 13 * most_words, width, difference)
    summary = _text(_PAGE, bottom + 14, difference_summary(difference, layouts), "small", width - 2 * _PAGE)
    legend_elements, height = legend(layouts, bottom + 22, width, margin=_PAGE, compared=True)
    return _document(
        [*upper, *words, *lower, summary, *legend_elements],
        width,
        height,
        f"{first.name} and {second.name}",
        f"{first.genotype.text} and {second.genotype.text}",
    )


def _page_width(layouts: Sequence[Layout]) -> float:
    return 2 * _PAGE + _AXIS + max(_SMALLEST_PLOT, *(layout.width for layout in layouts))


def _panel(
    subject: Subject, layout: Layout, top: float, page_width: float, difference: Difference | None
) -> tuple[list[str], float]:
    """Return the elements of one architecture with its title, and their bottom y."""
    title_room = page_width - 2 * _PAGE
    found = [_text(_PAGE, top + 32, subject.name, "title", title_room)]
    if subject.note:
        found.append(_text(_PAGE, top + 54, subject.note, "small quiet", title_room))
    y = top + (84 if subject.note else 62)
    x = _PAGE + _AXIS
    changed = difference.words if difference else {}
    common = difference.common if difference else frozenset()
    plot = _grid(layout, changed)
    # Short ones on top: long ones that cross them would break them into dashes.
    wires = sorted(layout.wires, key=lambda wire: wire.source - wire.target)
    drawn = [wire_elements(wire, (wire.source, wire.target, wire.role) in common) for wire in wires]
    plot += [line for line, _ in drawn] + [head for _, head in drawn if head]  # heads on top of all lines
    plot += [element for box in layout.boxes for element in block_elements(box)]
    found += [f'<g transform="translate({short(x)} {short(y)})">', *plot, "</g>"]
    caption = y + layout.height + 17
    found.append(_text(x, caption, "blocks in order", "small quiet", 200))
    arrow = x + 112
    found.append(
        f'<path class="edge same" d="M{short(arrow)} {short(caption - 4.5)}h34"/>'
        f'<path class="head same" d="{arrow_head(arrow + 42, caption - 4.5, 1.0, 0.0)}"/>'
    )
    return found, caption + 12


def _grid(layout: Layout, changed: Collection[int]) -> list[str]:
    """Return the rows with their labels, the stem's band, and highlighted columns."""
    num_stem = sum(box.is_stem for box in layout.boxes)
    found = [
        f'<rect class="band" width="{short(num_stem * COLUMN)}" y="-20" height="{short(layout.height + 20)}" rx="6"/>',
        f'<text class="small quiet" x="{short(num_stem * COLUMN / 2)}" y="-5" text-anchor="middle">stem</text>',
    ]
    found += [
        f'<rect class="changed" x="{short(node * COLUMN + 2)}" width="{short(COLUMN - 4)}" '
        f'height="{short(layout.height)}" rx="6"/>'
        for node in sorted(changed)
        if node < len(layout.boxes)
    ]
    for row, level in enumerate(layout.levels):
        y = ROW * (row + 0.5)
        found += [
            f'<line class="row" x2="{short(layout.width)}" y1="{short(y)}" y2="{short(y)}"/>',
            f'<text class="level" x="{short(-_AXIS)}" y="{short(y)}">L{level}</text>',
            f'<text class="small quiet" x="{short(-_AXIS)}" y="{short(y + 16)}">stride {2**level}</text>',
        ]
    return found


def _words(difference: Difference, top: float) -> list[str]:
    """Return the words that name the differences, below each column of the upper panel."""
    left = _PAGE + _AXIS + COLUMN / 2
    return [
        f'<text class="word" x="{short(left + COLUMN * node)}" y="{short(top + 13 * (line + 1))}">{word}</text>'
        for node, words in sorted(difference.words.items())
        for line, word in enumerate(words)
    ]


def _document(elements: Sequence[str], width: float, height: float, title: str, description: str) -> str:
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {short(width)} {short(height)}" width="{short(width)}" '
        f'height="{short(height)}" style="max-width: 100%; height: auto" role="img">',
        f"<title>{escaped(title)}</title>",
        f"<desc>{escaped(description)}</desc>",
        f"<style>{STYLE}",
        "</style>",
        f'<rect class="paper" width="{short(width)}" height="{short(height)}"/>',
        *elements,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _text(x: float, y: float, text: str, classes: str, room: float) -> str:
    """Return a line of text; text that is too long loses its middle."""
    text = cut(text, room, 22 if "title" in classes else 14)
    return f'<text class="{classes}" x="{short(x)}" y="{short(y)}">{escaped(text)}</text>'
