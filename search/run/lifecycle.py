"""Starts and resumes runs; a driver runs them in between.

The journal alone holds what happened. `resume` reads it, replays the controller and continues.
"""

from __future__ import annotations

import contextlib
import logging
import platform
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spinenas.controller.former_names import removal_message
from spinenas.controller.registry import make_controller
from spinenas.results.storage.accelerator_time import AcceleratorTime
from spinenas.results.storage.events import Event, Resumed, RunStarted, Stopped
from spinenas.results.storage.journal import SCHEMA, Journal, now, read_events
from spinenas.results.storage.mirror import Mirror
from spinenas.results.storage.run_folder import RunFolder
from spinenas.results.storage.run_state import Fold, RunState
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.loading import stored_config, with_changes
from spinenas.search.config.parts import LoggingConfig
from spinenas.search.executors.base import Task
from spinenas.search.executors.stop_signals import Terminated, stopped_by_sigterm
from spinenas.search.monitoring.base import Display
from spinenas.search.monitoring.forecast import Forecast, Workload
from spinenas.search.monitoring.progress import Progress
from spinenas.search.run.components import (
    data_findings,
    make_executor,
    mirror_of,
    ordered_window,
    prepared_task,
    search_controller,
    with_class_channels,
)
from spinenas.search.run.driver import Driver
from spinenas.search.run.identity import check_equal, check_identity, check_same_search, identity_of, versions
from spinenas.search.run.run import Run
from spinenas.search.run.salvage import salvage
from spinenas.search.run.warm_start import known_results
from spinenas.space.errors import UserError
from spinenas.space.search_space import space_by_name

logger = logging.getLogger(__name__)

CONFIGURED_IN_PYTHON = "# This run was configured in Python; config.json has every value.\n"


def run_search(
    config: SearchConfig,
    *,
    out: str | Path,
    task: Task | None = None,
    display: Display | None = None,
    config_toml: str = CONFIGURED_IN_PYTHON,
    warm_start: Sequence[Path] = (),
) -> Run:
    """Search from the start. Raises UserError before anything is written.

    Args:
        config: the configuration of the search.
        out: folder of the run, which must not hold one.
        task: trains and measures genotypes; None for the proxy task of the configuration.
        display: shows progress.
        config_toml: the configuration as given, to be stored.
        warm_start: runs of the same task whose results the controller begins with; none of their networks is trained
            again. Their results are copied to this run's journal, so the runs are not needed afterwards.
    """
    for sentence in config.unused():
        logger.warning("%s", sentence)
    config = config.resolved()
    # Made here only to refuse a wrong option before data is read. The run's own controller is made later, as the
    # detector that costs are counted in may depend on the data.
    make_controller(config.controller.name, space_by_name(config.space.name), **config.controller.options())
    RunFolder.check_free(Path(out))
    display = _with_loggers(display or Display(), config, Path(out))
    with stopped_by_sigterm():
        mirror = mirror_of(config)
        if mirror is not None and mirror.holds_run():
            raise UserError(
                f"{mirror.store.uri} already holds a run; resume it with --or-resume, or give another storage.mirror"
            )
        task, forecast = prepared_task(task, config)
        config = with_class_channels(config, task)
        config.check_constraints()
        controller = search_controller(config)
        known = known_results(warm_start, task_key=task.key, space=space_by_name(config.space.name))
        for observation in known:
            controller.observe(observation.genotype, observation.evaluation)
        if warm_start:
            num_trainings = sum(len(observation.sources) for observation in known)
            display.note(
                f"warm start: {len(known)} networks are known from {num_trainings} trainings in "
                f"{', '.join(map(str, warm_start))}; none of them is proposed again"
            )
        about = {
            "kind": "search",
            "versions": versions(),
            "platform": platform.platform(),
            "device": task.device,
            "data": task.fingerprint,
            "findings": data_findings(task),
            "warm_start": [str(path) for path in warm_start],
        }
        # The executor comes first: if its workers cannot start, no folder is left that would refuse the next try.
        with make_executor(task, config.executor, Path(out), display.note) as executor:
            run = identity_of(task, config) | {"versions": versions()}
            at = now()
            started: list[Event] = [
                RunStarted(SCHEMA, run, at=at),
                *(replace(observation, at=at) for observation in known),
            ]
            with _begun(Path(out), config, config_toml, about, started, mirror) as (folder, journal):
                window = ordered_window(config.executor)
                driver = Driver(config, folder, journal, task, controller, executor, display, window=window)
                with display.begin(_progress(config, forecast)):
                    _drive(driver)
    return Run(folder)


@contextlib.contextmanager
def _begun(
    out: Path,
    config: SearchConfig,
    config_toml: str,
    about: dict[str, Any],
    started: Sequence[Event],
    mirror: Mirror | None,
) -> Iterator[tuple[RunFolder, Journal]]:
    """Make the folder of a run together with the first events of its journal."""
    with contextlib.ExitStack() as stack:
        opened: list[Journal] = []

        def begin(folder: Path) -> None:
            journal = stack.enter_context(Journal.create(folder / "journal.jsonl", mirror=mirror))
            for event in started:
                journal.append(event, sync=event is started[-1])
            opened.append(journal)

        folder = RunFolder.create(out, config_toml, config.to_json(), about, begin=begin)
        opened[0].moved_to(folder.journal_path)
        yield folder, opened[0]


def resume(
    path: str | Path,
    *,
    num_trials: int | None = None,
    max_accelerator_hours: float | None = None,
    workers: int | None = None,
    address: str | None = None,
    executor: ExecutorConfig | None = None,
    logging: LoggingConfig | None = None,
    mend: bool = False,
    task: Task | None = None,
    display: Display | None = None,
) -> Run:
    """Finish a run that was stopped, or extend one; no finished trial is repeated. Raises UserError.

    Args:
        path: the folder of the run.
        num_trials: a larger total budget; None to keep it.
        max_accelerator_hours: another total limit of accelerator time; None to keep it.
        workers: another number of trials at a time; None to keep it.
        address: of another Ray cluster; "local" for none, None to keep it.
        executor: another executor configuration; the window of an ordered run stays.
        logging: another logging configuration.
        mend: first repair a journal that is damaged in the middle. A copy of the damaged one is kept.
        task: as given to `run_search`.
        display: shows progress.
    """
    folder = RunFolder.open(Path(path))
    _check_resumable(folder)
    config = stored_config(folder.config())
    config = replace(config, logging=logging or config.logging)
    display = _with_loggers(display or Display(), config, folder.path)
    if mend:
        display.note(salvage(folder.journal_path, config))
    opened = Journal.open(folder.journal_path, mirror=mirror_of(config), on_wait=display.note)
    with opened as journal, stopped_by_sigterm():
        state, time_taken = _read(folder.journal_path)
        given = {"num_trials": num_trials, "max_accelerator_hours": max_accelerator_hours}
        changes = {name: value for name, value in given.items() if value is not None}
        before = with_changes(config, state.resumes)
        config = with_changes(before, [changes])
        if config.budget.num_trials < before.budget.num_trials:
            raise UserError(
                f"{path} has a budget of {before.budget.num_trials} trials; it can be extended, but not "
                f"reduced to {num_trials}"
            )
        if not state.unfinished and len(state.trials) >= config.budget.num_trials:
            return Run(folder)

        task, forecast = prepared_task(task, config)
        check_identity(path, state.run, identity_of(task, config))
        controller = search_controller(config)
        window = ordered_window(config.executor)
        executor = executor or config.executor
        executor = replace(executor, workers=workers or executor.workers, address=address or executor.address)
        config = replace(config, executor=executor)
        # Nothing is appended before the workers have started.
        with make_executor(task, executor, folder.path, display.note) as running:
            driver = Driver(
                config, folder, journal, task, controller, running, display, window=window, time_taken=time_taken
            )
            progress = _progress(config, forecast)
            progress.resume(state)
            with display.begin(progress):
                driver.record(Resumed({"versions": versions(), **changes}))
                driver.replay(state)
                _drive(driver)
    return Run(folder)


def search_or_resume(
    config: SearchConfig,
    *,
    out: str | Path,
    task: Task | None = None,
    display: Display | None = None,
    config_toml: str = CONFIGURED_IN_PYTHON,
    warm_start: Sequence[Path] = (),
) -> Run:
    """Start a run, or resume it if it exists, so that a command can be repeated.

    A run whose folder is missing is restored from its mirror. The configuration must be the one the run began with,
    except for `executor`, `logging` and a larger budget. `warm_start` must name the runs that it began with, which need
    not exist any more. Raises UserError.
    """
    display = display or Display()
    path = Path(out)
    mirror = mirror_of(config)
    if not (path / "journal.jsonl").exists() and mirror is not None and mirror.holds_run():
        display.note(f"restoring {path} from {mirror.store.uri}")
        mirror.restore(path)
    if not (path / "journal.jsonl").exists():
        return run_search(config, out=out, task=task, display=display, config_toml=config_toml, warm_start=warm_start)
    folder = RunFolder.open(path)
    _check_resumable(folder)
    begun_with = stored_config(folder.config())
    budget = replace(begun_with.budget, replicate_share=config.budget.replicate_share)
    constraints = replace(config.constraints, class_channels=begun_with.constraints.class_channels)
    check_same_search(path, begun_with, replace(config, budget=budget, constraints=constraints).resolved())
    sources = [str(run) for run in warm_start]
    # Older runs have no warm start in run.json, only in their journal.
    check_equal(path, "warm start", folder.run_info().get("warm_start", sources), sources)
    before = with_changes(begun_with, Run(folder).state().resumes).budget
    given = config.budget
    hours, hours_before = given.max_accelerator_hours, before.max_accelerator_hours
    return resume(
        path,
        # An extension by an earlier resumption is kept.
        num_trials=given.num_trials if given.num_trials > before.num_trials else None,
        max_accelerator_hours=hours if hours and (hours_before is None or hours > hours_before) else None,
        executor=config.executor,
        logging=config.logging,
        task=task,
        display=display,
    )


def _check_resumable(folder: RunFolder) -> None:
    """Raise UserError for a run of an earlier version that can only be read.

    These are searches whose controller was removed, and replays whose journal does not say what was planned.
    """
    if (message := removal_message(folder.config())) is not None:
        raise UserError(message)
    if folder.run_info().get("kind") == "replay":
        raise UserError(
            f"{folder.path} holds a replay that an earlier version began, which can be shown but not resumed; "
            "give its `spinenas replay` command with another --out"
        )


def _read(path: Path) -> tuple[RunState, AcceleratorTime]:
    """Read state and accelerator time in one pass. Raises UserError."""
    state, time_taken = Fold(), AcceleratorTime()
    for event in read_events(path):
        state.add(event)
        time_taken.add(event)
    return state.state(), time_taken


def _with_loggers(display: Display, config: SearchConfig, run: Path) -> Display:
    """Add the loggers of the configuration to a display. Raises UserError if a package is missing."""
    if not config.logging.tensorboard:
        return display
    from spinenas.search.monitoring.tensorboard_log import TensorBoardDisplay  # rich

    return TensorBoardDisplay(display, run)


def _progress(config: SearchConfig, forecast: Forecast | None) -> Progress:
    """Return the progress of a search at its start."""
    workload = None if forecast is None else Workload(forecast)
    return Progress(config.budget.num_trials, scalarize=config.scalarized_objective(), workload=workload)


def _drive(driver: Driver) -> None:
    """Run a driver; record in the journal why it ends early, if that can still be written."""
    try:
        driver.run()
    except (KeyboardInterrupt, Terminated, UserError) as reason:
        with contextlib.suppress(UserError):
            driver.record(Stopped(str(reason) or "it was interrupted"))
        raise
