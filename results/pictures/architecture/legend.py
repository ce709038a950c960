"""Legend of a drawn architecture; it lists only what the drawing contains."""

from __future__ import annotations

from collections.abc import Sequence

from spinenas.results.pictures.architecture.parts import Direction, Layout, Role
from spinenas.results.pictures.architecture.shapes import block_shape, sample_wire
from spinenas.results.pictures.svg import short, text_width
from spinenas.space.genotype import BlockKind


def legend(
    layouts: Sequence[Layout], top: float, width: float, *, margin: float, compared: bool
) -> tuple[list[str], float]:
    """Return the legend, in as many lines as it needs, and the bottom y of the page."""
    boxes = [box for layout in layouts for box in layout.boxes]
    wires = [wire for layout in layouts for wire in layout.wires]
    items = []
    for kind in BlockKind:
        if any(box.kind == kind for box in boxes):
            items.append((block_shape(kind, 16, 0, 24, 20, ""), str(kind)))
    some = boxes[0].kind
    items.append((block_shape(some, 16, 0, 24, 18, " output"), "output"))
    for direction, word in (
        (Direction.DOWN, "down-sampling"),
        (Direction.UP, "up-sampling"),
        (Direction.SAME, "same size"),
    ):
        if any(wire.direction == direction and wire.role == Role.PARENT for wire in wires):
            items.append((sample_wire(f"{direction} parent", direction), word))
    if any(wire.role == Role.MERGE for wire in wires):
        items.append((sample_wire("same merge", Direction.SAME), "dangling block, added to an output"))
    if any(not box.is_built for box in boxes):
        items.append((block_shape(some, 16, 0, 24, 18, " ghost"), "reaches no output, not built"))
    if compared:
        items.append(('<rect class="changed" x="6" y="-10" width="20" height="20" rx="4"/>', "differs"))
        items.append((sample_wire("same parent common", None), "in both (pale)"))
    channels = sorted({box.channels for box in boxes})
    size = f"height: channels, {channels[0]} to {channels[-1]}" if len(channels) > 1 else f"{channels[0]} channels"
    small, large = (block_shape(some, x, 0, 10, height, "") for x, height in ((9, 10), (23, 22)))
    items.append((small + large, f"{size} at full width"))
    found = []
    x, y = margin, top + 22
    for icon, label in items:
        room = 40 + text_width(label, 15) + 20
        if x > margin and x + room - 20 > width - margin:
            x, y = margin, y + 28
        text = f'<text class="legend" x="40" y="5">{label}</text>'
        found.append(f'<g transform="translate({short(x)} {short(y)})">{icon}{text}</g>')
        x += room
    return found, y + 24
