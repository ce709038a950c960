"""Contrasts the best networks of a run with its worst: levels, spans, types and lost detail of their blocks."""

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
"""Below so many networks with a result, quarters of them are compared with nothing."""

Feature = Callable[[Genotype], Counter[Any]]


def levels(genotype: Genotype) -> Counter[int]:
    """How many blocks that are built each level has; the stem, which is the same for all, left out."""
    graph = built_graph(genotype)
    return Counter(node.level for node in graph.nodes if node.node >= graph.num_stem)


def kinds(genotype: Genotype) -> Counter[str]:
    """How many blocks of each type are built, the stem left out."""
    graph = built_graph(genotype)
    return Counter(str(node.kind) for node in graph.nodes if node.node >= graph.num_stem)


def spans(genotype: Genotype) -> Counter[int]:
    """How many inputs of built blocks come from how many levels away; +2 is down-sampling to a quarter of the side."""
    graph = built_graph(genotype)
    level = {node.node: node.level for node in graph.nodes}
    return Counter(
        node.level - level[parent] for node in graph.nodes if node.node >= graph.num_stem for parent in node.parents
    )


def detail_lost(genotype: Genotype) -> Counter[int]:
    """By level of the outputs: how many levels coarser the least coarse way from the image to it gets."""
    return Counter(lost_levels(built_graph(genotype)))


@dataclass(frozen=True, slots=True)
class Contrast:
    """A count in the best and in the worst quarter of the networks.

    Attributes:
        category: what is counted.
        best, worst: mean number in a network of that quarter.
        best_half, worst_half: half the width of the 95 % interval of either mean.
    """

    category: Any
    best: float
    worst: float
    best_half: float
    worst_half: float


def contrasts(facts: RunFacts, rows: Sequence[dict[str, Any]], features: Sequence[Feature]) -> list[list[Contrast]]:
    """Compare the networks of the best quarter by mean AP with those of the worst, feature by feature.

    Empty for fewer than FEWEST_NETWORKS networks with a genotype and a result.
    """
    records = facts.by_number()
    genotypes = [records[row["number"]].genotype for row in rows if row["n"] > 0]
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
