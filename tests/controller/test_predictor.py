from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from spinenas.controller.calibration import Calibration
from spinenas.controller.ledger import Candidate
from spinenas.controller.predictor import gaussian_process as module
from spinenas.controller.predictor.features import Features
from spinenas.controller.predictor.gaussian_process import Predictor
from spinenas.controller.predictor.prior import expectation_of
from spinenas.controller.predictor.screening import best_candidates
from spinenas.results.foretold import END
from spinenas.space.graph import network_key
from spinenas.space.published import SPINENET_49
from spinenas.space.sampling import sample_without_dead_blocks
from spinenas.space.search_space import SearchSpace

SPACE = SearchSpace.spinenet49()


class Taught(Predictor):
    """A predictor that is taught one result at a time."""

    def teach(self, genotype, objective: float) -> None:
        self.__dict__.setdefault("calibration", Calibration())
        self.calibration.add(network_key(genotype), self.num_results, {END: objective})
        self.learn(genotype, self.calibration.estimates)


def objective(genotype) -> float:
    """An AP that falls with the number of connections across two or more levels."""
    levels = [stem.level for stem in genotype.stem] + [block.level for block in genotype.blocks]
    jumps = sum(abs(levels[parent] - block.level) >= 2 for block in genotype.blocks for parent in block.parents)
    return 0.5 - 0.01 * jumps


def networks(count: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    return [sample_without_dead_blocks(SPACE, rng) for _ in range(count)]


def trained(genotypes, seed: int = 0) -> Taught:
    rng = np.random.default_rng(seed)
    predictor = Taught(SPACE)
    for genotype in genotypes:
        predictor.teach(genotype, objective(genotype) + 0.005 * rng.normal())
    return predictor


def test_random_networks_are_equally_far_apart_in_every_group_of_features():
    features = Features(SPACE)
    rows = features(networks(400, seed=3))
    for where in features.groups.values():
        assert rows[:, where].var(axis=0).sum() == pytest.approx(1.0, abs=0.25)


def test_each_genotype_has_distinct_features():
    rows = Features(SPACE)([SPINENET_49, *networks(50)])
    assert len(np.unique(rows, axis=0)) == 51
    assert np.isfinite(rows).all()


@pytest.mark.parametrize("space", [SearchSpace.tiny(), SearchSpace.r0_sp53(), SearchSpace.spinenet49(window=None)])
def test_every_space_has_features(space):
    rng = np.random.default_rng(0)
    assert np.isfinite(Features(space)([space.sample(rng) for _ in range(20)])).all()


def test_predictions_rank_networks_that_were_not_trained():
    known, new = networks(120), networks(100, seed=1)
    predicted = trained(known).predict(new)
    truth = [objective(genotype) for genotype in new]
    assert kendalltau(predicted.mean, truth).statistic > 0.5
    inside = np.abs(predicted.mean - truth) < 2 * predicted.std
    assert inside.mean() > 0.7
    assert predicted.std.max() < 0.1


def test_uncertainty_is_smaller_for_trained_networks():
    known = networks(60)
    predictor = trained(known)
    assert predictor.predict(known).std.mean() < 0.8 * predictor.predict(networks(60, seed=1)).std.mean()


def test_a_second_result_of_a_network_counts_towards_its_mean():
    known = networks(30)
    once, twice = trained(known), trained(known)
    twice.teach(known[0], objective(known[0]) + 0.2)
    once.teach(known[0], objective(known[0]) - 0.2)
    assert twice.predict([known[0]]).mean[0] > once.predict([known[0]]).mean[0] + 0.005


def test_equal_results_are_predicted_as_they_are():
    predictor = Taught(SPACE)
    for genotype in networks(40):
        predictor.teach(genotype, 0.0)
    predicted = predictor.predict(networks(5, seed=1))
    np.testing.assert_allclose(predicted.mean, 0.0, atol=1e-9)
    assert np.isfinite(predicted.std).all()


def test_no_more_is_kept_than_costs_nothing_and_the_better_half_stays(monkeypatch):
    monkeypatch.setattr(module, "NUM_KEPT", 20)
    genotypes = networks(80)
    predictor = Taught(SPACE)
    for number, genotype in enumerate(genotypes):
        predictor.teach(genotype, 0.9 if number in (0, 5, 9) else 0.1 + number * 1e-4)
    assert len(predictor._known) == 20
    assert {network_key(genotypes[number]) for number in (0, 5, 9, 79)} <= predictor._known.keys()
    # No trace of dropped networks or earlier kernels remains.
    incremental = predictor.predict(genotypes).mean
    predictor._update_rows(0)
    predictor._posterior = None
    np.testing.assert_allclose(predictor.predict(genotypes).mean, incremental, atol=1e-9)


def test_candidates_are_ranked_by_prediction_and_listed_once():
    predictor = trained(networks(100))
    candidates = [Candidate(genotype, "x") for genotype in networks(100, seed=2)]
    best = best_candidates([*candidates, *candidates], predictor, ucb_coefficient=0.0, rng=np.random.default_rng(0))
    assert len(best) == 100
    predicted = [candidate.info["predicted"] for candidate in best]
    assert predicted == sorted(predicted, reverse=True)
    first, last = best[:20], best[-20:]
    assert np.mean([objective(c.genotype) for c in first]) > np.mean([objective(c.genotype) for c in last]) + 0.02
    exploring = best_candidates(candidates, predictor, ucb_coefficient=1000.0, rng=np.random.default_rng(0))
    assert exploring[0].genotype != best[0].genotype
    assert best_candidates([], predictor, ucb_coefficient=1.0, rng=np.random.default_rng(0)) == []


def lessons(scrambled_by: int | None = None):
    """Results of another task, whose APs are twice as high; or the same, exchanged among the networks."""
    genotypes = networks(60, seed=7)
    aps = np.array([2 * objective(genotype) - 0.3 for genotype in genotypes])
    if scrambled_by is not None:
        aps = np.random.default_rng(scrambled_by).permutation(aps)
    return [(genotype.text, float(ap)) for genotype, ap in zip(genotypes, aps, strict=True)]


def rank_correlations(expectation, counts) -> list[float]:
    """Medians of Kendall's tau on new networks after so many results, over six orders."""
    new = networks(80, seed=1)
    truth = [objective(genotype) for genotype in new]
    found = []
    for seed in range(6):
        predictor = Taught(SPACE, expectation)
        taus = []
        for count, genotype in enumerate(networks(max(counts), seed=20 + seed), start=1):
            predictor.teach(genotype, objective(genotype) + 0.005 * np.random.default_rng(seed + count).normal())
            if count in counts:
                taus.append(kendalltau(predictor.predict(new).mean, truth).statistic)
        found.append(taus)
    return np.median(found, axis=0).tolist()


def test_a_prior_ranks_networks_when_few_have_results_and_a_scrambled_one_is_soon_ignored():
    none = rank_correlations(None, (5, 15))
    good = rank_correlations(expectation_of(lessons(), SPACE), (5, 15))
    bad = rank_correlations(expectation_of(lessons(scrambled_by=3), SPACE), (5, 15))
    assert good[0] > none[0] + 0.15
    assert good[1] > none[1] - 0.02
    assert bad[1] > none[1] - 0.06


def test_a_prior_ranks_networks_before_any_result():
    predictor, new = Predictor(SPACE, expectation_of(lessons(), SPACE)), networks(80, seed=1)
    assert kendalltau(predictor.expected(new), [objective(genotype) for genotype in new]).statistic > 0.4
    assert predictor.prior_weight > 0
    assert Predictor(SPACE).prior_weight == 0


def test_a_prior_says_how_many_standard_deviations_better_than_random_a_network_is():
    expected = Predictor(SPACE, expectation_of(lessons(), SPACE)).expected(networks(300, seed=9))
    assert abs(expected.mean()) < 0.3
    assert expected.std() == pytest.approx(1.0, abs=0.3)


def test_with_a_weight_of_0_the_predictor_is_the_one_without_a_prior_to_the_last_digit(monkeypatch):
    new = networks(30, seed=1)
    without = trained(networks(40)).predict(new)
    monkeypatch.setattr(module, "PRIOR_WEIGHTS", (0.0,))
    monkeypatch.setattr(module, "FIRST_PRIOR_WEIGHT", 0.0)
    predictor = Taught(SPACE, expectation_of(lessons(), SPACE))
    rng = np.random.default_rng(0)
    for genotype in networks(40):
        predictor.teach(genotype, objective(genotype) + 0.005 * rng.normal())
    assert predictor.prior_weight == 0
    np.testing.assert_array_equal(predictor.predict(new), without)


def test_the_weight_of_a_prior_follows_the_results():
    good, bad = expectation_of(lessons(), SPACE), expectation_of(lessons(scrambled_by=3), SPACE)
    weights = []
    for expectation in (good, bad):
        predictor = Taught(SPACE, expectation)
        for genotype in networks(30):
            predictor.teach(genotype, objective(genotype))
        weights.append(predictor.prior_weight)
    assert weights[0] >= 0.5
    assert weights[1] <= 0.25
