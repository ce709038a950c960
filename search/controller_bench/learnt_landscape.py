"""A landscape learnt from a table of trained genotypes, and how well it predicts held-out networks.

The smooth part is a kernel ridge regression on random walks. A walk goes from an output back to the stem and takes each
input of a block with equal probability. The figures are the probabilities of each coarsest level on the walk, by
output; the kernel is their cosine. The predictor's features have the best of all paths, not a mean over them.

The rugged part is a random function as large as the regression's error on held-out networks. It has a figure for each
Weisfeiler-Lehman label of the built network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spinenas.search.controller_bench.landscapes import normal_figures
from spinenas.search.controller_bench.wl_labels import wl_labels
from spinenas.search.studies.measured_curves import measured_curves
from spinenas.space.genotype import MAX_LEVEL, Genotype
from spinenas.space.graph import built_graph
from spinenas.space.random_streams import generator
from spinenas.space.sampling import sample_without_dead_blocks
from spinenas.space.search_space import SearchSpace

Floats = NDArray[np.float64]

RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
NUM_FOLDS = 10

NUM_SPREAD = 100
"""Number of random networks over which the rugged part is scaled. Labels that all of them have do not matter."""

_SIDE = MAX_LEVEL + 1


@dataclass(frozen=True, slots=True)
class Fit:
    """How well held-out networks are predicted in ten-fold cross-validation.

    Attributes:
        num_networks: number of networks in the table.
        r2: share of the variance of the networks' means that is explained; 1 is perfect, 0 no better than the mean.
        kendall: Kendall's tau-b of the ranking.
        ridge: the one of RIDGES with the best r2.
        error: root of the mean squared error, in AP, with the noise of the means.
    """

    num_networks: int
    r2: float
    kendall: float
    ridge: float
    error: float


def table_score(path: Path, number: int, space: SearchSpace) -> Callable[[Genotype], float]:
    """Return a function from a genotype to its AP as learnt from a table. Raises UserError.

    Args:
        path: the table.
        number: number of the landscape. Each except 0 learns from another resample of the table's networks, and each
            has another rugged part.
        space: search space whose genotypes the table must hold.
    """
    walks, means = _training_data(path, space)
    fit = _fit(walks, means)
    kept = np.arange(len(means))
    if number:
        kept = np.sort(generator(number, "landscape/table").integers(len(means), size=len(means)))
    rows = walks[kept]
    middle = float(means[kept].mean())
    dual = np.linalg.solve(rows @ rows.T + fit.ridge * np.eye(len(rows)), means[kept] - middle)
    weights = dual @ rows
    draws = normal_figures(f"table-{number}")

    def rugged_part(genotype: Genotype) -> float:
        labels = wl_labels(genotype)
        norm = math.sqrt(sum(count * count for count in labels.values()))
        return sum(count * draws(label) for label, count in labels.items()) / norm

    rng = generator(number, "landscape/table/spread")
    spread = float(np.std([rugged_part(sample_without_dead_blocks(space, rng)) for _ in range(NUM_SPREAD)]))

    def score(genotype: Genotype) -> float:
        learnt = float(_walks([genotype])[0] @ weights)
        return middle + learnt + fit.error * rugged_part(genotype) / spread

    return score


def measured_fit(path: Path, space: SearchSpace) -> Fit:
    """Return how well the regression predicts held-out networks of the table. Raises UserError."""
    return _fit(*_training_data(path, space))


def _training_data(path: Path, space: SearchSpace) -> tuple[Floats, Floats]:
    """Return the walk figures of a table's networks, and the mean AP of each."""
    networks = measured_curves(path).networks(space, use="a landscape is learnt from").values()
    return _walks([genotype for genotype, _ in networks]), np.array([np.mean(aps) for _, aps in networks])


def _fit(rows: Floats, means: Floats) -> Fit:
    from spinenas.results.stats.rank_correlation import kendall  # scipy

    folds = generator(0, "landscape/folds").permutation(len(means)) % NUM_FOLDS

    def held_out(ridge: float) -> Floats:
        """Predict each network from the other folds."""
        predicted = np.empty(len(means))
        for fold in range(NUM_FOLDS):
            out, kept = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
            middle = means[kept].mean()
            inside = rows[kept] @ rows[kept].T + ridge * np.eye(len(kept))
            predicted[out] = middle + rows[out] @ rows[kept].T @ np.linalg.solve(inside, means[kept] - middle)
        return predicted

    predictions = {ridge: held_out(ridge) for ridge in RIDGES}
    errors = {ridge: float(((predicted - means) ** 2).mean()) for ridge, predicted in predictions.items()}
    ridge, error = min(errors.items(), key=lambda item: item[1])
    predicted = predictions[ridge]
    return Fit(
        len(means), 1 - error / max(float(means.var()), 1e-12), kendall(predicted, means), ridge, math.sqrt(error)
    )


def _walks(genotypes: Sequence[Genotype]) -> Floats:
    """Return probabilities of the coarsest level on a random walk back from each output, (genotypes, figures).

    Rows have norm 1.
    """
    rows = np.zeros((len(genotypes), _SIDE, _SIDE))  # by level of the output and coarsest level
    for row, genotype in zip(rows, genotypes, strict=True):
        graph = built_graph(genotype)
        chances: dict[int, Floats] = {}
        for node in graph.nodes:
            chance = chances[node.node] = np.zeros(_SIDE)
            if node.node < graph.num_stem:
                chance[node.level] = 1.0
                continue
            sources = (*node.parents, *node.merged)
            for source in sources:
                chance += chances[source] / len(sources)
            chance[node.level] = chance[: node.level + 1].sum()
            chance[: node.level] = 0.0
            if node.is_output:
                row[node.level] = chance
    found = rows.reshape(len(genotypes), -1)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found
