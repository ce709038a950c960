"""Random edits of a genotype that stay within its search space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from spinenas.space.combinatorics import match_steps
from spinenas.space.errors import UserError
from spinenas.space.genotype import BlockSpec, Genotype
from spinenas.space.search_space import SearchSpace

if TYPE_CHECKING:
    import numpy as np

MAX_DRAWS = 1000
"""Draws before giving up; an edit may change nothing, such as a swap of equal blocks."""


def random_edit(space: SearchSpace, genotype: Genotype, rng: np.random.Generator) -> tuple[str, Genotype]:
    """Return the name of a random edit and its result: a different genotype of the same space.

    The kinds of edit are equally likely:
        swap: two intermediate blocks, or two output blocks, change places.
        insert: a block moves to another place among the intermediate blocks, or among the output blocks.
        reparent: one parent of a block is replaced by another node.
        level: the level of an intermediate block changes by one.
        kind: the type of a block changes.

    Connections follow a block that moves; a connection that the new place does not allow is drawn again.
    """
    edits: dict[str, Callable[[SearchSpace, Genotype, np.random.Generator], Genotype | None]] = {
        "swap": partial(_move, swap=True),
        "insert": partial(_move, swap=False),
        "reparent": _reparent,
    }
    if len(space.level_offsets) > 1 and space.intermediate_levels:
        edits["level"] = _level
    if len(space.kinds) > 1:
        edits["kind"] = _kind
    names = list(edits)
    for _ in range(MAX_DRAWS):
        name = names[rng.integers(len(names))]
        edited = edits[name](space, genotype, rng)
        if edited is not None and edited != genotype:
            return name, edited
    raise UserError(f"no edit changes this genotype within the search space {space.name!r}; it has a single one")


def _move(space: SearchSpace, genotype: Genotype, rng: np.random.Generator, *, swap: bool) -> Genotype | None:
    """Move a block to the place of another of its group; the other takes its place, or all between shift by one."""
    group = _group(space, rng)
    if len(group) < 2:
        return None
    source, target = (group[i] for i in rng.choice(len(group), size=2, replace=False))
    order = list(range(genotype.num_nodes))
    if swap:
        order[source], order[target] = target, source
    else:
        order.insert(target, order.pop(source))
    return _rearrange(space, genotype, order, rng)


def _reparent(space: SearchSpace, genotype: Genotype, rng: np.random.Generator) -> Genotype | None:
    node = _any_block(space, rng)
    parents = genotype.blocks[node - len(space.stem)].parents
    kept = parents[rng.integers(2)]
    others = [parent for parent in space.parent_candidates(node) if parent not in parents]
    if not others:
        return None
    return _with_block(space, genotype, node, parents=_sorted_pair(kept, others[rng.integers(len(others))]))


def _level(space: SearchSpace, genotype: Genotype, rng: np.random.Generator) -> Genotype | None:
    position = int(rng.integers(len(space.intermediate_levels)))
    levels = [block.level for block in genotype.blocks[: len(space.intermediate_levels)]]
    levels[position] += 1 if rng.integers(2) else -1
    if match_steps(levels, space.intermediate_levels, space.level_offsets[0], space.level_offsets[-1]) is None:
        return None
    return _with_block(space, genotype, len(space.stem) + position, level=levels[position])


def _kind(space: SearchSpace, genotype: Genotype, rng: np.random.Generator) -> Genotype:
    node = _any_block(space, rng)
    others = [kind for kind in space.kinds if kind != genotype.blocks[node - len(space.stem)].kind]
    return _with_block(space, genotype, node, kind=others[rng.integers(len(others))])


def _any_block(space: SearchSpace, rng: np.random.Generator) -> int:
    return int(rng.integers(len(space.stem), space.num_nodes))


def _group(space: SearchSpace, rng: np.random.Generator) -> range:
    """The nodes a random block may change places with: all intermediate blocks, or all output blocks."""
    if _any_block(space, rng) < space.first_output:
        return range(len(space.stem), space.first_output)
    return range(space.first_output, space.num_nodes)


def _rearrange(space: SearchSpace, genotype: Genotype, order: Sequence[int], rng: np.random.Generator) -> Genotype:
    """Put node order[i] at place i. Parents at a later place or outside the window are drawn again."""
    place = {node: new for new, node in enumerate(order)}
    num_stem = len(space.stem)
    blocks = []
    for node in range(num_stem, space.num_nodes):
        block = genotype.blocks[order[node] - num_stem]
        candidates = space.parent_candidates(node)
        kept = [place[parent] for parent in block.parents if place[parent] in candidates]
        while len(kept) < 2:
            free = [parent for parent in candidates if parent not in kept]
            kept.append(free[rng.integers(len(free))])
        parents = _sorted_pair(*kept)
        blocks.append(block if parents == block.parents else replace(block, parents=parents))
    return Genotype(tuple(blocks), genotype.stem)


def _with_block(space: SearchSpace, genotype: Genotype, node: int, **changes: object) -> Genotype:
    position = node - len(space.stem)
    block: BlockSpec = replace(genotype.blocks[position], **changes)  # type: ignore[arg-type]
    return Genotype((*genotype.blocks[:position], block, *genotype.blocks[position + 1 :]), genotype.stem)


def _sorted_pair(first: int, second: int) -> tuple[int, int]:
    return (first, second) if first < second else (second, first)
