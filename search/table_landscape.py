"""A landscape learnt from a table of really trained genotypes, and how well it foretells what it has not seen.

Kernel ridge regression on Weisfeiler-Lehman labels of the network that is built: a node is its level, kind and role; at
each of two rounds its label takes in those of its inputs; the kernel is how many labels two networks share, each round
scaled to 1 for a network with itself. These are not a predictor's features, which know nothing of such labels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spinenas.results.training_table import read_table
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.graph import built_graph, network_key
from spinenas.space.random_streams import generator
from spinenas.space.search_space import SearchSpace

Floats = NDArray[np.float64]

NUM_ROUNDS = 3
RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0)
NUM_FOLDS = 10
MIN_NETWORKS = 20


@dataclass(frozen=True, slots=True)
class Fit:
    """How well networks left out are foretold, ten-fold: 1 is perfect, 0 no better than the mean.

    Attributes:
        num_networks: in the table.
        r2: share of the variance of networks' means that is explained.
        kendall: tau-b of their order.
        ridge: of RIDGES, the one with the best r2.
    """

    num_networks: int
    r2: float
    kendall: float
    ridge: float


def table_score(path: Path, number: int, space: SearchSpace) -> Callable[[Genotype], float]:
    """Return what a regression on a table expects of a genotype, as an AP. Raises UserError.

    Args:
        path: of the table.
        number: of the landscape; each but 0 learns from another resample of the table's networks.
        space: whose genotypes the table must hold.
    """
    genotypes, means = _networks(path, space)
    ridge = measured_fit(path, space).ridge
    kept = np.arange(len(means))
    if number:
        kept = np.sort(generator(number, "landscape/table").integers(len(means), size=len(means)))
    labels = [_labels(genotypes[place]) for place in kept.tolist()]
    targets = means[kept]
    middle = float(targets.mean())
    weights = np.linalg.solve(_gram(labels, labels) + ridge * np.eye(len(labels)), targets - middle)

    worth: list[dict[str, float]] = []  # of each label, by round: the regression is linear in them
    for number_of_round in range(NUM_ROUNDS):
        total: dict[str, float] = {}
        for weight, rounds in zip(weights.tolist(), labels, strict=True):
            counter = rounds[number_of_round]
            for label, count in counter.items():
                total[label] = total.get(label, 0.0) + weight * count / _norm(counter)
        worth.append(total)

    def score(genotype: Genotype) -> float:
        found = 0.0
        for counter, total in zip(_labels(genotype), worth, strict=True):
            found += sum(count * total.get(label, 0.0) for label, count in counter.items()) / _norm(counter)
        return middle + found / NUM_ROUNDS

    return score


def measured_fit(path: Path, space: SearchSpace) -> Fit:
    """Return how well the regression foretells networks of the table that it was not given. Raises UserError."""
    from spinenas.results.ranks import kendall  # scipy

    genotypes, means = _networks(path, space)
    labels = [_labels(genotype) for genotype in genotypes]
    gram = _gram(labels, labels)
    folds = generator(0, "landscape/folds").permutation(len(means)) % NUM_FOLDS
    best: tuple[float, float, Floats] | None = None
    for ridge in RIDGES:
        foretold = np.empty(len(means))
        for fold in range(NUM_FOLDS):
            out, kept = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
            middle = means[kept].mean()
            inside = gram[np.ix_(kept, kept)] + ridge * np.eye(len(kept))
            foretold[out] = middle + gram[np.ix_(out, kept)] @ np.linalg.solve(inside, means[kept] - middle)
        r2 = 1 - float(((foretold - means) ** 2).sum() / max(float(((means - means.mean()) ** 2).sum()), 1e-12))
        if best is None or r2 > best[0]:
            best = (r2, ridge, foretold)
    assert best is not None
    return Fit(len(means), best[0], kendall(best[2], means), best[1])


def _networks(path: Path, space: SearchSpace) -> tuple[list[Genotype], Floats]:
    """The networks of a table that are of the space, and the mean AP of each."""
    found: dict[str, tuple[Genotype, list[float]]] = {}
    for training in read_table(path).trainings:
        genotype = Genotype.from_text(training.genotype)
        try:
            space.check(genotype)
        except UserError:
            continue  # a published network of another window, say
        found.setdefault(network_key(genotype), (genotype, []))[1].append(training.ap)
    if len(found) < MIN_NETWORKS:
        raise UserError(
            f"{path} has {len(found)} networks of {space.name}; a landscape is learnt from {MIN_NETWORKS} or more"
        )
    return [genotype for genotype, _ in found.values()], np.array([np.mean(aps) for _, aps in found.values()])


def _labels(genotype: Genotype) -> list[Counter[str]]:
    """How often each label occurs, by round."""
    nodes = built_graph(genotype).nodes
    labels = {node.node: f"{node.level}{node.kind}{'o' if node.is_output else ''}" for node in nodes}
    rounds = [Counter(labels.values())]
    for _ in range(NUM_ROUNDS - 1):
        labels = {
            node.node: f"{labels[node.node]}({','.join(sorted(labels[source] for source in node.parents))}"
            f"+{','.join(sorted(labels[source] for source in node.merged))})"
            for node in nodes
        }
        rounds.append(Counter(labels.values()))
    return rounds


def _gram(first: list[list[Counter[str]]], second: list[list[Counter[str]]]) -> Floats:
    """(number of first, number of second)."""
    total = np.zeros((len(first), len(second)))
    for number in range(NUM_ROUNDS):
        names: dict[str, int] = {}
        for rounds in (*first, *second):
            for label in rounds[number]:
                names.setdefault(label, len(names))
        one, two = (_counts([rounds[number] for rounds in each], names) for each in (first, second))
        total += one @ two.T
    return total / NUM_ROUNDS


def _norm(counter: Counter[str]) -> float:
    return math.sqrt(sum(count * count for count in counter.values()))


def _counts(counters: list[Counter[str]], names: dict[str, int]) -> Floats:
    counts = np.zeros((len(counters), len(names)))
    for row, counter in enumerate(counters):
        for label, count in counter.items():
            counts[row, names[label]] = count
    counts /= np.linalg.norm(counts, axis=1, keepdims=True)
    return counts
