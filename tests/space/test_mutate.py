"""Edits stay in the space, change the genotype, do what their names say, and reach everything."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from spinenas.space.errors import UserError
from spinenas.space.genotype import SPINENET_STEM, BlockKind, Genotype
from spinenas.space.mutate import random_edit
from spinenas.space.search_space import SearchSpace

EDITS = {"swap", "insert", "reparent", "level", "kind"}
SPACES = [
    SearchSpace.spinenet49(),
    SearchSpace.spinenet49(window=None),
    SearchSpace.r0_sp53(),
    SearchSpace.tiny(),
]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_every_edit_is_legal_and_changes_the_genotype(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    genotype = space.sample(rng)
    names: Counter[str] = Counter()
    for _ in range(2000):
        name, edited = random_edit(space, genotype, rng)
        space.check(edited)
        assert edited != genotype
        names[name] += 1
        genotype = edited
    expected = EDITS if len(space.kinds) > 1 else {"swap", "insert", "reparent"}
    assert set(names) == expected
    assert min(names.values()) > 2000 / len(expected) / 4


def test_each_edit_does_what_its_name_says() -> None:
    rng = np.random.default_rng(1)
    space = SearchSpace.spinenet49()
    for _ in range(1000):
        genotype = space.sample(rng)
        name, edited = random_edit(space, genotype, rng)
        pairs = list(zip(genotype.blocks, edited.blocks, strict=True))
        differing = [(old, new) for old, new in pairs if old != new]
        if name in ("swap", "insert"):
            for group in (slice(0, 10), slice(10, 15)):
                moved = [Counter((b.level, b.kind) for b in g.blocks[group]) for g in (genotype, edited)]
                assert moved[0] == moved[1]
            continue
        ((old, new),) = differing
        changes = {field for field in ("level", "kind", "parents") if getattr(old, field) != getattr(new, field)}
        assert changes == {{"reparent": "parents"}.get(name, name)}
        if name == "level":
            assert abs(old.level - new.level) == 1
        if name == "reparent":
            assert len(set(old.parents) & set(new.parents)) == 1


def test_connections_follow_the_blocks_that_a_swap_exchanges() -> None:
    space = SearchSpace("pair", SPINENET_STEM, (3, 4), (5,), (0,), (BlockKind.BOTTLENECK,), None)
    genotype = Genotype.from_text("2b 2b / 3b0,1 4b0,1 5b1,2!")
    rng = np.random.default_rng(2)
    swapped = {
        edited.text for name, edited in (random_edit(space, genotype, rng) for _ in range(200)) if name == "swap"
    }
    assert swapped == {"2b 2b / 4b0,1 3b0,1 5b1,3!"}


def test_a_connection_that_a_swap_turns_around_is_drawn_anew_among_earlier_nodes() -> None:
    space = SearchSpace("pair", SPINENET_STEM, (3, 4), (5,), (0,), (BlockKind.BOTTLENECK,), None)
    genotype = Genotype.from_text("2b 2b / 3b0,1 4b0,2 5b1,2!")
    rng = np.random.default_rng(3)
    swapped = {
        edited.text for name, edited in (random_edit(space, genotype, rng) for _ in range(200)) if name == "swap"
    }
    assert swapped == {"2b 2b / 4b0,1 3b0,1 5b1,3!"}


def test_an_insert_moves_one_block_and_shifts_those_between() -> None:
    space = SearchSpace("three", SPINENET_STEM, (2, 3, 4), (5,), (0,), (BlockKind.BOTTLENECK,), None)
    genotype = Genotype.from_text("2b 2b / 2b0,1 3b0,1 4b0,1 5b2,3!")
    rng = np.random.default_rng(4)
    edited = {
        edited.text for name, edited in (random_edit(space, genotype, rng) for _ in range(500)) if name == "insert"
    }
    assert edited == {
        "2b 2b / 3b0,1 2b0,1 4b0,1 5b2,3!",
        "2b 2b / 3b0,1 4b0,1 2b0,1 5b2,4!",
        "2b 2b / 2b0,1 4b0,1 3b0,1 5b2,4!",
        "2b 2b / 4b0,1 2b0,1 3b0,1 5b3,4!",
    }


@pytest.mark.parametrize(
    "space",
    [
        SearchSpace("steps", SPINENET_STEM, (3, 4), (3,), (-1, 0, 1), (BlockKind.BOTTLENECK,), 2),
        SearchSpace("kinds", SPINENET_STEM, (3,), (3, 4), (0,), (BlockKind.BOTTLENECK, BlockKind.RESIDUAL), None),
    ],
    ids=lambda space: space.name,
)
def test_edits_reach_every_genotype_of_a_small_space_from_any_start(space: SearchSpace) -> None:
    rng = np.random.default_rng(5)
    genotype = space.sample(rng)
    seen = {genotype}
    for _ in range(30 * space.size()):
        genotype = random_edit(space, genotype, rng)[1]
        seen.add(genotype)
    assert len(seen) == space.size()


def test_the_same_generator_gives_the_same_edit() -> None:
    space = SearchSpace.spinenet49()
    genotype = space.sample(np.random.default_rng(6))
    first, second = (random_edit(space, genotype, np.random.default_rng(7)) for _ in range(2))
    assert first == second


def test_a_space_of_one_genotype_has_no_edit() -> None:
    space = SearchSpace("single", SPINENET_STEM, (), (5,), (0,), (BlockKind.BOTTLENECK,), None)
    with pytest.raises(UserError, match="no edit changes this genotype within the search space 'single'"):
        random_edit(space, space.decode([]), np.random.default_rng(0))
