from __future__ import annotations

import numpy as np
import pytest

from spinenas.results.training_table import Training, write_table
from spinenas.search.controller_bench.learnt_landscape import measured_fit, table_score
from spinenas.space.errors import UserError
from spinenas.space.graph import built_graph, network_key, path_figures
from spinenas.space.sampling import sample_without_dead_blocks
from spinenas.space.search_space import SearchSpace

SPACE = SearchSpace.spinenet49()


def quality(genotype) -> float:
    """AP falls with the coarsest level on the best path to the finest output."""
    return 0.2 - 0.03 * (path_figures(built_graph(genotype))[3].coarsest - 3)


def networks(count: int, seed: int):
    rng = np.random.default_rng(seed)
    return [sample_without_dead_blocks(SPACE, rng) for _ in range(count)]


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(1)
    trainings = [
        Training(genotype.text, network_key(genotype), replicate, replicate, "random",
                 quality(genotype) + 0.005 * rng.normal(), (0.1,), (1.0,), 1, 1, 1.0, 1.0)
        for genotype in networks(90, seed=0)
        for replicate in range(2)
    ]  # fmt: skip
    path = tmp_path / "table.csv.gz"
    write_table(path, {"space": SPACE.name, "data": {}}, trainings)
    return path


def test_it_learns_from_the_table_and_measures_its_fit(table):
    fit = measured_fit(table, SPACE)
    assert fit.num_networks == 90
    assert 0.4 < fit.r2 < 1
    assert 0.4 < fit.kendall < 1
    new = networks(60, seed=7)
    score = table_score(table, 0, SPACE)
    truth = [quality(genotype) for genotype in new]
    learnt = [score(genotype) for genotype in new]
    assert np.corrcoef(learnt, truth)[0, 1] > 0.5
    unexplained = np.var(learnt) + np.var(truth) - 2 * np.cov(learnt, truth)[0, 1]
    assert fit.error**2 / 2 < unexplained < 4 * fit.error**2  # its own error, and a rugged part of that size


def test_each_number_is_another_landscape_and_always_the_same(table):
    new = networks(10, seed=7)
    zero, one, again = ([table_score(table, number, SPACE)(genotype) for genotype in new] for number in (0, 1, 1))
    assert one == again
    assert zero != one


def test_a_table_without_enough_of_the_space_is_one_clear_sentence(table):
    with pytest.raises(UserError, match="has 0 networks of tiny; a landscape is learnt from 20 or more"):
        table_score(table, 0, SearchSpace.tiny())
