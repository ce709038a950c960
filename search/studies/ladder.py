"""The ladder study: compares the task's ranking of architectures with the paper's.

The paper's APs of R0-SP53 with removed parents were not checked against its table.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np

from spinenas.results.stats.intervals import Spread, pooled_spread, share_interval
from spinenas.results.stats.rank_correlation import kendall
from spinenas.search.config.config import SearchConfig
from spinenas.search.run.run import Run
from spinenas.search.studies.measured_curves import measured_curves
from spinenas.search.studies.study import different_networks, study_plan
from spinenas.space.baseline import Architecture, Baseline
from spinenas.space.cost import backbone_cost
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key
from spinenas.space.published import R0_SP53, R23_SP30, SPINENET_49
from spinenas.space.random_streams import generator
from spinenas.space.sampling import sample_in_madds_band
from spinenas.space.search_space import space_by_name

MADDS_BAND = 0.1
"""Relative tolerance of the backbone multiply-adds of random genotypes around SpineNet-49's."""


@dataclass(frozen=True, slots=True)
class RankedArchitecture:
    """An architecture with a published AP.

    Attributes:
        name: name in the paper.
        architecture: the architecture to train.
        published_ap: on COCO val2017, protocol A, 640 px (SpineNet, Figure 4 and section 5.2).
        is_checked: whether the AP was checked against the paper.
    """

    name: str
    architecture: Architecture
    published_ap: float
    is_checked: bool = True


def damaged(genotype: Genotype, rule: str) -> Genotype:
    """Return a genotype in which each block has one parent (graph damage; SpineNet, section 5.2).

    Args:
        genotype: the graph to damage.
        rule: "short-range" removes the nearer parent, "long-range" the farther one; "sequential" replaces both by the
            preceding block.
    """
    num_stem = len(genotype.stem)
    blocks = []
    for node, block in enumerate(genotype.blocks, start=num_stem):
        parent = {"short-range": min(block.parents), "long-range": max(block.parents), "sequential": node - 1}[rule]
        blocks.append(replace(block, parents=(parent,)))
    return replace(genotype, blocks=tuple(blocks))


LADDER = (
    RankedArchitecture("R50-FPN", Baseline(50), 37.8),
    RankedArchitecture("R23-SP30", R23_SP30, 39.6),
    RankedArchitecture("R0-SP53", R0_SP53, 40.7),
    RankedArchitecture("SpineNet-49", SPINENET_49, 40.8),
    RankedArchitecture("R0-SP53 without short-range parents", damaged(R0_SP53, "short-range"), 35.6, is_checked=False),
    RankedArchitecture("R0-SP53 without long-range parents", damaged(R0_SP53, "long-range"), 28.6, is_checked=False),
    RankedArchitecture("R0-SP53, sequential", damaged(R0_SP53, "sequential"), 28.2, is_checked=False),
)
"""Architectures that the paper ranks.

The APs of R0-SP53 with removed parents could not be checked against the paper's table. The text of section 5.2 supports
their order only: the last two rules hurt far more than the first.
"""


def ladder_architectures(config: SearchConfig, num_random: int) -> list[Architecture]:
    """Return the ladder, followed by random genotypes of SpineNet-49's cost. Raises UserError."""
    space, task = space_by_name(config.space.name), config.task
    madds = backbone_cost(SPINENET_49, task.scaling, task.image_size_pixels).madds
    drawn = (
        sample_in_madds_band(
            space,
            generator(config.seed, "ladder", number),
            scaling=task.scaling,
            image_size=task.image_size_pixels,
            low=(1 - MADDS_BAND) * madds,
            high=(1 + MADDS_BAND) * madds,
        )
        for number in count()
    )
    known = {network_key(entry.architecture) for entry in LADDER}
    return [*(entry.architecture for entry in LADDER), *different_networks(drawn, num_random, known)]


@dataclass(frozen=True, slots=True)
class LadderResult:
    """The task's ranking of the ladder beside the paper's.

    Attributes:
        rows: table rows of the ladder, the paper's best first, with the task's figures.
        order: Kendall's tau between the paper's APs and the task's mean APs, over architectures with a result; None if
            all mean APs are equal.
        reversed_pairs: names of pairs that the task ranks the other way round, by Student's t (95 % for each pair) with
            the spread of single trainings pooled over all architectures.
        num_random: number of random genotypes of equal cost with a result; 0 if SpineNet-49 has none.
        num_better: number of these with a higher mean AP than SpineNet-49.
        better_interval: 95 % interval of the share of such genotypes that are better: Clopper and Pearson, evaluated
            at both ends of the interval of SpineNet-49's mean.
    """

    rows: list[dict[str, Any]]
    order: float | None
    reversed_pairs: list[tuple[str, str]]
    num_random: int
    num_better: int
    better_interval: tuple[float, float]


def ladder_result(run: Run) -> LadderResult:
    """Evaluate a ladder study. Raises UserError."""
    study_plan(run)
    found = measured_curves(run.folder.path).aps()
    ranked = sorted(LADDER, key=lambda entry: -entry.published_ap)
    known = {network_key(entry.architecture) for entry in ranked}
    aps = {entry.name: found.get(network_key(entry.architecture), []) for entry in ranked}
    trained = [entry for entry in ranked if aps[entry.name]]
    if len(trained) < 2:
        raise UserError(
            f"{run.folder.path} has results for {len(trained)} architectures of the ladder, which is no ranking; "
            "resume it, or list the failures with `spinenas leaderboard`"
        )
    means = {entry.name: statistics.fmean(aps[entry.name]) for entry in trained}
    spread = pooled_spread(found.values())
    reversed_pairs = [
        (better.name, worse.name)
        for index, better in enumerate(trained)
        for worse in trained[index + 1 :]
        if spread is not None and spread.separates(aps[worse.name], aps[better.name])
    ]
    order = kendall(
        np.array([entry.published_ap for entry in trained]), np.array([means[entry.name] for entry in trained])
    )
    own = aps["SpineNet-49"]
    randoms = [statistics.fmean(values) for key, values in found.items() if own and key not in known]
    num_better, better_interval = _share_better(randoms, own, spread) if randoms else (0, (0.0, 1.0))
    return LadderResult(
        rows=[
            {
                "architecture": entry.name,
                "paper": entry.published_ap,
                "AP": means.get(entry.name),
                "sd": statistics.stdev(aps[entry.name]) if len(aps[entry.name]) > 1 else None,
                "n": len(aps[entry.name]),
            }
            for entry in ranked
        ],
        order=None if np.isnan(order) else order,
        reversed_pairs=reversed_pairs,
        num_random=len(randoms),
        num_better=num_better,
        better_interval=better_interval,
    )


def _share_better(
    means: Sequence[float], own: Sequence[float], spread: Spread | None
) -> tuple[int, tuple[float, float]]:
    """Return how many means are above SpineNet-49's mean, and the 95 % interval of their share.

    Args:
        means: mean APs of random genotypes.
        own: APs of SpineNet-49's trainings.
        spread: of single trainings; None if unknown.
    """
    mean = statistics.fmean(own)
    low, high = (mean, mean) if spread is None else spread.interval(mean, len(own))

    def num_above(bound: float) -> int:
        return sum(other > bound for other in means)

    fewest, most = (share_interval(num_above(bound), len(means)) for bound in (high, low))
    return num_above(mean), (fewest[0], most[1])
