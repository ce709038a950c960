"""A study: planned trainings as an ordinary run, which resumes like any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from spinenas.results.record import Stage
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.constraints import ConstraintsConfig
from spinenas.search.config.controllers import ControllerConfig, PlanConfig
from spinenas.search.config.loading import stored_config
from spinenas.search.config.objective import ObjectiveConfig
from spinenas.search.config.parts import HalvingConfig
from spinenas.search.executors.base import Task
from spinenas.search.monitoring.base import Display
from spinenas.search.run.lifecycle import CONFIGURED_IN_PYTHON, search_or_resume
from spinenas.search.run.run import Run
from spinenas.space.baseline import Architecture
from spinenas.space.errors import UserError


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


def planned_trainings(run: Run) -> PlanConfig:
    plan = stored_config(run.folder.config()).controller
    if plan.name != "plan":
        raise UserError(f"{run.folder.path} is a search, not a study; make one with `spinenas proxy noise`")
    return plan.plan
