"""Studies of a proxy task: planned trainings as an ordinary run, which is resumed as any, and what they say.

`noise`: how much of a result is the seed. `ladder`: does the task see what the paper saw. What a cheaper fidelity or
stopping early would do is in `fidelities.py`.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spinenas.results.record import Stage
from spinenas.results.stats.intervals import Spread, pooled_spread
from spinenas.results.stats.intraclass import share_interval
from spinenas.results.stats.noise import Noise, noise_of
from spinenas.results.stats.rank_correlation import kendall
from spinenas.search.config import HalvingConfig, SearchConfig
from spinenas.search.constraints import ConstraintsConfig
from spinenas.search.controller_config import ControllerConfig, PlanConfig
from spinenas.search.driver import Display
from spinenas.search.executor import Task
from spinenas.search.loop import CONFIGURED_IN_PYTHON, search_or_resume
from spinenas.search.measured_curves import measured_curves
from spinenas.search.objective import ObjectiveConfig
from spinenas.search.run import Run
from spinenas.space.baseline import Architecture, Baseline
from spinenas.space.cost import backbone_cost
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.graph import dead_blocks, network_key
from spinenas.space.mutate import random_edit
from spinenas.space.published import R0_SP53, R23_SP30, SPINENET_49
from spinenas.space.random_streams import generator
from spinenas.space.sampling import sample_in_madds_band, sample_without_dead_blocks
from spinenas.space.search_space import SearchSpace, space_by_name

MOST_EDITS = 3
"""A mutant of a study's best differs from its parent by 1, 2, ... so many edits, in turn."""

MADDS_BAND = 0.1
"""Random architectures of a ladder have SpineNet-49's backbone multiply-adds to within this share."""


def run_study(
    config: SearchConfig,
    architectures: Sequence[Architecture],
    seeds: int,
    *,
    out: Path,
    stage: Stage = Stage.SEARCH,
    task: Task | None = None,
    display: Display | None = None,
) -> Run:
    """Train all architectures with all seeds, or go on with it. Raises UserError.

    Args:
        config: its task, executor and seed count; who proposes does not.
        architectures: trained in this order, all of them with one seed before any with the next.
        seeds: trainings of each.
        out: the folder of the run.
        stage: what they are for; VALIDATE keeps detections on val too (`validating_task.py`).
        task: what measures an architecture; None for the proxy task of the configuration.
        display: who watches.
    """
    plan = PlanConfig(tuple(architecture.text for architecture in architectures), seeds, str(stage))
    planned = replace(
        config,
        controller=ControllerConfig(name="plan", plan=plan),
        budget=replace(config.budget, num_trials=len(architectures) * seeds, replicate_share=0.0),
        constraints=ConstraintsConfig(),
        objective=ObjectiveConfig(),
        halving=HalvingConfig(),  # what a study says of whole trainings must come from whole ones
    )
    return search_or_resume(planned, out=out, task=task, display=display, config_toml=CONFIGURED_IN_PYTHON)


def random_architectures(space: SearchSpace, count: int, seed: int) -> list[Genotype]:
    """SpineNet-49, where the space has it, and random ones without dead blocks, no network twice; a larger count
    begins with the same ones. Raises UserError."""
    chosen = {network_key(SPINENET_49): SPINENET_49} if space.contains(SPINENET_49) else {}
    for number in range(10 * count):
        if len(chosen) >= count:
            break
        genotype = sample_without_dead_blocks(space, generator(seed, "study", number))
        chosen.setdefault(network_key(genotype), genotype)
    if len(chosen) < count:
        raise UserError(f"the space {space.name!r} gives {len(chosen)} different networks, not {count}; ask for fewer")
    return list(chosen.values())[:count]


def mutants_of_best(path: Path, count: int, seed: int) -> list[Genotype]:
    """Return edits of the best tenth of a run's or a table's networks, at least two, by mean AP: where searches end.

    Published networks of another space have no part in it. None has a dead block, is one of those with a result or one
    of the others; a larger count begins with the same ones. Raises UserError.
    """
    trained = measured_curves(path)
    genotypes, aps = trained.genotypes(), trained.aps()
    of_space = [key for key, genotype in genotypes.items() if trained.space.contains(genotype)]
    ranked = sorted(of_space, key=lambda key: -statistics.fmean(aps[key]))
    parents = [genotypes[key] for key in ranked[: max(2, len(ranked) // 10)]]
    if not parents:
        raise UserError(f"{path} has no result of a genotype of {trained.space.name}; give a run that has")
    chosen: dict[str, Genotype] = {}
    for number in range(100 * count):
        if len(chosen) >= count:
            break
        rng = generator(seed, "mutants", number)
        genotype = parents[number % len(parents)]
        for _ in range(1 + number // len(parents) % MOST_EDITS):
            genotype = random_edit(trained.space, genotype, rng)[1]
        if network_key(genotype) not in genotypes and not dead_blocks(genotype):
            chosen.setdefault(network_key(genotype), genotype)
    if len(chosen) < count:
        raise UserError(f"{path} gives {len(chosen)} different mutants, not {count}; ask for fewer")
    return list(chosen.values())


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


def noise(run: Run) -> Noise:
    """Answer a noise study, by the architectures that have a result for every seed. Raises UserError."""
    seeds = _planned(run).replicates
    return noise_of([aps for aps in measured_curves(run.folder.path).aps().values() if len(aps) == seeds])


def _planned(run: Run) -> PlanConfig:
    plan = SearchConfig.from_json(run.folder.config()).controller
    if plan.name != "plan":
        raise UserError(f"{run.folder.path} is a search, not a study; make one with `spinenas proxy noise`")
    return plan.plan


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


def ladder(run: Run) -> LadderResult:
    """Answer a ladder study. Raises UserError."""
    _planned(run)
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
