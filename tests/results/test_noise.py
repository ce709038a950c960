"""Noise studies: compared with simulations of their model, and in clear cases."""

from __future__ import annotations

import numpy as np
import pytest

from spinenas.results.stats.noise import MOST_REPLICATES, POOL, expected_maximum, noise_of
from spinenas.space.errors import UserError


def study(
    between: float, within: float, *, architectures: int = 400, seeds: int = 3, seed: int = 0
) -> list[list[float]]:
    rng = np.random.default_rng(seed)
    truth = 0.3 + between * rng.normal(size=(architectures, 1))
    return (truth + within * rng.normal(size=(architectures, seeds))).tolist()


def test_the_expected_maximum_of_normal_numbers_matches_exact_values_and_a_simulation() -> None:
    assert expected_maximum(1) == pytest.approx(0, abs=1e-9)
    assert expected_maximum(2) == pytest.approx(1 / np.sqrt(np.pi), abs=1e-6)
    draws = np.random.default_rng(0).normal(size=(40_000, 100)).max(axis=1)
    assert expected_maximum(100) == pytest.approx(draws.mean(), abs=0.01)


@pytest.mark.parametrize(("between", "within"), [(0.03, 0.01), (0.01, 0.02)])
def test_the_bias_of_the_best_single_run_matches_a_simulation(between: float, within: float) -> None:
    noise = noise_of(study(between, within))
    assert noise.correlation.between_std == pytest.approx(between, rel=0.15)
    assert noise.correlation.within_std == pytest.approx(within, rel=0.1)
    rng = np.random.default_rng(1)
    truth = between * rng.normal(size=(20_000, 100))
    seen = truth + within * rng.normal(size=truth.shape)
    best = seen.argmax(axis=1)[:, None]
    excess = (np.take_along_axis(seen, best, 1) - np.take_along_axis(truth, best, 1)).mean()
    assert noise.overstatement(100) == pytest.approx(excess, rel=0.15)
    assert noise.overstatement(1000) > noise.overstatement(100) > noise.overstatement(10) > 0


def test_more_runs_find_more_of_the_best_tenth() -> None:
    noise = noise_of(study(0.02, 0.02))
    shares = [noise.share_found(count) for count in (1, 3, 10, 40)]
    assert shares == sorted(shares)
    assert 1 / POOL < shares[0] < 0.7
    assert shares[-1] > 0.8
    needed = noise.replicates_needed()
    assert needed is not None
    assert noise.share_found(needed) >= 0.8 > noise.share_found(needed - 1)
    assert f"{needed} runs per architecture separate the best tenth" in noise.advice()


def test_one_run_is_enough_without_seed_noise() -> None:
    noise = noise_of(study(0.02, 1e-6))
    assert noise.replicates_needed() == 1
    assert noise.overstatement(1000) < 1e-6
    assert noise.advice().startswith("One run per architecture ranks well enough")
    assert noise.advice().endswith("one run per architecture separates the best tenth.")


def test_the_advice_is_to_train_more_when_only_seeds_matter() -> None:
    noise = noise_of(study(1e-6, 0.02))
    assert noise.replicates_needed() is None
    assert noise.share_found(1) == pytest.approx(0.1, abs=0.03)
    assert noise.advice().startswith("Single runs rank poorly here")
    assert f"{MOST_REPLICATES} runs per architecture do not separate" in noise.advice()


def test_the_advice_mentions_a_wide_interval() -> None:
    noise = noise_of(study(0.02, 0.01, architectures=5, seeds=2, seed=3))
    assert noise.correlation.lower < 0.6 <= noise.correlation.value
    assert "the interval reaches down to" in noise.advice()


def test_the_same_study_gives_the_same_answer() -> None:
    first, second = noise_of(study(0.02, 0.01)), noise_of(study(0.02, 0.01))
    assert first.to_json() == second.to_json()
    assert {row["what"] for row in first.rows()} >= {"intraclass correlation", "sd between seeds"}


@pytest.mark.parametrize("runs", [[], [[0.1, 0.2]], [[0.1], [0.2]]])
def test_too_few_runs_are_an_error(runs: list[list[float]]) -> None:
    with pytest.raises(UserError, match="two or more"):
        noise_of(runs)


def test_equal_architectures_are_never_separated() -> None:
    for noise in (noise_of([[0.0, 0.0]] * 4), noise_of([[0.1, 0.3]] * 4)):
        assert noise.share_found(3) == pytest.approx(0.1)
        assert noise.replicates_needed() is None
        assert f"{MOST_REPLICATES} runs per architecture do not separate" in noise.advice()
