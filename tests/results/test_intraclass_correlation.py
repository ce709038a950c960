"""Intraclass correlation and intervals of shares."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spinenas.results.stats.intervals import share_interval
from spinenas.results.stats.intraclass_correlation import intraclass_correlation


def test_the_published_worked_example_is_reproduced() -> None:
    """Shrout and Fleiss (1979), Table 2: six targets, four judges; ICC(1,1) = 0.17, F = 1.79."""
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    result = intraclass_correlation(ratings)
    assert result.value == pytest.approx(0.17, abs=0.005)
    assert (result.lower, result.upper) == pytest.approx((-0.13, 0.72), abs=0.005)
    assert result.within_std == pytest.approx(6.26**0.5, abs=0.005)


def test_the_interval_has_its_nominal_coverage() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        runs = rng.normal(0, 2, size=(12, 1)) + rng.normal(0, 1, size=(12, 3))
        result = intraclass_correlation(runs.tolist())
        hits += result.lower <= 0.8 <= result.upper
    assert 0.91 <= hits / 400 <= 0.985


def test_the_correlation_is_one_without_seed_noise_and_about_zero_with_nothing_else() -> None:
    assert intraclass_correlation([[1, 1], [2, 2], [3, 3]]).value == 1.0
    assert intraclass_correlation([[1, 2], [2, 1], [1, 2]]).value < 0


def test_too_few_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two architectures"):
        intraclass_correlation([[1, 2, 3]])


def test_the_interval_of_a_share_is_the_exact_one() -> None:
    assert share_interval(0, 10) == (0.0, pytest.approx(1 - 0.025 ** (1 / 10)))
    low, high = share_interval(3, 30)
    # By definition, each end leaves a probability of 2.5 % beyond the observed count.
    assert sum(math.comb(30, k) * high**k * (1 - high) ** (30 - k) for k in range(4)) == pytest.approx(0.025)
    assert sum(math.comb(30, k) * low**k * (1 - low) ** (30 - k) for k in range(3, 31)) == pytest.approx(0.025)
    assert share_interval(0, 0) == (0.0, 1.0)
