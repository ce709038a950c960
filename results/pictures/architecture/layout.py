"""Places the blocks of an architecture: node i in column i, and in the row of its level, lowest level on top."""

from __future__ import annotations

from collections.abc import Sequence

from spinenas.results.pictures.architecture.parts import COLUMN, ROW, Box, Layout, Role
from spinenas.results.pictures.architecture.routing import wires
from spinenas.space.genotype import BlockKind, Genotype
from spinenas.space.graph import built_graph
from spinenas.space.scaling import SCALINGS

BLOCK_WIDTH = 28.0
SMALLEST_HEIGHT, LARGEST_HEIGHT = 24.0, 52.0

_SCALING = SCALINGS["49"]
"""Full width; mobile-49 has the same widths for mbconv."""


def lay_out(genotype: Genotype, levels: Sequence[int] | None = None) -> Layout:
    """Return the layout of an architecture.

    Args:
        genotype: the architecture.
        levels: rows to show, ascending; None for the lowest to the highest level of its blocks.
    """
    levels = tuple(levels or shown_levels(genotype))
    boxes = _boxes(genotype, levels)
    links = _links(genotype, boxes)
    return Layout(boxes, wires(links, boxes, ROW * len(levels)), levels)


def shown_levels(*genotypes: Genotype) -> range:
    """Return the range from the lowest to the highest level of some architectures."""
    used = [block.level for genotype in genotypes for block in genotype.blocks]
    used += [block.level for genotype in genotypes for block in genotype.stem]
    return range(min(used), max(used) + 1)


def _boxes(genotype: Genotype, levels: Sequence[int]) -> tuple[Box, ...]:
    built = {node.node for node in built_graph(genotype).nodes}
    stem = [(block.level, block.kind, False) for block in genotype.stem]
    nodes = stem + [(block.level, block.kind, block.is_output) for block in genotype.blocks]
    boxes = []
    for node, (level, kind, is_output) in enumerate(nodes):
        # mbconv has its own scale: its widest block has a ninth of a bottleneck's channels.
        widest = BlockKind.MBCONV if kind == BlockKind.MBCONV else BlockKind.BOTTLENECK
        share = _SCALING.width(level, kind) / _SCALING.width(7, widest)
        boxes.append(
            Box(
                node=node,
                level=level,
                kind=kind,
                is_output=is_output,
                is_stem=node < len(stem),
                is_built=node in built,
                channels=_SCALING.width(level, kind),
                x=COLUMN * (node + 0.5),
                y=ROW * (levels.index(level) + 0.5),
                width=BLOCK_WIDTH + 8 * (kind == BlockKind.RESIDUAL),  # a diamond has room for text only in its middle
                height=SMALLEST_HEIGHT + (LARGEST_HEIGHT - SMALLEST_HEIGHT) * share**0.5,
            )
        )
    return tuple(boxes)


def _links(genotype: Genotype, boxes: Sequence[Box]) -> list[tuple[int, int, Role]]:
    """Return source, target and role of each connection, those of unbuilt blocks included."""
    built = {node.node: node for node in built_graph(genotype).nodes}
    num_stem = len(genotype.stem)
    links = []
    for box in boxes:
        if box.node in built:
            links += [(source, box.node, Role.PARENT) for source in built[box.node].parents]
            links += [(source, box.node, Role.MERGE) for source in built[box.node].merged]
        elif box.is_stem:
            links += [(box.node - 1, box.node, Role.GHOST)] if box.node else []
        else:
            links += [(source, box.node, Role.GHOST) for source in genotype.blocks[box.node - num_stem].parents]
    return links
