"""Rank correlations: known cases, and the coverage of their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from spinenas.results.stats.rank_correlation import agreement, kendall


def test_equal_orders_have_a_tau_of_one_and_opposite_ones_of_minus_one() -> None:
    scores = np.random.default_rng(0).normal(size=30)
    same = agreement(scores * 2 + 1, scores)
    for found in (same.kendall, same.weighted, same.top_third):
        assert found.value == pytest.approx(1)
    assert same.best_kept
    opposite = agreement(-scores, scores)
    assert opposite.kendall.value == pytest.approx(-1)
    assert not opposite.best_kept
    assert same.num_architectures == 30


def test_kendall_equals_a_count_of_pairs() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 12))
    signs = [np.sign(first[i] - first[j]) * np.sign(second[i] - second[j]) for i in range(12) for j in range(i)]
    assert kendall(first, second) == pytest.approx(np.mean(signs))


def test_the_interval_has_about_its_nominal_coverage() -> None:
    """Normal scores of correlation rho have a tau of 2 / pi * asin(rho)."""
    rho, held = 0.8, 0
    truth = 2 / np.pi * np.arcsin(rho)
    for seed in range(25):
        rng = np.random.default_rng(seed)
        first = rng.normal(size=40)
        second = rho * first + np.sqrt(1 - rho**2) * rng.normal(size=40)
        found = agreement(first, second).kendall
        assert found.lower is not None
        assert found.upper is not None
        held += found.lower <= truth <= found.upper
    assert held >= 20


def test_constants_have_no_correlation_and_few_scores_have_no_interval() -> None:
    scores = np.arange(6.0)
    undefined = agreement(np.zeros(6), scores)
    assert undefined.kendall.value is None
    assert str(undefined.kendall) == "-"
    few = agreement(np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 2.0]))
    assert few.kendall.value == pytest.approx(1 / 3)
    assert few.kendall.lower is None
    assert str(few.kendall) == "0.33"
