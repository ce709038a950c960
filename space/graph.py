"""The graph that is built from a genotype: dangling blocks merged, dead blocks dropped; and its canonical key.

The network builder builds this graph, `cost` counts it, and duplicates are recognised by its key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from spinenas.space.baseline import Architecture, Baseline
from spinenas.space.errors import GenotypeError
from spinenas.space.genotype import BlockKind, Genotype

Row = tuple[int, str, int, tuple[int, ...], tuple[int, ...]]
"""A node with canonical numbers: level, kind, role, parents ascending, merged ascending."""

_STEM, _INTERMEDIATE, _OUTPUT = 0, 1, 2


@dataclass(frozen=True, slots=True)
class BuiltNode:
    """A node that is built.

    Attributes:
        node: node number in the genotype.
        level: stride is 2**level.
        kind: block type.
        parents: nodes that feed it through a resampling connection, ascending; for a stem block the previous node.
        merged: dangling nodes added directly to its input, ascending.
        is_output: whether the endpoint of its level is built on it.
    """

    node: int
    level: int
    kind: BlockKind
    parents: tuple[int, ...]
    merged: tuple[int, ...]
    is_output: bool


@dataclass(frozen=True, slots=True)
class BuiltGraph:
    """The network that is built.

    Attributes:
        num_stem: number of stem blocks of the genotype; nodes below this number are stem blocks.
        nodes: nodes that reach an output, ascending by node number.
    """

    num_stem: int
    nodes: tuple[BuiltNode, ...]


def built_graph(genotype: Genotype) -> BuiltGraph:
    """Merge dangling blocks into outputs, and drop nodes that reach no output."""
    num_stem = len(genotype.stem)
    merged = _merges(genotype)
    needed = [False] * genotype.num_nodes
    for node in range(genotype.num_nodes - 1, num_stem - 1, -1):
        block = genotype.blocks[node - num_stem]
        if block.is_output:
            needed[node] = True
        if needed[node]:
            for source in block.parents:
                needed[source] = True
            for source in merged.get(node, ()):
                needed[source] = True
    # Each stem block feeds the next one, so all up to the last needed one are built.
    num_built_stem = max((node + 1 for node in range(num_stem) if needed[node]), default=0)
    nodes = [
        BuiltNode(node, stem.level, stem.kind, (node - 1,) if node else (), (), False)
        for node, stem in enumerate(genotype.stem[:num_built_stem])
    ]
    nodes += [
        BuiltNode(node, block.level, block.kind, block.parents, merged.get(node, ()), block.is_output)
        for node, block in enumerate(genotype.blocks, start=num_stem)
        if needed[node]
    ]
    return BuiltGraph(num_stem, tuple(nodes))


def stem_strides(genotype: Genotype) -> tuple[int, ...]:
    """Return the stride of each stem block, 1 or 2.

    The stem's convolution ends at level 2 before ResNet blocks (7x7 and a max-pool) and at level 1 before MBConv
    blocks (3x3). Each stem block keeps the level before it or goes one down (SpineNet, Table 1 and appendix A).

    Raises GenotypeError for any other stem, and if MBConv blocks are mixed with others, because nothing published
    says how they would be connected.
    """
    mobile = genotype.stem[0].kind == BlockKind.MBCONV
    kinds = [block.kind for block in genotype.stem] + [block.kind for block in genotype.blocks]
    for node, kind in enumerate(kinds):
        if (kind == BlockKind.MBCONV) != mobile:
            raise GenotypeError(
                f"block {node} is {kind!s} and stem block 0 is {genotype.stem[0].kind!s}; "
                "MBConv blocks are not mixed with others in one network"
            )
    level = 1 if mobile else 2
    if genotype.stem[0].level != level:
        raise GenotypeError(
            f"the first stem block has level {genotype.stem[0].level}; a stem of {genotype.stem[0].kind!s} blocks "
            f"starts at level {level}"
        )
    strides = []
    for node, block in enumerate(genotype.stem):
        if block.level not in (level, level + 1):
            raise GenotypeError(
                f"stem block {node} has level {block.level} after level {level}; "
                "a stem stays at a level or goes one down"
            )
        strides.append(2 ** (block.level - level))
        level = block.level
    return tuple(strides)


def dead_blocks(genotype: Genotype) -> tuple[int, ...]:
    """Return the nodes after the stem that reach no output even after merging; they are not built."""
    built = {node.node for node in built_graph(genotype).nodes}
    return tuple(node for node in range(len(genotype.stem), genotype.num_nodes) if node not in built)


def depth(genotype: Genotype) -> int:
    """Return the number of blocks on the longest path from the first stem block to an output."""
    longest: dict[int, int] = {}
    for node in built_graph(genotype).nodes:
        longest[node.node] = 1 + max((longest[source] for source in (*node.parents, *node.merged)), default=0)
    return max(longest.values())


class PathFigures(NamedTuple):
    """The minimum of each figure over all paths from the stem to an output; different paths may attain them.

    Attributes:
        coarsest: level of the coarsest block on the path. Detail lost there cannot be recovered later.
        ascents: number of levels by which the path is upsampled, in total.
        changes: number of resamplings, up or down.
        blocks: number of blocks on the path after the stem.
    """

    coarsest: int
    ascents: int
    changes: int
    blocks: int


def path_figures(graph: BuiltGraph) -> dict[int, PathFigures]:
    """Return the path figures of the output of each level; paths through merged dangling blocks count too."""
    found: dict[int, tuple[int, int, int, int]] = {}
    level_of: dict[int, int] = {}
    for node in graph.nodes:
        level = level_of[node.node] = node.level
        if node.node < graph.num_stem:
            found[node.node] = (level, 0, 0, 0)
            continue
        coarsest = ascents = changes = blocks = 99  # above the figures of any path
        for source in (*node.parents, *node.merged):
            coarse, up, changed, passed = found[source]
            step = level_of[source] - level
            if step > 0:
                up += step
            if step:
                changed += 1
            coarsest = coarse if coarse < coarsest else coarsest  # `min` takes five times as long
            ascents = up if up < ascents else ascents
            changes = changed if changed < changes else changes
            blocks = passed if passed < blocks else blocks
        found[node.node] = (level if level > coarsest else coarsest, ascents, changes, blocks + 1)
    return {node.level: PathFigures(*found[node.node]) for node in graph.nodes if node.is_output}


def sharp_shares(graph: BuiltGraph) -> dict[int, float]:
    """Return for the output of each level the share of its input that was never coarser than the output, 0 to 1.

    It is the chance that a random walk from the output back to the stem passes no coarser block. At each block every
    input is equally likely, merged dangling blocks included. `lost_levels` says whether there is such a path.
    """
    sources: dict[int, tuple[int, ...]] = {}
    level_of: dict[int, int] = {}
    for built in graph.nodes:
        level_of[built.node] = built.level
        sources[built.node] = () if built.node < graph.num_stem else (*built.parents, *built.merged)
    shares = {}
    for output in graph.nodes:
        if output.is_output:
            share: dict[int, float] = {}
            for node, inputs in sources.items():
                if level_of[node] > output.level:
                    share[node] = 0.0
                elif inputs:
                    share[node] = sum([share[source] for source in inputs]) / len(inputs)
                else:
                    share[node] = 1.0
                if node == output.node:
                    break
            shares[output.level] = share[output.node]
    return shares


def lost_levels(graph: BuiltGraph) -> dict[int, int]:
    """Return for each output level, ascending, how many levels coarser its finest path gets on the way."""
    return {level: figures.coarsest - level for level, figures in sorted(path_figures(graph).items())}


def network_key(architecture: Architecture) -> str:
    """Return the identity of the network that is built, whatever its scaling: 16 hex digits."""
    if isinstance(architecture, Baseline):
        return architecture.key
    return canonical_key(built_graph(architecture))


def canonical_key(graph: BuiltGraph) -> str:
    """Return 16 hex digits that are equal for two graphs exactly if they are the same network.

    The order of independent blocks and of parents does not matter. A shared block differs from two equal blocks side
    by side, and a merge differs from a parent.
    """
    stem = [node for node in graph.nodes if node.node < graph.num_stem]
    blocks = [node for node in graph.nodes if node.node >= graph.num_stem]
    numbers = {node.node: number for number, node in enumerate(stem)}
    rows = [_row(node, numbers, _STEM) for node in stem] + _smallest_rows(blocks, numbers)
    text = ";".join(
        f"{level}{kind}{role}:{','.join(map(str, parents))}+{','.join(map(str, merged))}"
        for level, kind, role, parents, merged in rows
    )
    return hashlib.sha256(f"spinenas-network/1 {text}".encode()).hexdigest()[:16]


def _merges(genotype: Genotype) -> dict[int, tuple[int, ...]]:
    """Return for each output node the dangling nodes merged into it (tensorflow/tpu `spinenet.py`).

    Blocks are built in order. An output block first counts its own parents. Then every earlier node of its level and
    kind (hence its size and channels) that has no outgoing connection so far is added to it. Each level has one
    output, so no node is added twice. Connections of dead blocks count as outgoing. So does the chain of the stem:
    R23-SP30's stem merges nowhere (SpineNet, Figure 4 b). The original code does not count that chain, which makes a
    difference for its stem of two level-2 blocks only if an output has level 2.
    """
    num_stem = len(genotype.stem)
    used = [node < num_stem - 1 for node in range(genotype.num_nodes)]
    kinds = [(stem.level, stem.kind) for stem in genotype.stem]
    kinds += [(block.level, block.kind) for block in genotype.blocks]
    merged = {}
    for node, block in enumerate(genotype.blocks, start=num_stem):
        for parent in block.parents:
            used[parent] = True
        if block.is_output:
            dangling = tuple(earlier for earlier in range(node) if not used[earlier] and kinds[earlier] == kinds[node])
            if dangling:
                merged[node] = dangling
    return merged


def _row(node: BuiltNode, numbers: Mapping[int, int], role: int) -> Row:
    parents = tuple(sorted(numbers[parent] for parent in node.parents))
    merged = tuple(sorted(numbers[source] for source in node.merged))
    return (node.level, str(node.kind), role, parents, merged)


def _smallest_rows(blocks: Sequence[BuiltNode], numbers: Mapping[int, int]) -> list[Row]:
    """Number the blocks one by one, always a ready block with the smallest row, and return their rows in order.

    A block is ready if all its inputs have numbers. If several ready blocks have the same row, the blocks they feed
    decide (`_least_tied`). If that leaves a choice, every choice is followed and the smallest outcome kept. The result
    therefore depends only on the network, and it determines the network, because it lists every connection.
    """
    waiting = list(blocks)
    numbers = dict(numbers)
    rows: list[Row] = []
    while waiting:
        ready = [
            (_row(block, numbers, _OUTPUT if block.is_output else _INTERMEDIATE), block)
            for block in waiting
            if all(parent in numbers for parent in block.parents) and all(source in numbers for source in block.merged)
        ]
        smallest = min(row for row, _ in ready)
        tied = [block for row, block in ready if row == smallest]
        if len(tied) > 1:
            tied = _least_tied(tied, waiting, numbers)
        rows.append(smallest)
        if len(tied) > 1:
            outcomes = (
                _smallest_rows([b for b in waiting if b is not block], {**numbers, block.node: len(numbers)})
                for block in tied
            )
            return rows + min(outcomes)
        numbers[tied[0].node] = len(numbers)
        waiting.remove(tied[0])
    return rows


def _least_tied(tied: Sequence[BuiltNode], waiting: Sequence[BuiltNode], numbers: Mapping[int, int]) -> list[BuiltNode]:
    """Return the candidates among tied blocks: those of the smallest colour, one of each set of twins.

    Twins are interchangeable: they have the same inputs (they are tied) and feed the same blocks in the same way.
    """
    children: dict[int, list[tuple[int, bool]]] = {block.node: [] for block in waiting}
    for block in waiting:
        for sources, is_merge in ((block.parents, False), (block.merged, True)):
            for source in sources:
                if source in children:
                    children[source].append((block.node, is_merge))
    colours = _colours(waiting, numbers, children)
    least = min(colours[block.node] for block in tied)
    twins = {tuple(children[block.node]): block for block in tied if colours[block.node] == least}
    return list(twins.values())


def _colours(
    waiting: Sequence[BuiltNode],
    numbers: Mapping[int, int],
    children: Mapping[int, Sequence[tuple[int, bool]]],
) -> dict[int, int]:
    """Colour refinement of the unnumbered blocks: blocks of equal colour have neighbours of equal colours."""

    def ranked(marks: Mapping[int, tuple[Any, ...]]) -> dict[int, int]:
        order = {mark: rank for rank, mark in enumerate(sorted(set(marks.values())))}
        return {node: order[mark] for node, mark in marks.items()}

    def source(node: int, colours: Mapping[int, int]) -> tuple[int, int]:
        return (0, numbers[node]) if node in numbers else (1, colours[node])

    colours = ranked({block.node: (block.level, str(block.kind), block.is_output) for block in waiting})
    while True:
        refined = ranked(
            {
                block.node: (
                    colours[block.node],
                    tuple(sorted(source(parent, colours) for parent in block.parents)),
                    tuple(sorted(source(merged, colours) for merged in block.merged)),
                    tuple(sorted((is_merge, colours[child]) for child, is_merge in children[block.node])),
                )
                for block in waiting
            }
        )
        if len(set(refined.values())) == len(set(colours.values())):
            return refined
        colours = refined
