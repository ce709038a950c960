"""Makes the components of a run from its configuration: task, controller, executor, mirror."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, cast

from spinenas.controller.base import Controller
from spinenas.controller.predictor.freeze_thaw import Schedule
from spinenas.controller.predictor.prior import Lessons, read_lessons
from spinenas.controller.registry import CONTROLLERS, make_controller
from spinenas.controller.replicates import ReplicateLeaders
from spinenas.results.record import Stage
from spinenas.results.storage.mirror import Mirror
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.executors.base import Executor, Note, Task
from spinenas.search.executors.data_command import run_once_per_machine, this_session
from spinenas.search.monitoring.forecast import Forecast, forecast_for
from spinenas.search.run.val_task import ValTask, WithVal
from spinenas.space.search_space import space_by_name


def proxy_task(config: SearchConfig) -> Task:
    """Make the task of a configuration."""
    from spinenas.proxy_task.task import ProxyTask  # torch

    return ProxyTask(config.task, threads=config.executor.threads_per_trial)


def with_dtype(config: SearchConfig, before: SearchConfig | None = None, note: Note = print) -> SearchConfig:
    """Replace the dtype "auto" by a number format, which the run keeps wherever it continues.

    Args:
        config: configuration of a run.
        before: configuration that this run began with, whose format is kept; None for a new run, which gets the
            fastest format of this machine, or bfloat16 if its workers have accelerators and this machine has none.
        note: receives the choice for a new run.
    """
    if config.task.train.dtype != "auto":
        return config
    dtype: Literal["float32", "bfloat16", "auto"]
    if before is not None:
        dtype = before.task.train.dtype
    else:
        from spinenas.proxy_task.training.device import bfloat16_support, choose_device, device_name

        device, executor = choose_device(), config.executor
        is_elsewhere = executor.kind != "serial" and executor.address not in (None, "local")
        asks = bool(executor.gpus_per_worker or executor.gpu_memory_gib or executor.tpus_per_worker)
        if asks and device.type == "cpu":
            dtype, why = "bfloat16", "as the workers have accelerators; use float32 for any without bfloat16"
        else:
            support = bfloat16_support(device)
            dtype = "float32" if support is None else "bfloat16"
            why = f"which {device_name(device)} computes fast" + (f" ({support})" if device.type == "cpu" else "")
            if support is None:
                why = f"as {device_name(device)} has no instructions for bfloat16"
            if is_elsewhere:
                why += "; workers of the cluster may differ, so set task.train.dtype if they do"
        note(f"task.train.dtype is auto: {dtype}, {why}")
    return replace(config, task=replace(config.task, train=replace(config.task.train, dtype=dtype)))


def prepared_task(task: Task | None, config: SearchConfig) -> tuple[Task, Forecast | None]:
    """Fetch the data, and prepare the given task, or else that of the configuration. Raises UserError.

    Only the task of a validation reads val.

    Returns:
        The task, and the predicted durations of its trials, if there is a prediction.
    """
    fetch_data(config)
    chosen = task or proxy_task(config)
    stage = config.controller.plan.stage
    if config.controller.name == "plan" and stage in (Stage.VALIDATE, Stage.FULL):
        chosen = WithVal(cast(ValTask, chosen), stage == Stage.FULL)
    chosen.prepare()
    data_findings(chosen)  # logged before any worker starts
    return chosen, forecast_for(chosen, config) if task is None else None


def data_findings(task: Task) -> list[dict[str, Any]]:
    """Return what was found in the data of a prepared task, as run.json keeps it. Raises UserError."""
    find = getattr(task, "findings", None)
    return [] if find is None else [asdict(finding) | {"sentence": finding.sentence} for finding in find()]


def fetch_data(config: SearchConfig) -> None:
    """Run the configuration's data command on this machine. Raises UserError."""
    run_once_per_machine(config.executor.data_command, this_session())


def with_class_channels(config: SearchConfig, task: Task) -> SearchConfig:
    """Set the number of class channels, if costs are counted in the detector that the task trains."""
    constraints = config.constraints
    num = getattr(task, "class_channels", None)
    if not config.counts_costs or constraints.target is not None or num is None:
        return config
    return replace(config, constraints=replace(constraints, class_channels=num))


def prior_lessons(config: SearchConfig) -> list[tuple[str, float]]:
    """Read what the prior of the chosen controller teaches; nothing if it has none. Raises UserError."""
    return read_lessons(config.controller.prior, space_by_name(config.space.name))


def search_controller(config: SearchConfig, lessons: Lessons = ()) -> Controller:
    """Make the controller of a search: the search algorithm, its objective, and replicates of leaders at the end.

    Args:
        config: configuration of the run.
        lessons: what the prior taught when the run began.
    """
    space = space_by_name(config.space.name)
    limits = config.constraints.limits(config.task)
    budget, target = config.budget, config.constraints.cost_target(config.task)
    soft_cost, front_costs = config.objective.soft_cost(target), config.objective.front_costs(target)
    if config.controller.name == "plan":
        soft_cost = front_costs = None
    searcher = make_controller(
        config.controller.name,
        space,
        seed=config.seed,
        costs=front_costs,
        feasible=limits,
        schedule=Schedule(config.task.train.epochs, config.num_epochs, budget.replicate_share),
        scalarize=soft_cost,
        lessons=lessons,
        **config.controller.options(),
    )
    if CONTROLLERS[config.controller.name].counts_epochs:
        return searcher
    return ReplicateLeaders(
        searcher,
        num_trials=budget.num_trials,
        share=budget.replicate_share,
        scalarize=soft_cost,
        front_costs=front_costs,
    )


def make_executor(task: Task, config: ExecutorConfig, run: Path, note: Note) -> Executor:
    """Make the executor of a run, whose folder need not exist yet."""
    # Imported here: Ray takes seconds, and a serial search does not need it.
    if config.kind == "serial":
        from spinenas.search.executors.serial import SerialExecutor

        return SerialExecutor(task, config, note)
    if config.kind == "ray":
        from spinenas.search.executors.ray_actors import RayExecutor

        return RayExecutor(task, config, note, run.absolute())
    from spinenas.search.executors.ray_tune import TuneExecutor

    return TuneExecutor(task, config, run.absolute() / "tune", note)


def ordered_window(executor: ExecutorConfig) -> int | None:
    """Return how many trials an ordered run asks ahead; None for any other run. A serial run is always in order."""
    return executor.workers if executor.ordered else None


def mirror_of(config: SearchConfig) -> Mirror | None:
    """Return the run's mirror, which can be written; None if it has none. Raises UserError."""
    if config.storage.mirror is None:
        return None
    mirror = Mirror(config.storage.mirror)
    mirror.store.check()
    return mirror
