"""The honest random controls keep what they promise, and end when they cannot."""

from __future__ import annotations

import numpy as np
import pytest

from spinenas.space import sampling
from spinenas.space.cost import backbone_cost
from spinenas.space.errors import UserError
from spinenas.space.genotype import SPINENET_STEM, BlockKind
from spinenas.space.graph import dead_blocks
from spinenas.space.published import SPINENET_49
from spinenas.space.sampling import sample_in_madds_band, sample_without_dead_blocks
from spinenas.space.scaling import SCALINGS
from spinenas.space.search_space import SearchSpace

SPACE = SearchSpace.spinenet49()


def test_more_than_half_of_uniform_draws_have_a_dead_block_and_the_control_none() -> None:
    """55 of 100 uniform draws (by window 4, 5, none: 47, 54, 68) have a block that reaches no output."""
    rng = np.random.default_rng(0)
    share = np.mean([bool(dead_blocks(SPACE.sample(rng))) for _ in range(2000)])
    assert 0.50 < share < 0.59
    for _ in range(200):
        genotype = sample_without_dead_blocks(SPACE, rng)
        SPACE.check(genotype)
        assert dead_blocks(genotype) == ()


def test_draws_within_the_band_cost_what_spinenet_49_does_and_waste_nothing() -> None:
    scaling, rng = SCALINGS["49"], np.random.default_rng(1)
    centre = backbone_cost(SPINENET_49, scaling, 640).madds
    for _ in range(50):
        genotype = sample_in_madds_band(
            SPACE, rng, scaling=scaling, image_size=640, low=0.95 * centre, high=1.05 * centre
        )
        assert abs(backbone_cost(genotype, scaling, 640).madds / centre - 1) <= 0.05
        assert dead_blocks(genotype) == ()


def test_a_band_that_nothing_is_in_ends_with_where_the_draws_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MAX_DRAWS", 100)
    with pytest.raises(UserError, match=r"none of 100 draws .* of 1 to 2 multiply-adds; they had .*e\+10 to .*e\+10"):
        sample_in_madds_band(SPACE, np.random.default_rng(2), scaling=SCALINGS["49"], image_size=640, low=1, high=2)


def test_a_band_written_backwards_is_refused() -> None:
    with pytest.raises(UserError, match="its low end comes first"):
        sample_in_madds_band(SPACE, np.random.default_rng(3), scaling=SCALINGS["49"], image_size=640, low=2, high=1)


def test_a_space_that_hardly_ever_draws_without_dead_blocks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty level-7 blocks that may all read from anywhere before, and one output with two inputs."""
    monkeypatch.setattr(sampling, "MAX_DRAWS", 20)
    space = SearchSpace("forty", SPINENET_STEM, (7,) * 40, (3,), (0,), (BlockKind.BOTTLENECK,), None)
    with pytest.raises(UserError, match="none of 20 draws from the search space 'forty' was without dead blocks"):
        sample_without_dead_blocks(space, np.random.default_rng(4))
