from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from shared_fixtures import REPOSITORY

from spinenas.results.record import Evaluation
from spinenas.results.stats.rank_correlation import kendall
from spinenas.results.training_table import read_table
from spinenas.search.controller_bench.curves import NUM_EPOCHS, evaluation_up_to
from spinenas.search.controller_bench.landscapes import FAILURE_SHARE, Landscape, measured, with_crossing_curves
from spinenas.space.graph import network_key
from spinenas.space.random_streams import generator
from spinenas.space.sampling import sample_without_dead_blocks
from spinenas.space.search_space import SearchSpace

SPACE = SearchSpace.spinenet49()
NOISE = 0.125
"""That of the table: seeds have a fifth of the spread of the networks near the top."""

TABLE = REPOSITORY / "benchmarks/tables/digits.csv.gz"


def landscape_of(values):
    """Networks, and a landscape that gives them these values."""
    rng = generator(1, "test")
    genotypes = [sample_without_dead_blocks(SPACE, rng) for _ in values]
    by_key = dict(zip(map(network_key, genotypes), values, strict=True))
    landscape = Landscape("test", SPACE, lambda genotype: by_key[network_key(genotype)])
    object.__setattr__(landscape, "_reference", (0.0, 1.0))
    return genotypes, landscape


def curves(values, noise=NOISE):
    """APs by epoch of one training of each network, without failures, and the values of these networks."""
    genotypes, landscape = landscape_of(values)
    results = [landscape.train(genotype, 0, seed=0, noise=noise) for genotype in genotypes]
    kept = [place for place, result in enumerate(results) if isinstance(result, Evaluation)]
    return np.array([[ap for _, ap in results[place].by_epoch] for place in kept]), np.array(values)[kept]


RANDOM = generator(0, "test").normal(size=1500)
BEST = 2 + 0.19 * generator(1, "test").normal(size=1500)


def test_curves_of_good_networks_have_the_medians_of_the_table():
    aps, _ = curves(BEST)
    shares = np.median(aps, axis=0) / np.median(aps[:, -1])
    table = [training for training in read_table(TABLE).trainings if training.ap > 0.09]
    recorded = np.median([training.ap_by_epoch for training in table], axis=0)
    assert shares == pytest.approx(recorded / recorded[-1], abs=0.02)


def recorded_correlations(origin):
    """Correlation of a single training's AP after each epoch with the network's true final mean, in the table."""
    networks = defaultdict(list)
    for training in read_table(TABLE).trainings:
        if training.origin == origin:
            networks[training.network_key].append(training.ap_by_epoch)
    aps = np.array(list(networks.values()))  # (networks, seeds, epochs)
    num_networks, num_seeds, _ = aps.shape
    deviations = (aps - aps.mean(axis=1, keepdims=True)).reshape(-1, NUM_EPOCHS)
    within = deviations.T @ deviations / (num_networks * (num_seeds - 1))
    between = np.cov(aps.mean(axis=1).T) - within / num_seeds
    return between[:, -1] / np.sqrt((between + within).diagonal() * between[-1, -1])


@pytest.mark.parametrize(("origin", "values"), [("random", RANDOM), ("mutants", BEST)])
def test_single_trainings_stopped_early_correlate_with_final_means_as_in_the_table(origin, values):
    aps, truth = curves(values)
    found = [np.corrcoef(aps[:, epoch], np.maximum(truth, -2))[0, 1] for epoch in range(NUM_EPOCHS)]
    assert found == pytest.approx(recorded_correlations(origin), abs=0.05)


def test_the_end_of_a_curve_is_what_a_whole_training_measures():
    genotypes, landscape = landscape_of(RANDOM[:200])
    for genotype, value in zip(genotypes, RANDOM, strict=False):
        rng = generator(3, f"bench/noise/test/{network_key(genotype)}", 1)
        alone = measured(value, noise=0.35, rng=rng)
        result = landscape.train(genotype, 1, seed=3, noise=0.35)
        assert type(result) is type(alone)
        if isinstance(alone, Evaluation):
            assert result.objective == alone.objective


def test_a_paused_training_has_the_first_epochs_of_the_whole_one_or_fails_in_one_of_them():
    genotypes, landscape = landscape_of(np.zeros(400))
    failed = np.zeros(NUM_EPOCHS + 1)
    for genotype in genotypes:
        results = [landscape.train(genotype, 0, seed=0, noise=0.35, until=until) for until in (1, 2, 3, 4, None)]
        for epoch, (result, later) in enumerate(pairwise(results), start=1):
            if isinstance(later, Evaluation):
                assert result.by_epoch == later.by_epoch[:epoch]
                assert (result.stopped_after, result.objective) == (epoch, result.by_epoch[-1][1])
            failed[epoch] += not isinstance(result, Evaluation)
        failed[NUM_EPOCHS] += not isinstance(results[-1], Evaluation)
        assert results[-1].stopped_after is None if isinstance(results[-1], Evaluation) else True
    assert list(failed) == sorted(failed)
    assert failed[1] < failed[3] < failed[NUM_EPOCHS] < 2 * FAILURE_SHARE * len(genotypes)


def test_no_ap_is_negative():
    aps, _ = curves(np.full(300, -1.9), noise=0.6)
    assert aps.min() == 0.0


def test_a_few_networks_start_slowly_in_every_training_and_catch_up():
    genotypes, landscape = landscape_of(np.full(400, 2.0))
    results = [[landscape.train(genotype, 0, seed=seed, noise=0.0) for seed in range(2)] for genotype in genotypes]
    aps = np.array([[result.by_epoch for result in pair] for pair in results
                    if all(isinstance(result, Evaluation) for result in pair)])[..., 1]  # fmt: skip
    assert (aps[:, 0] == aps[:, 1]).all()
    slow = aps[:, 0, 0] < np.median(aps[:, 0, 0])
    assert 0.01 < slow.mean() < 0.08
    assert (aps[slow, 0, 1] < 0.8 * np.median(aps[:, 0, 1])).all()
    assert np.ptp(aps[:, 0, 2:], axis=0) == pytest.approx([0, 0, 0], abs=1e-12)


def test_where_curves_cross_the_order_after_three_epochs_hardly_agrees_with_the_last():
    genotypes, landscape = landscape_of(RANDOM[:400])
    crossed = with_crossing_curves(landscape, 1)
    object.__setattr__(crossed, "_reference", (0.0, 1.0))
    for each, low, high in ((landscape, 0.95, 1.0), (crossed, 0.3, 0.5)):
        results = [each.train(genotype, 0, seed=0, noise=0.0) for genotype in genotypes]
        aps = np.array([result.by_epoch for result in results if isinstance(result, Evaluation)])[..., 1]
        assert low < kendall(aps[:, 2], aps[:, 4]) <= high
    finals = [each.train(genotypes[0], 0, seed=0, noise=0.35).objective for each in (landscape, crossed)]
    assert finals[0] == finals[1]


def test_a_pause_after_the_last_epoch_is_the_end():
    assert evaluation_up_to(3, [0.1, 0.2, 0.3]) == evaluation_up_to(None, [0.1, 0.2, 0.3])
    assert evaluation_up_to(2, [0.1, 0.2, 0.3]).stopped_after == 2
