from __future__ import annotations

import numpy as np
import pytest

from spinenas.results.record import Evaluation, FailureKind
from spinenas.search.controller_bench.landscapes import FAMILIES, make_landscape, measured
from spinenas.space.errors import UserError
from spinenas.space.graph import network_key
from spinenas.space.sampling import sample_without_dead_blocks
from spinenas.space.search_space import SearchSpace

SPACE = SearchSpace.spinenet49()
GOLDEN = [-0.9122247021, 1.1865065919, 1.0000530043]
every_family = pytest.mark.parametrize("family", FAMILIES)


def networks(count: int, seed: int = 5):
    rng = np.random.default_rng(seed)
    return [sample_without_dead_blocks(SPACE, rng) for _ in range(count)]


@every_family
def test_values_are_in_standard_deviations_over_random_networks(family):
    landscape = make_landscape(family, 1, SPACE)
    values = [landscape.value(genotype) for genotype in networks(300)]
    assert np.mean(values) == pytest.approx(0.0, abs=0.25)
    assert np.std(values) == pytest.approx(1.0, abs=0.15)


@every_family
def test_a_landscape_is_the_same_again_and_each_number_another_one(family):
    genotypes = networks(60)
    landscapes = [make_landscape(family, number, SPACE) for number in (1, 1, 2)]
    first, again, other = ([landscape.value(genotype) for genotype in genotypes] for landscape in landscapes)
    assert first == again
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.6


def test_the_values_of_three_landscapes_never_change():
    """A stopped comparison continues later, so a landscape's number must keep its meaning."""
    genotype = networks(1)[0]
    values = [make_landscape(family, 7, SPACE).value(genotype) for family in ("edges", "nk", "flow")]
    assert values == pytest.approx(GOLDEN, abs=1e-9)


def test_nk_depends_on_the_built_network_alone():
    landscape = make_landscape("nk", 0, SearchSpace.tiny())
    values: dict[str, set[float]] = {}
    for genotype in list(SearchSpace.tiny().enumerate())[::7]:
        values.setdefault(network_key(genotype), set()).add(round(landscape.value(genotype), 9))
    assert all(len(found) == 1 for found in values.values())
    assert len(values) > 100


def test_trainings_have_the_given_noise_are_never_negative_and_one_in_twenty_fails():
    rng = np.random.default_rng(0)
    results = [measured(0.0, noise=0.6, rng=rng) for _ in range(4000)]
    objectives = np.array([result.objective for result in results if isinstance(result, Evaluation)])
    assert objectives.mean() == pytest.approx(0.1, abs=0.003)
    assert objectives.std() == pytest.approx(0.03, abs=0.003)
    failures = [result.kind for result in results if not isinstance(result, Evaluation)]
    assert 0.04 < len(failures) / len(results) < 0.06
    assert set(failures) == {FailureKind.DIVERGED, FailureKind.WORKER_LOST}
    low, high = (
        [r.objective for r in (measured(value, noise=0.6, rng=rng) for _ in range(500)) if isinstance(r, Evaluation)]
        for value in (-2.2, 3.0)
    )
    assert min(low) == 0.0
    assert np.std(high) > 2 * np.std(low)


def test_an_unknown_family_is_one_clear_sentence():
    with pytest.raises(UserError, match="'nkk' is unknown; did you mean 'nk'"):
        make_landscape("nkk", 0, SPACE)
