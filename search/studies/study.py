"""A study: planned trainings, run and resumed like a search."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from spinenas.controller.plan import PlanOptions
from spinenas.results.record import Stage
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.constraints import ConstraintsConfig
from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.config.loading import stored_config
from spinenas.search.config.objective import ObjectiveConfig
from spinenas.search.config.parts import BudgetConfig, HalvingConfig, StorageConfig
from spinenas.search.executors.base import Task
from spinenas.search.monitoring.base import Display
from spinenas.search.run.identity import check_identity, identity_of
from spinenas.search.run.lifecycle import CONFIGURED_IN_PYTHON
from spinenas.search.run.or_resume import search_or_resume
from spinenas.search.run.run import Run
from spinenas.search.run.val_task import ValTask, WithVal
from spinenas.space.baseline import Architecture
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key


def run_study(
    config: SearchConfig,
    architectures: Sequence[Architecture],
    seeds: int,
    *,
    out: Path,
    stage: Stage = Stage.SEARCH,
    task: Task | None = None,
    display: Display | None = None,
    config_toml: str = CONFIGURED_IN_PYTHON,
) -> Run:
    """Train every architecture with every seed, or resume the same study. Raises UserError.

    Args:
        config: only its task, executor and seed are used.
        architectures: trained in this order, all of them with one seed before any with the next.
        seeds: number of trainings of each architecture.
        out: folder of the run.
        stage: purpose of the trainings; VALIDATE and FULL also measure on val (`search/run/val_task.py`).
        task: evaluates an architecture; None for the proxy task of the configuration.
        display: shows progress.
        config_toml: the configuration as given, kept in the folder.
    """
    if stage is not Stage.SEARCH:  # limits and mirror of a search are not for its validation, nor for replays
        config = replace(config, budget=BudgetConfig(), storage=StorageConfig())
    plan = PlanOptions(
        architectures=tuple(architecture.text for architecture in architectures), replicates=seeds, stage=str(stage)
    )
    planned = replace(
        config,
        controller=ControllerConfig(name="plan", plan=plan),
        budget=replace(config.budget, num_trials=len(architectures) * seeds, replicate_share=0.0),
        constraints=ConstraintsConfig(),
        objective=ObjectiveConfig(),
        halving=HalvingConfig(),  # a study needs complete trainings
    )
    return search_or_resume(planned, out=out, task=task, display=display, config_toml=config_toml)


def different_networks(
    genotypes: Iterable[Genotype], count: int, known: Container[str] = frozenset()
) -> list[Genotype]:
    """Return the first so many genotypes that build different networks, or fewer if there are fewer.

    Args:
        known: keys of networks that are left out.
    """
    chosen: dict[str, Genotype] = {}
    drawn = iter(genotypes)
    while len(chosen) < count and (genotype := next(drawn, None)) is not None:
        key = network_key(genotype)
        if key not in known:
            chosen.setdefault(key, genotype)
    return list(chosen.values())


def check_same_val(study: Run, task: ValTask) -> None:
    """Raise UserError unless a task still has the data, including val, of a study."""
    config = stored_config(study.folder.config())
    check_identity(study.folder.path, study.state().run, identity_of(WithVal(task, keep_weights=False), config))


def study_plan(run: Run) -> PlanOptions:
    """Return the plan of a study. Raises UserError for a search."""
    plan = stored_config(run.folder.config()).controller.chosen
    if not isinstance(plan, PlanOptions):
        raise UserError(f"{run.folder.path} is a search, not a study; make one with `spinenas proxy noise`")
    return plan
