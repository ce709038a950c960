"""SVG elements for the blocks and connections of a drawn architecture, with their colours and style rules."""

from __future__ import annotations

from collections.abc import Sequence

from spinenas.results.pictures.architecture.parts import Box, Direction, Role, Wire
from spinenas.results.pictures.svg import short, style_sheet
from spinenas.space.genotype import BlockKind

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

STYLE = style_sheet(_RULES, _COLOURS)


def wire_elements(wire: Wire, is_common: bool) -> tuple[str, str]:
    """Return a connection's line and head. Upsampling has an open head, and an unbuilt connection has none."""
    classes = f"edge {wire.direction} {wire.role}" + " common" * is_common
    ends = f'data-from="{wire.source}" data-to="{wire.target}"'
    if wire.role == Role.GHOST:
        return f'<path class="{classes}" {ends} d="{_path(wire.points)}"/>', ""
    (x2, y2), (x, y) = wire.points[-2:]
    length = ((x - x2) ** 2 + (y - y2) ** 2) ** 0.5 or 1.0
    across, down = (x - x2) / length, (y - y2) / length
    path = _path((*wire.points[:-1], (x - 7 * across, y - 7 * down)))  # the line ends at the base of the head
    # A wide line in the paper's colour below it shows which of two crossing lines is on top.
    casing = "" if is_common else f'<path class="casing" d="{path}"/>'
    head = f'<path class="head {wire.direction}{" common" * is_common}" d="{arrow_head(x, y, across, down)}"/>'
    return f'{casing}<path class="{classes}" {ends} d="{path}"/>', head


def _path(points: Sequence[tuple[float, float]]) -> str:
    """Return a start and cubic pieces as an SVG path."""
    words = [f"{short(x)} {short(y)}" for x, y in points]
    return f"M{words[0]}" + "".join(f"C{' '.join(words[i : i + 3])}" for i in range(1, len(words), 3))


def arrow_head(x: float, y: float, across: float, down: float) -> str:
    """Return the path of an arrow head with its tip at (x, y), pointing along (across, down)."""
    x, y = x - across, y - down  # room for the border
    back_x, back_y = x - 8 * across, y - 8 * down
    points = ((x, y), (back_x - 4 * down, back_y + 4 * across), (back_x + 4 * down, back_y - 4 * across))
    return "M" + "L".join(f"{short(a)} {short(b)}" for a, b in points) + "Z"


def block_elements(box: Box) -> list[str]:
    """Return a block with its number, and its name if it is an output."""
    ghost = "" if box.is_built else " ghost"
    output = " output" if box.is_output else ""
    found = [
        f'<g class="block" data-node="{box.node}">',
        block_shape(box.kind, box.x, box.y, box.width, box.height, output + ghost),
        f'<text class="number{ghost}" x="{short(box.x)}" y="{short(box.y + 5.5)}">{box.node}</text>',
    ]
    if box.is_output:
        found.append(
            f'<text class="name" x="{short(box.x)}" y="{short(box.y - box.height / 2 - 5)}">P{box.level}</text>'
        )
    return [*found, "</g>"]


def block_shape(kind: BlockKind, x: float, y: float, width: float, height: float, classes: str) -> str:
    """Return the shape of a block: rectangle (bottleneck), diamond (residual) or rounded rectangle (mbconv)."""
    classes = f'class="shape {kind}{classes}"'
    if kind == BlockKind.RESIDUAL:
        half, rise = short(width / 2), short(height / 2)
        return f'<path {classes} d="M{short(x - width / 2)} {short(y)}l{half} -{rise} {half} {rise} -{half} {rise}Z"/>'
    radius = 2 if kind == BlockKind.BOTTLENECK else 12
    return (
        f'<rect {classes} x="{short(x - width / 2)}" y="{short(y - height / 2)}" width="{short(width)}" '
        f'height="{short(height)}" rx="{radius}"/>'
    )


def sample_wire(classes: str, direction: Direction | None) -> str:
    """Return a short connection for the legend."""
    head = f'<path class="head {direction}" d="{arrow_head(34, 0, 1.0, 0.0)}"/>' if direction else ""
    return f'<path class="edge {classes}" d="M2 0H{27 if direction else 34}"/>{head}'
