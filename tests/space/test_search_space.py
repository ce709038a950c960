"""Spaces against brute force: size, encoding, check, sampling; and every sentence of `check`."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from spinenas.space.combinatorics import (
    count_arrangements,
    lehmer_decode,
    lehmer_encode,
    match_steps,
    rank_pair,
    unrank_pair,
)
from spinenas.space.errors import GenotypeError, UserError
from spinenas.space.genotype import SPINENET_STEM, BlockKind, BlockSpec, Genotype, StemBlock
from spinenas.space.published import R0_SP53, SPINENET_49
from spinenas.space.search_space import SPACES, SearchSpace, space_by_name

BOTTLENECK, RESIDUAL = BlockKind.BOTTLENECK, BlockKind.RESIDUAL


def small_space(
    intermediate: tuple[int, ...],
    outputs: tuple[int, ...],
    *,
    offsets: tuple[int, ...] = (0,),
    kinds: tuple[BlockKind, ...] = (BOTTLENECK,),
    window: int | None = None,
    stem: tuple[StemBlock, ...] = SPINENET_STEM,
) -> SearchSpace:
    return SearchSpace("small", stem, intermediate, outputs, offsets, kinds, window)


SMALL_SPACES = {
    "tiny": SearchSpace.tiny(),
    "steps that undo swaps": small_space((3, 4, 4), (3,), offsets=(-1, 0, 1), window=2),
    "equal bases": small_space((3, 3, 3), (3, 4), window=2),
    "one-sided steps": small_space((2, 4), (4,), offsets=(1, 2), kinds=(RESIDUAL, BOTTLENECK)),
    "no intermediate block": small_space((), (3, 4), kinds=(BOTTLENECK, RESIDUAL)),
    "longer stem": small_space((3,), (3, 5), window=3, stem=(StemBlock(2), StemBlock(2, RESIDUAL), StemBlock(3))),
    "one genotype": small_space((), (5,)),
}
LARGE_SPACES = [SearchSpace.spinenet49(), SearchSpace.spinenet49(window=None), SearchSpace.r0_sp53()]


def all_vectors(space: SearchSpace) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(decision.num_options) for decision in space.decisions)))


@pytest.mark.parametrize("space", SMALL_SPACES.values(), ids=SMALL_SPACES)
def test_size_encode_check_and_enumerate_agree_with_listing_every_vector(space: SearchSpace) -> None:
    vectors = all_vectors(space)
    smallest: dict[Genotype, tuple[int, ...]] = {}
    for vector in vectors:  # in lexicographic order: the first vector of a genotype is its smallest
        smallest.setdefault(space.decode(vector), vector)
    assert len(vectors) == space.num_vectors()
    assert len(smallest) == space.size()
    for genotype, vector in smallest.items():
        space.check(genotype)
        assert space.encode(genotype) == vector
    listed = list(space.enumerate())
    assert len(listed) == len(smallest)
    assert set(listed) == set(smallest)


def test_check_accepts_of_a_wider_space_exactly_the_genotypes_of_the_narrower() -> None:
    narrow = small_space((3, 4), (3, 4), offsets=(0, 1), window=2)
    wide = small_space((3, 3), (3, 4), offsets=(-1, 0, 1, 2), window=None, kinds=(BOTTLENECK,))
    members = set(narrow.enumerate())
    accepted = set()
    for genotype in wide.enumerate():
        try:
            narrow.check(genotype)
            accepted.add(genotype)
        except GenotypeError:
            pass
    assert accepted == members & set(wide.enumerate())
    assert 0 < len(accepted) < wide.size()


@pytest.mark.parametrize("space", LARGE_SPACES, ids=lambda space: space.name)
def test_decoding_what_was_encoded_gives_the_genotype_back(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    for _ in range(1000):
        genotype = space.sample(rng)
        vector = space.encode(genotype)
        assert space.decode(vector) == genotype
        assert space.encode(space.decode(vector)) == vector


def test_counting_and_matching_levels_equal_brute_force() -> None:
    rng = np.random.default_rng(1)
    for _ in range(150):
        bases = sorted(int(base) for base in rng.integers(2, 6, size=rng.integers(1, 5)))
        low, width = int(rng.integers(-2, 1)), int(rng.integers(0, 4))
        high = low + width
        sequences = {
            tuple(base + step for base, step in zip(order, steps, strict=True))
            for order in set(itertools.permutations(bases))
            for steps in itertools.product(range(low, high + 1), repeat=len(bases))
        }
        assert count_arrangements(bases, low, high) == len(sequences)
        for levels in itertools.product(range(0, 9), repeat=len(bases)) if len(bases) < 4 else sequences:
            matched = match_steps(levels, bases, low, high)
            assert (matched is not None) == (levels in sequences)
            if matched is not None:
                assert sorted(matched) == bases
                assert all(low <= level - base <= high for level, base in zip(levels, matched, strict=True))


def test_every_pair_and_arrangement_has_one_number() -> None:
    pairs = [(i, j) for j in range(20) for i in range(j)]
    assert [unrank_pair(rank) for rank in range(len(pairs))] == pairs
    assert [rank_pair(*pair) for pair in pairs] == list(range(len(pairs)))
    values = (1, 2, 2, 3)
    for order in set(itertools.permutations(values)):
        codes = [
            code
            for code in itertools.product(range(4), range(3), range(2), range(1))
            if tuple(lehmer_decode(code, values)) == order
        ]
        assert tuple(lehmer_encode(order)) == min(codes)


def test_the_size_of_the_published_space_is_what_the_paper_counts() -> None:
    """Permutations of R0-SP53 (equal levels interchangeable) times the connections of a window of 5."""
    permutations = math.factorial(10) // (math.factorial(3) * math.factorial(5)) * math.factorial(5)
    inner = math.prod(math.comb(min(node, 5), 2) for node in range(2, 12))
    outer = math.prod(math.comb(node, 2) for node in range(12, 17))
    assert SearchSpace.r0_sp53().size() == permutations * inner * outer
    assert SearchSpace.spinenet49().num_vectors() == (
        math.factorial(10) * math.factorial(5) * inner * outer * 4**10 * 2**15
    )


def test_the_published_networks_are_in_their_spaces() -> None:
    for window in (4, 5, None):
        space = SearchSpace.spinenet49(window)
        space.check(SPINENET_49)
        assert space.decode(space.encode(SPINENET_49)) == SPINENET_49
    SearchSpace.r0_sp53().check(R0_SP53)
    SearchSpace.spinenet49().check(R0_SP53)
    with pytest.raises(GenotypeError, match="block 9 has parent 4"):
        SearchSpace.r0_sp53(window=4).check(R0_SP53)


def test_sampling_draws_every_vector_equally_often() -> None:
    space = SMALL_SPACES["steps that undo swaps"]
    expected = Counter(space.decode(vector) for vector in all_vectors(space))
    assert max(expected.values()) > min(expected.values())
    rng = np.random.default_rng(2)
    num_draws = 20_000
    drawn = Counter(space.sample(rng) for _ in range(num_draws))
    chi2 = sum(
        (drawn[genotype] - num_draws * count / space.num_vectors()) ** 2 / (num_draws * count / space.num_vectors())
        for genotype, count in expected.items()
    )
    degrees = len(expected) - 1
    assert abs(chi2 - degrees) < 5 * math.sqrt(2 * degrees)


def test_sampling_is_decided_by_the_generator_alone() -> None:
    space = SearchSpace.spinenet49()
    first, second = (space.sample(np.random.default_rng(7)).key for _ in range(2))
    assert first == second == "34381a47cd689cd6"


def test_decisions_have_distinct_names_and_at_least_two_options() -> None:
    for space in [*SMALL_SPACES.values(), *LARGE_SPACES]:
        names = [decision.name for decision in space.decisions]
        assert len(set(names)) == len(names)
        assert all(decision.num_options >= 2 for decision in space.decisions)


def test_decode_makes_plain_integers_of_numpy_ones() -> None:
    space = SearchSpace.tiny()
    vector = np.array([decision.num_options - 1 for decision in space.decisions])
    genotype = space.decode(vector)  # type: ignore[arg-type]
    assert all(type(number) is int for block in genotype.blocks for number in (block.level, *block.parents))


def test_decode_refuses_a_vector_of_the_wrong_length() -> None:
    space = SearchSpace.tiny()
    with pytest.raises(UserError, match=r"the vector has 1 values; tiny has 10 decisions"):
        space.decode([0])


@pytest.mark.parametrize("value", [-1, 2])
def test_decode_refuses_a_value_out_of_range(value: int) -> None:
    space = SearchSpace.tiny()
    vector = [value] + [0] * (len(space.decisions) - 1)
    with pytest.raises(UserError, match=f"'intermediate order 0' has the value {value}; it is 0 to 1"):
        space.decode(vector)


def changed(node: int, **changes: object) -> Genotype:
    blocks = list(SPINENET_49.blocks)
    blocks[node - 2] = replace(blocks[node - 2], **changes)
    return Genotype(tuple(blocks))


BREAKS = {
    "stem": (
        Genotype(SPINENET_49.blocks, (StemBlock(2), StemBlock(2, RESIDUAL))),
        "the stem is level 2 bottleneck, level 2 residual; in spinenet49-window5 it is level 2 bottleneck, level 2 "
        "bottleneck",
    ),
    "too few blocks": (
        Genotype(SPINENET_49.blocks[:-1]),
        "14 blocks follow the stem; in spinenet49-window5 there are 15",
    ),
    "too many blocks": (
        Genotype((*SPINENET_49.blocks, BlockSpec(2, BOTTLENECK, (2, 13)))),
        "16 blocks follow the stem; in spinenet49-window5 there are 15",
    ),
    "an early output": (
        changed(2, is_output=True),
        "block 2 is an output; in spinenet49-window5 the outputs are the last 5, 12 to 16",
    ),
    "a missing output": (
        changed(13, is_output=False),
        "block 13 is no output; in spinenet49-window5 the outputs are the last 5, 12 to 16",
    ),
    "kind": (
        changed(6, kind=BlockKind.MBCONV),
        "block 6 is of kind mbconv; in spinenet49-window5 blocks are bottleneck or residual",
    ),
    "one parent": (
        changed(6, parents=(5,)),
        "block 6 has one parent; in spinenet49-window5 every block has two",
    ),
    "window": (
        changed(10, parents=(4, 9)),
        "block 10 has parent 4; in spinenet49-window5 an intermediate block has its parents among the 5 nodes before "
        "it, here 5 to 9",
    ),
    "output level": (
        changed(16, level=2),
        "block 16 is an output of level 2; in spinenet49-window5 the output levels are 3 4 5 6 7, each once",
    ),
    "intermediate levels that no order of the bases reaches": (
        changed(2, level=7),
        "block 2 has level 7, for which no base block is left; in spinenet49-window5 intermediate blocks have the "
        "levels 2 3 3 3 4 4 4 4 4 5 in any order, each changed by -1 to 2",
    ),
}


@pytest.mark.parametrize(("genotype", "message"), BREAKS.values(), ids=BREAKS)
def test_check_names_the_block_and_the_rule(genotype: Genotype, message: str) -> None:
    with pytest.raises(GenotypeError) as error:
        SearchSpace.spinenet49().check(genotype)
    assert str(error.value) == message
    with pytest.raises(GenotypeError):
        SearchSpace.spinenet49().encode(genotype)


def test_check_names_a_block_whose_level_has_no_base_left() -> None:
    space = small_space((3, 4), (3,), offsets=(0,))
    with pytest.raises(GenotypeError, match="block 3 has level 5, for which no base block is left"):
        space.check(Genotype.from_text("2b 2b / 3b0,1 5b0,1 3b0,1!"))


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"stem": (StemBlock(2),)}, "two stem blocks or more"),
        ({"intermediate": (4, 3)}, "base levels ascending"),
        ({"outputs": (4, 3)}, "distinct output levels ascending"),
        ({"outputs": ()}, "needs an output level"),
        ({"offsets": (0, 2)}, "consecutive level offsets"),
        ({"intermediate": (6,), "offsets": (0, 1, 2)}, "within levels 1 to 7"),
        ({"kinds": ()}, "distinct kinds, at least one"),
        ({"window": 1}, "a window of at least 2 nodes"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(arguments: dict[str, object], rule: str) -> None:
    defaults: dict[str, object] = {"intermediate": (3,), "outputs": (3,)}
    with pytest.raises(UserError, match=f"the search space 'small' .*{rule}"):
        small_space(**{**defaults, **arguments})


def test_identity_holds_every_rule_but_not_the_name() -> None:
    space = SearchSpace.tiny()
    variants = [
        replace(space, stem=(StemBlock(2), StemBlock(2, RESIDUAL))),
        replace(space, intermediate_levels=(3, 5)),
        replace(space, output_levels=(3, 5)),
        replace(space, level_offsets=(0,)),
        replace(space, kinds=(BOTTLENECK,)),
        replace(space, intermediate_window=3),
        replace(space, intermediate_window=None),
    ]
    assert len({space.identity, *(variant.identity for variant in variants)}) == len(variants) + 1
    assert replace(space, name="other").identity == space.identity


def test_spaces_are_found_by_name_and_say_their_window() -> None:
    for name in SPACES:
        assert space_by_name(name).name.startswith(name.split("-window")[0])
    for full_name in (name for name in SPACES if "-window" in name or name == "tiny"):
        assert space_by_name(full_name).name == full_name
    assert space_by_name("spinenet49").name == "spinenet49-window5"
    with pytest.raises(UserError, match="no search space is called 'spinenet-49'; did you mean 'spinenet49'"):
        space_by_name("spinenet-49")


def test_the_tiny_space_is_small_and_has_every_sort_of_decision() -> None:
    space = SearchSpace.tiny()
    assert 1_000 <= space.size() <= 20_000
    sorts = {decision.name.split()[-1] if decision.name[0] == "b" else "order" for decision in space.decisions}
    assert sorts == {"order", "parents", "step", "kind"}
