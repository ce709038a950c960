"""The network a genotype really becomes: dangling blocks merged, dead ones dropped, and its canonical form.

It knows nothing of widths, sizes or torch. What is said here is what the builder builds, what `cost` counts
and what a duplicate is judged by.
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
"""A node in canonical numbers: level, kind, role, parents ascending, merged ascending."""

_STEM, _INTERMEDIATE, _OUTPUT = 0, 1, 2


@dataclass(frozen=True, slots=True)
class BuiltNode:
    """A node that is really built.

    Attributes:
        node: its node number in the genotype.
        level: stride is 2**level.
        kind: block type.
        parents: nodes that feed it through a resampling connection, ascending; the previous node in the stem.
        merged: dangling nodes added to its input directly, ascending.
        is_output: whether an endpoint of its level is built on it.
    """

    node: int
    level: int
    kind: BlockKind
    parents: tuple[int, ...]
    merged: tuple[int, ...]
    is_output: bool


@dataclass(frozen=True, slots=True)
class BuiltGraph:
    """The network that is really built.

    Attributes:
        num_stem: stem blocks of the genotype; nodes below this number are stem blocks.
        nodes: those that reach an output, ascending by node number.
    """

    num_stem: int
    nodes: tuple[BuiltNode, ...]


def built_graph(genotype: Genotype) -> BuiltGraph:
    """Return what is built: dangling blocks merged into outputs, nodes that reach no output left out."""
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
    # Each stem block is fed by the one before it, so all up to the last needed one are built.
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
    """Return the stride of each stem block, 1 or 2, the first one's relative to what the stem's convolution gives.

    That is level 2 before ResNet blocks (a 7x7 convolution and a max-pool) and level 1 before MBConv blocks (a 3x3
    convolution); each block stays at the level before it or goes one down (SpineNet, Table 1 and appendix A).

    Raises GenotypeError where this does not hold, and where MBConv blocks are mixed with others: nothing published
    says how they are connected.
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
    """Return the nodes after the stem that reach no output even after merging: they are not built."""
    built = {node.node for node in built_graph(genotype).nodes}
    return tuple(node for node in range(len(genotype.stem), genotype.num_nodes) if node not in built)


def depth(genotype: Genotype) -> int:
    """Return the number of blocks on the longest way from the stem's first to an output, dead ones left out."""
    longest: dict[int, int] = {}
    for node in built_graph(genotype).nodes:
        longest[node.node] = 1 + max((longest[source] for source in (*node.parents, *node.merged)), default=0)
    return max(longest.values())


class PathFigures(NamedTuple):
    """Of all ways from the stem to an output, the least of each figure; not all need be the same way's.

    Attributes:
        coarsest: level of the way's coarsest block; what it lost of the image, no later block gets back.
        ascents: levels that it is up-sampled by, in all.
        changes: resamplings of either kind.
        blocks: that it passes after the stem.
    """

    coarsest: int
    ascents: int
    changes: int
    blocks: int


def path_figures(graph: BuiltGraph) -> dict[int, PathFigures]:
    """Return how direct the way to the output of each level is; dangling blocks that are merged are ways as well."""
    found: dict[int, tuple[int, int, int, int]] = {}
    level_of: dict[int, int] = {}
    for node in graph.nodes:
        level = level_of[node.node] = node.level
        if node.node < graph.num_stem:
            found[node.node] = (level, 0, 0, 0)
            continue
        coarsest = ascents = changes = blocks = 99  # above what any way has
        for source in (*node.parents, *node.merged):
            coarse, up, changed, passed = found[source]
            step = level_of[source] - level
            if step > 0:
                up += step
            if step:
                changed += 1
            coarsest = coarse if coarse < coarsest else coarsest  # calls of `min` take five times as long
            ascents = up if up < ascents else ascents
            changes = changed if changed < changes else changes
            blocks = passed if passed < blocks else blocks
        found[node.node] = (level if level > coarsest else coarsest, ascents, changes, blocks + 1)
    return {node.level: PathFigures(*found[node.node]) for node in graph.nodes if node.is_output}


def lost_levels(graph: BuiltGraph) -> dict[int, int]:
    """Return by level of the outputs, ascending, how many levels coarser the least coarse way to it gets."""
    return {level: figures.coarsest - level for level, figures in sorted(path_figures(graph).items())}


def network_key(architecture: Architecture) -> str:
    """Return the identity of the network that is built, without its scaling: 16 hex digits."""
    if isinstance(architecture, Baseline):
        return architecture.key
    return canonical_key(built_graph(architecture))


def canonical_key(graph: BuiltGraph) -> str:
    """Return 16 hex digits that are equal for two graphs exactly if they are the same network.

    Reordering independent blocks or writing parents in another order changes nothing; a block that is shared
    differs from two equal blocks side by side, and a merge differs from a parent.
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

    Blocks are built in order. At an output, after its own parents are counted, every earlier node without an
    outgoing connection so far that has its level and kind (hence its size and channels) is added; as each
    level has one output, none is added twice. Connections of blocks that turn out dead count as outgoing, and so
    does the chain of the stem: R23-SP30's stem merges nowhere (SpineNet, Figure 4 b). The code does not count that
    chain, which its stem of two level-2 blocks leaves open unless an output has level 2.
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
    return (node.level, node.kind.value, role, parents, merged)


def _smallest_rows(blocks: Sequence[BuiltNode], numbers: Mapping[int, int]) -> list[Row]:
    """Number the blocks one by one, always a ready one with the smallest row, and return their rows in order.

    Ready is a block all of whose inputs have numbers. Where several have the same row, what they feed decides
    (`_least_tied`); where that leaves a choice, every choice is followed and the smallest outcome kept. So
    the result depends on the network alone, and it determines the network: it lists every connection.
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

    Twins have the same inputs (they are tied) and feed the same blocks the same way: interchangeable.
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
    """Colour refinement of the unnumbered blocks: equal colours mean alike as far as neighbours can tell."""

    def ranked(marks: Mapping[int, tuple[Any, ...]]) -> dict[int, int]:
        order = {mark: rank for rank, mark in enumerate(sorted(set(marks.values())))}
        return {node: order[mark] for node, mark in marks.items()}

    def source(node: int, colours: Mapping[int, int]) -> tuple[int, int]:
        return (0, numbers[node]) if node in numbers else (1, colours[node])

    colours = ranked({block.node: (block.level, block.kind.value, block.is_output) for block in waiting})
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
