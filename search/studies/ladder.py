"""The ladder study: does the task rank architectures as the paper's experiments did?"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spinenas.results.stats.intervals import Spread, pooled_spread, share_interval
from spinenas.results.stats.rank_correlation import kendall
from spinenas.search.config.config import SearchConfig
from spinenas.search.run.run import Run
from spinenas.search.studies.measured_curves import measured_curves
from spinenas.search.studies.study import planned_trainings
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
"""Random architectures of a ladder have SpineNet-49's backbone multiply-adds to within this share."""


@dataclass(frozen=True, slots=True)
class Rung:
    """An architecture whose place the paper gives.

    Attributes:
        name: as the paper has it.
        architecture: what is built.
        published_ap: on COCO val2017, protocol A, 640 px (SpineNet, Figure 4 and section 5.2).
    """

    name: str
    architecture: Architecture
    published_ap: float


def damaged(genotype: Genotype, rule: str) -> Genotype:
    """Leave each block one parent: the nearer one is removed ("short-range"), the farther one ("long-range"), or both
    for the block before it ("sequential") (SpineNet, section 5.2)."""
    num_stem = len(genotype.stem)
    blocks = []
    for node, block in enumerate(genotype.blocks, start=num_stem):
        parent = {"short-range": min(block.parents), "long-range": max(block.parents), "sequential": node - 1}[rule]
        blocks.append(replace(block, parents=(parent,)))
    return replace(genotype, blocks=tuple(blocks))


LADDER = (
    Rung("R50-FPN", Baseline(50), 37.8),
    Rung("R23-SP30", R23_SP30, 39.6),
    Rung("R0-SP53", R0_SP53, 40.7),
    Rung("SpineNet-49", SPINENET_49, 40.8),
    Rung("R0-SP53 without short-range parents", damaged(R0_SP53, "short-range"), 35.6),
    Rung("R0-SP53 without long-range parents", damaged(R0_SP53, "long-range"), 28.6),
    Rung("R0-SP53, sequential", damaged(R0_SP53, "sequential"), 28.2),
)
"""Architectures whose order the paper gives."""


def ladder_architectures(config: SearchConfig, num_random: int) -> list[Architecture]:
    """The ladder, and random genotypes of SpineNet-49's cost. Raises UserError."""
    space, task = space_by_name(config.space.name), config.task
    madds = backbone_cost(SPINENET_49, task.scaling, task.image_size_pixels).madds
    known = {network_key(rung.architecture) for rung in LADDER}
    drawn: dict[str, Architecture] = {}
    number = 0
    while len(drawn) < num_random:
        genotype = sample_in_madds_band(
            space,
            generator(config.seed, "ladder", number),
            scaling=task.scaling,
            image_size=task.image_size_pixels,
            low=(1 - MADDS_BAND) * madds,
            high=(1 + MADDS_BAND) * madds,
        )
        number += 1
        if network_key(genotype) not in known:
            drawn.setdefault(network_key(genotype), genotype)
    return [*(rung.architecture for rung in LADDER), *drawn.values()]


@dataclass(frozen=True, slots=True)
class LadderResult:
    """What a task makes of the paper's order.

    Attributes:
        rows: the rungs, the paper's best first, with the task's figures.
        order: Kendall's tau between the paper's APs and the task's mean APs, over the rungs with a result; None where
            all of these are equal.
        reversed_pairs: pairs of rungs that the task has the other way round, by Student's t (95 %, each pair by itself)
            with the spread of single trainings pooled over all architectures.
        num_random: random genotypes of equal cost with a result; 0 where SpineNet-49 has none.
        num_better: those with a higher mean than SpineNet-49's.
        better_interval: 95 % interval of the share of such genotypes that are better: by Clopper and Pearson, with
            SpineNet-49's mean at either end of its own interval.
    """

    rows: list[dict[str, Any]]
    order: float | None
    reversed_pairs: list[tuple[str, str]]
    num_random: int
    num_better: int
    better_interval: tuple[float, float]


def ladder_result(run: Run) -> LadderResult:
    """Answer a ladder study. Raises UserError."""
    planned_trainings(run)
    found = measured_curves(run.folder.path).aps()
    rungs = sorted((rung for rung in LADDER), key=lambda rung: -rung.published_ap)
    known = {network_key(rung.architecture) for rung in rungs}
    aps = {rung.name: found.get(network_key(rung.architecture), []) for rung in rungs}
    trained = [rung for rung in rungs if aps[rung.name]]
    if len(trained) < 2:
        raise UserError(
            f"{run.folder.path} has results for {len(trained)} rungs of the ladder, which has no order yet; "
            "resume it, or see what failed by `spinenas leaderboard`"
        )
    means = {rung.name: statistics.fmean(aps[rung.name]) for rung in trained}
    spread = pooled_spread(found.values())
    reversed_pairs = [
        (better.name, worse.name)
        for index, better in enumerate(trained)
        for worse in trained[index + 1 :]
        if spread is not None and spread.separates(aps[worse.name], aps[better.name])
    ]
    order = kendall(np.array([rung.published_ap for rung in trained]), np.array([means[rung.name] for rung in trained]))
    randoms = [statistics.fmean(values) for key, values in found.items() if key not in known]
    own = aps["SpineNet-49"]
    if not own:
        randoms = []
    num_better, better_interval = _share_better(randoms, own, spread) if randoms else (0, (0.0, 1.0))
    return LadderResult(
        rows=[
            {
                "architecture": rung.name,
                "paper": rung.published_ap,
                "AP": means.get(rung.name),
                "sd": statistics.stdev(aps[rung.name]) if len(aps[rung.name]) > 1 else None,
                "n": len(aps[rung.name]),
            }
            for rung in rungs
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
    """Return how many of some means are above one's own trainings', and the 95 % interval of the share that is."""
    mean = statistics.fmean(own)
    low, high = (mean, mean) if spread is None else spread.interval(mean, len(own))

    def num_above(bound: float) -> int:
        return sum(other > bound for other in means)

    fewest, most = (share_interval(num_above(bound), len(means)) for bound in (high, low))
    return num_above(mean), (fewest[0], most[1])
