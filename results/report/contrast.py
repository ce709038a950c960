"""Compares the best quarter of a run's networks with the worst: levels, spans, types and lost detail of blocks."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from spinenas.results.report.facts import RunFacts
from spinenas.space.genotype import Genotype
from spinenas.space.graph import built_graph, lost_levels

FEWEST_NETWORKS = 12
"""Quarters are compared from this many networks with a result."""

Feature = Callable[[Genotype], Counter[Any]]


def levels(genotype: Genotype) -> Counter[int]:
    """Count built blocks by level, without the stem, which all networks share."""
    graph = built_graph(genotype)
    return Counter(node.level for node in graph.nodes if node.node >= graph.num_stem)


def kinds(genotype: Genotype) -> Counter[str]:
    """Count built blocks by type, without the stem."""
    graph = built_graph(genotype)
    return Counter(str(node.kind) for node in graph.nodes if node.node >= graph.num_stem)


def spans(genotype: Genotype) -> Counter[int]:
    """Count inputs of built blocks by level difference; +2 downsamples to a quarter of the side length."""
    graph = built_graph(genotype)
    level = {node.node: node.level for node in graph.nodes}
    return Counter(
        node.level - level[parent] for node in graph.nodes if node.node >= graph.num_stem for parent in node.parents
    )


def detail_lost(genotype: Genotype) -> Counter[int]:
    """Return, by output level, how many levels coarser the finest path from the image to that output gets."""
    return Counter(lost_levels(built_graph(genotype)))


@dataclass(frozen=True, slots=True)
class Contrast:
    """Mean count of one category in the best and the worst quarter of the networks.

    Attributes:
        category: the level, type or span that is counted.
        best, worst: mean count per network.
        best_half, worst_half: half the width of each mean's 95 % interval.
    """

    category: Any
    best: float
    worst: float
    best_half: float
    worst_half: float


def contrasts(facts: RunFacts, features: Sequence[Feature]) -> list[list[Contrast]]:
    """Compare the best quarter of the networks, by mean AP, with the worst, feature by feature.

    Of a search that pauses trainings, networks without a complete training count by what is predicted of them.
    The result is empty for fewer than FEWEST_NETWORKS networks with a genotype and a result.
    """
    genotypes = [
        facts.by_number[row["number"]].genotype
        for row in facts.rows
        if row["n"] > 0 or (facts.num_epochs is not None and row["epochs_seen"] is not None)
    ]
    known = [genotype for genotype in genotypes if genotype is not None]  # best first
    if len(known) < FEWEST_NETWORKS:
        return []
    quarter = len(known) // 4
    return [
        _contrast([feature(g) for g in known[:quarter]], [feature(g) for g in known[-quarter:]]) for feature in features
    ]


def _contrast(best: Sequence[Counter[Any]], worst: Sequence[Counter[Any]]) -> list[Contrast]:
    found = []
    for category in sorted({category for counts in (*best, *worst) for category in counts}):
        of_best, of_worst = ([counts[category] for counts in group] for group in (best, worst))
        found.append(
            Contrast(category, statistics.fmean(of_best), statistics.fmean(of_worst), _half(of_best), _half(of_worst))
        )
    return found


def _half(counts: Sequence[int]) -> float:
    return 1.96 * statistics.stdev(counts) / math.sqrt(len(counts)) if len(counts) > 1 else 0.0
