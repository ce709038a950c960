"""Architectures as pictures, one or two compared: plain SVG text; it knows nothing of files or of runs.

Drawn as in SpineNet, Figure 4: a block is a rectangle if it is a bottleneck and a diamond if it is residual, and an
output has a strong border. Blocks stand in order from left to right. Level 2 is on top, so that down-sampling runs
down the page; the axis names level and stride. The same architecture and names give the same bytes. A viewer's dark
mode changes the colours; every text is escaped.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from spinenas.results.pictures.architecture_layout import (
    COLUMN,
    ROW,
    Box,
    Direction,
    Layout,
    Role,
    Wire,
    lay_out,
    shown_levels,
)
from spinenas.results.pictures.svg import cut, escaped, style_sheet, text_width
from spinenas.results.pictures.svg import short as _n
from spinenas.space.genotype import BlockKind, Genotype

_PAGE, _AXIS = 14.0, 66.0
"""Margin of the page, and room for the names of the rows."""
_SMALLEST_PLOT = 560.0
"""Room for titles and the legend where there are few blocks."""

_COLOURS = {
    # light, dark
    "paper": ("#ffffff", "#14171b"),
    "ink": ("#1b1f24", "#e8eaed"),
    "quiet": ("#5b636d", "#a0a8b2"),
    "line": ("#e1e4e8", "#2c3138"),
    "band": ("#f1f3f5", "#1e2329"),
    "changed": ("#fff1c4", "#453b14"),
    "down": ("#1769aa", "#6cb4ee"),
    "up": ("#c75b00", "#ff9d4d"),
    "bottleneck": ("#cfe6da", "#24503d"),
    "residual": ("#fbe2a0", "#5e490d"),
    "mbconv": ("#e2d3f1", "#47325f"),
    "bottleneck-edge": ("#2f7353", "#7cc4a0"),
    "residual-edge": ("#9a6e00", "#e3b84d"),
    "mbconv-edge": ("#70439b", "#b993dc"),
}

_RULES = """
text { font-family: system-ui, sans-serif; fill: @ink; }
.quiet { fill: @quiet; }
.paper { fill: @paper; }
.row { stroke: @line; }
.band { fill: @band; }
.changed { fill: @changed; }
.edge { fill: none; stroke-width: 2; }
.casing { fill: none; stroke: @paper; stroke-width: 5; }
.head { stroke-width: 1.6; stroke-linejoin: round; }
.down { stroke: @down; }
.up { stroke: @up; }
.same { stroke: @quiet; }
.head.down { fill: @down; }
.head.up { fill: @paper; }
.head.same { fill: @quiet; }
.merge { stroke-dasharray: 7 4; }
.edge.ghost { stroke: @quiet; stroke-width: 1; stroke-dasharray: 1 4; stroke-linecap: round; }
.common { opacity: 0.3; }
.shape { stroke-width: 1.4; stroke-linejoin: round; }
.bottleneck { fill: @bottleneck; stroke: @bottleneck-edge; }
.residual { fill: @residual; stroke: @residual-edge; }
.mbconv { fill: @mbconv; stroke: @mbconv-edge; }
.shape.output { stroke: @ink; stroke-width: 3.4; }
.shape.ghost { fill: @paper; stroke: @quiet; stroke-width: 1; stroke-dasharray: 3 3; }
.number { font-size: 16px; text-anchor: middle; }
.number.ghost { fill: @quiet; }
.name { font-size: 14px; font-weight: 700; text-anchor: middle; stroke: @paper; stroke-width: 4; paint-order: stroke; }
.title { font-size: 22px; font-weight: 700; }
.level { font-size: 18px; font-weight: 700; }
.small { font-size: 14px; }
.word { font-size: 12px; text-anchor: middle; }
.legend { font-size: 15px; }
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """An architecture to draw.

    Attributes:
        name: its title.
        genotype: its blocks.
        note: a line below the title.
    """

    name: str
    genotype: Genotype
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Difference:
    """How two architectures differ, by position.

    Attributes:
        words: what differs, by node; nodes that only one has included.
        common: connections (source, target, role) that both have.
    """

    words: dict[int, tuple[str, ...]]
    common: frozenset[tuple[int, int, Role]]


def draw(subject: Subject) -> str:
    """Return the picture of an architecture as SVG."""
    layout = lay_out(subject.genotype)
    width = _page_width([layout])
    panel, bottom = _panel(subject, layout, 0.0, width, None)
    legend, height = _legend([layout], bottom, width, compared=False)
    return _document([*panel, *legend], width, height, subject.name, subject.genotype.text)


def draw_pair(first: Subject, second: Subject) -> str:
    """Return the picture of two architectures, one below the other and column by column, what differs marked.

    Compared is by position: a block inserted early makes all that follow it differ.
    """
    rows = shown_levels(first.genotype, second.genotype)
    layouts = [lay_out(subject.genotype, rows) for subject in (first, second)]
    width = _page_width(layouts)
    difference = _difference(*layouts)
    upper, middle = _panel(first, layouts[0], 0.0, width, difference)
    words = _words(difference, middle - 6)
    most_words = max(map(len, difference.words.values()), default=0)
    lower, bottom = _panel(second, layouts[1], middle + 13 * most_words, width, difference)
    summary = _text(_PAGE, bottom + 14, _summary(difference, layouts), "small", width - 2 * _PAGE)
    legend, height = _legend(layouts, bottom + 22, width, compared=True)
    return _document(
        [*upper, *words, *lower, summary, *legend],
        width,
        height,
        f"{first.name} and {second.name}",
        f"{first.genotype.text} and {second.genotype.text}",
    )


def _page_width(layouts: Sequence[Layout]) -> float:
    return 2 * _PAGE + _AXIS + max(_SMALLEST_PLOT, *(layout.width for layout in layouts))


def _difference(first: Layout, second: Layout) -> _Difference:
    words: dict[int, tuple[str, ...]] = {}
    for node in range(max(len(first.boxes), len(second.boxes))):
        if node >= min(len(first.boxes), len(second.boxes)):
            words[node] = ("only",)
            continue
        a, b = first.boxes[node], second.boxes[node]
        compared = (
            ("level", a.level, b.level),
            ("type", a.kind, b.kind),
            ("inputs", _inputs(first, node), _inputs(second, node)),
            ("output", a.is_output, b.is_output),
            ("stem", a.is_stem, b.is_stem),
            ("built", a.is_built, b.is_built),
        )
        found = tuple(word for word, of_first, of_second in compared if of_first != of_second)
        if found:
            words[node] = found
    return _Difference(words, frozenset(_keys(first) & _keys(second)))


def _inputs(layout: Layout, node: int) -> set[tuple[int, bool]]:
    """Sources of a node, and whether they are merged."""
    return {(wire.source, wire.role == Role.MERGE) for wire in layout.wires if wire.target == node}


def _keys(layout: Layout) -> set[tuple[int, int, Role]]:
    return {(wire.source, wire.target, wire.role) for wire in layout.wires}


def _summary(difference: _Difference, layouts: Sequence[Layout]) -> str:
    if not difference.words:
        return "No difference."
    total = max(len(layout.boxes) for layout in layouts)
    only = [len(_keys(layout) - difference.common) for layout in layouts]
    return (
        f"{len(difference.words)} of {total} positions differ. Connections: {len(difference.common)} in both, "
        f"{only[0]} only above, {only[1]} only below."
    )


def _panel(
    subject: Subject, layout: Layout, top: float, page_width: float, difference: _Difference | None
) -> tuple[list[str], float]:
    """Return the elements of one architecture with its title, and where they end."""
    title_room = page_width - 2 * _PAGE
    found = [_text(_PAGE, top + 32, subject.name, "title", title_room)]
    if subject.note:
        found.append(_text(_PAGE, top + 54, subject.note, "small quiet", title_room))
    y = top + (84 if subject.note else 62)
    x = _PAGE + _AXIS
    changed = difference.words if difference else {}
    common = difference.common if difference else frozenset()
    plot = _grid(layout, changed)
    # Short ones on top: what passes over them would make dashes of them.
    wires = sorted(layout.wires, key=lambda wire: wire.source - wire.target)
    drawn = [_wire(wire, (wire.source, wire.target, wire.role) in common) for wire in wires]
    plot += [line for line, _ in drawn] + [head for _, head in drawn if head]  # no line runs over a head
    plot += [element for box in layout.boxes for element in _block(box)]
    found += [f'<g transform="translate({_n(x)} {_n(y)})">', *plot, "</g>"]
    caption = y + layout.height + 17
    found.append(_text(x, caption, "blocks in order", "small quiet", 200))
    arrow = x + 112
    found.append(
        f'<path class="edge same" d="M{_n(arrow)} {_n(caption - 4.5)}h34"/>'
        f'<path class="head same" d="{_triangle(arrow + 42, caption - 4.5, 1.0, 0.0)}"/>'
    )
    return found, caption + 12


def _grid(layout: Layout, changed: Collection[int]) -> list[str]:
    """Rows with their names, the band of the stem, and columns that differ."""
    num_stem = sum(box.is_stem for box in layout.boxes)
    found = [
        f'<rect class="band" width="{_n(num_stem * COLUMN)}" y="-20" height="{_n(layout.height + 20)}" rx="6"/>',
        f'<text class="small quiet" x="{_n(num_stem * COLUMN / 2)}" y="-5" text-anchor="middle">stem</text>',
    ]
    found += [
        f'<rect class="changed" x="{_n(node * COLUMN + 2)}" width="{_n(COLUMN - 4)}" '
        f'height="{_n(layout.height)}" rx="6"/>'
        for node in sorted(changed)
        if node < len(layout.boxes)
    ]
    for row, level in enumerate(layout.levels):
        y = ROW * (row + 0.5)
        found += [
            f'<line class="row" x2="{_n(layout.width)}" y1="{_n(y)}" y2="{_n(y)}"/>',
            f'<text class="level" x="{_n(-_AXIS)}" y="{_n(y)}">L{level}</text>',
            f'<text class="small quiet" x="{_n(-_AXIS)}" y="{_n(y + 16)}">stride {2**level}</text>',
        ]
    return found


def _wire(wire: Wire, is_common: bool) -> tuple[str, str]:
    """A connection's line and its head; up-sampling has an open one, and what is not built has none."""
    classes = f"edge {wire.direction} {wire.role}" + " common" * is_common
    ends = f'data-from="{wire.source}" data-to="{wire.target}"'
    if wire.role == Role.GHOST:
        return f'<path class="{classes}" {ends} d="{_path(wire.points)}"/>', ""
    (x2, y2), (x, y) = wire.points[-2:]
    length = ((x - x2) ** 2 + (y - y2) ** 2) ** 0.5 or 1.0
    across, down = (x - x2) / length, (y - y2) / length
    path = _path((*wire.points[:-1], (x - 7 * across, y - 7 * down)))  # the line ends where the head begins
    # Below it a broad one in the paper's colour: of two that cross, one is seen to be on top.
    casing = "" if is_common else f'<path class="casing" d="{path}"/>'
    head = f'<path class="head {wire.direction}{" common" * is_common}" d="{_triangle(x, y, across, down)}"/>'
    return f'{casing}<path class="{classes}" {ends} d="{path}"/>', head


def _path(points: Sequence[tuple[float, float]]) -> str:
    """A start and cubic pieces, as SVG has them."""
    words = [f"{_n(x)} {_n(y)}" for x, y in points]
    return f"M{words[0]}" + "".join(f"C{' '.join(words[i : i + 3])}" for i in range(1, len(words), 3))


def _triangle(x: float, y: float, across: float, down: float) -> str:
    """An arrow's head with its tip at a point, by the direction it has there."""
    x, y = x - across, y - down  # room for its border
    back_x, back_y = x - 8 * across, y - 8 * down
    points = ((x, y), (back_x - 4 * down, back_y + 4 * across), (back_x + 4 * down, back_y - 4 * across))
    return "M" + "L".join(f"{_n(a)} {_n(b)}" for a, b in points) + "Z"


def _block(box: Box) -> list[str]:
    """A block with its number, and its name if it is an output."""
    ghost = "" if box.is_built else " ghost"
    output = " output" if box.is_output else ""
    found = [
        f'<g class="block" data-node="{box.node}">',
        _shape(box.kind, box.x, box.y, box.width, box.height, output + ghost),
        f'<text class="number{ghost}" x="{_n(box.x)}" y="{_n(box.y + 5.5)}">{box.node}</text>',
    ]
    if box.is_output:
        found.append(f'<text class="name" x="{_n(box.x)}" y="{_n(box.y - box.height / 2 - 5)}">P{box.level}</text>')
    return [*found, "</g>"]


def _shape(kind: BlockKind, x: float, y: float, width: float, height: float, classes: str) -> str:
    """Bottleneck: rectangle; residual: diamond; mbconv: rounded."""
    classes = f'class="shape {kind}{classes}"'
    if kind == BlockKind.RESIDUAL:
        half, rise = _n(width / 2), _n(height / 2)
        return f'<path {classes} d="M{_n(x - width / 2)} {_n(y)}l{half} -{rise} {half} {rise} -{half} {rise}Z"/>'
    radius = 2 if kind == BlockKind.BOTTLENECK else 12
    return (
        f'<rect {classes} x="{_n(x - width / 2)}" y="{_n(y - height / 2)}" width="{_n(width)}" '
        f'height="{_n(height)}" rx="{radius}"/>'
    )


def _words(difference: _Difference, top: float) -> list[str]:
    """What differs, below each column of the upper panel."""
    left = _PAGE + _AXIS + COLUMN / 2
    return [
        f'<text class="word" x="{_n(left + COLUMN * node)}" y="{_n(top + 13 * (line + 1))}">{word}</text>'
        for node, words in sorted(difference.words.items())
        for line, word in enumerate(words)
    ]


def _legend(layouts: Sequence[Layout], top: float, width: float, *, compared: bool) -> tuple[list[str], float]:
    """Return the legend of what is there, in as many lines as it takes, and where the page ends."""
    boxes = [box for layout in layouts for box in layout.boxes]
    wires = [wire for layout in layouts for wire in layout.wires]
    items = []
    for kind in BlockKind:
        if any(box.kind == kind for box in boxes):
            items.append((_shape(kind, 16, 0, 24, 20, ""), str(kind)))
    some = boxes[0].kind
    items.append((_shape(some, 16, 0, 24, 18, " output"), "output"))
    for direction, word in (
        (Direction.DOWN, "down-sampling"),
        (Direction.UP, "up-sampling"),
        (Direction.SAME, "same size"),
    ):
        if any(wire.direction == direction and wire.role == Role.PARENT for wire in wires):
            items.append((_sample(f"{direction} parent", direction), word))
    if any(wire.role == Role.MERGE for wire in wires):
        items.append((_sample("same merge", Direction.SAME), "dangling block, added to an output"))
    if any(not box.is_built for box in boxes):
        items.append((_shape(some, 16, 0, 24, 18, " ghost"), "reaches no output, not built"))
    if compared:
        items.append(('<rect class="changed" x="6" y="-10" width="20" height="20" rx="4"/>', "differs"))
        items.append((_sample("same parent common", None), "in both (pale)"))
    channels = sorted({box.channels for box in boxes})
    size = f"height: channels, {channels[0]} to {channels[-1]}" if len(channels) > 1 else f"{channels[0]} channels"
    small, large = (_shape(some, x, 0, 10, height, "") for x, height in ((9, 10), (23, 22)))
    items.append((small + large, f"{size} at full width"))
    found = []
    x, y = _PAGE, top + 22
    for icon, label in items:
        room = 40 + text_width(label, 15) + 20
        if x > _PAGE and x + room - 20 > width - _PAGE:
            x, y = _PAGE, y + 28
        found.append(
            f'<g transform="translate({_n(x)} {_n(y)})">{icon}<text class="legend" x="40" y="5">{label}</text></g>'
        )
        x += room
    return found, y + 24


def _sample(classes: str, direction: Direction | None) -> str:
    """A short connection for the legend."""
    head = f'<path class="head {direction}" d="{_triangle(34, 0, 1.0, 0.0)}"/>' if direction else ""
    return f'<path class="edge {classes}" d="M2 0H{27 if direction else 34}"/>{head}'


def _document(elements: Sequence[str], width: float, height: float, title: str, description: str) -> str:
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(width)} {_n(height)}" width="{_n(width)}" '
        f'height="{_n(height)}" style="max-width: 100%; height: auto" role="img">',
        f"<title>{escaped(title)}</title>",
        f"<desc>{escaped(description)}</desc>",
        f"<style>{style_sheet(_RULES, _COLOURS)}",
        "</style>",
        f'<rect class="paper" width="{_n(width)}" height="{_n(height)}"/>',
        *elements,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _text(x: float, y: float, text: str, classes: str, room: float) -> str:
    """A line of text, cut in its middle if there is no room for all of it."""
    text = cut(text, room, 22 if "title" in classes else 14)
    return f'<text class="{classes}" x="{_n(x)}" y="{_n(y)}">{escaped(text)}</text>'
