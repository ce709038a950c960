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

from spinenas.controller.registry import make_controller
from spinenas.proxy_task.config import DataConfig
from spinenas.results.storage.accelerator_time import AcceleratorTime
from spinenas.results.storage.epoch_count import EpochCount
from spinenas.results.storage.events import EpochDone, Event, Resumed, RunStarted, Stopped
from spinenas.results.storage.journal import SCHEMA, Journal, read_events
from spinenas.results.storage.mirror import Mirror
from spinenas.results.storage.run_folder import RunFolder
from spinenas.results.storage.run_state import Fold, RunState
from spinenas.results.storage.utc import now
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.loading import stored_config, with_changes
from spinenas.search.config.parts import LoggingConfig
from spinenas.search.executors.base import Task
from spinenas.search.executors.stop_signals import Terminated, stopped_by_sigterm
from spinenas.search.monitoring.base import Display
from spinenas.search.monitoring.forecast import Forecast, Workload, count_of_epochs
from spinenas.search.monitoring.progress import Progress
from spinenas.search.run.components import (
    data_findings,
    make_executor,
    mirror_of,
    ordered_window,
    prepared_task,
    prior_lessons,
    search_controller,
    with_class_channels,
    with_dtype,
)
from spinenas.search.run.continuation import (
    DATA_PATHS,
    changed_versions,
    check_resumable,
    elsewhere,
    extended,
    keep_data_paths,
    missing_data,
    with_data,
)
from spinenas.search.run.driver import Driver
from spinenas.search.run.finished import has_finished
from spinenas.search.run.gate import gate_words
from spinenas.search.run.identity import check_identity, identity_of, versions
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
    lessons = prior_lessons(config)
    space = space_by_name(config.space.name)
    make_controller(config.controller.name, space, lessons=lessons, **config.controller.options())
    RunFolder.check_free(Path(out))
    display = _with_loggers(display or Display(), config, Path(out))
    with stopped_by_sigterm():
        mirror = mirror_of(config)
        if mirror is not None and mirror.holds_run():
            raise UserError(
                f"{mirror.store.uri} already holds a run; resume it with --or-resume, or give another storage.mirror"
            )
        config = with_dtype(config, note=display.note)
        task, forecast = prepared_task(task, config)
        config = with_class_channels(config, task)
        config.check_constraints()
        controller = search_controller(config, lessons)
        known = known_results(
            warm_start,
            task_key=task.key,
            space=space_by_name(config.space.name),
            incomplete=config.pauses_trainings,
        )
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
            "dtype": task.dtype,
            "data": task.fingerprint,
            "findings": data_findings(task),
            "warm_start": [str(path) for path in warm_start],
        }
        prior = {"prior": lessons} if lessons else {}  # the run does not need its file again
        # The executor comes first: if its workers cannot start, no folder is left that would refuse the next try.
        with make_executor(task, config.executor, Path(out), display.note) as executor:
            run = identity_of(task, config) | {"versions": versions()} | prior
            at = now()
            started: list[Event] = [
                RunStarted(SCHEMA, run, at=at),
                *(replace(observation, at=at) for observation in known),
            ]
            with _begun(Path(out), config, config_toml, about | prior, started, mirror) as (folder, journal):
                window = ordered_window(config.executor)
                driver = Driver(config, folder, journal, task, controller, executor, display, window=window)
                if (gate := gate_words(controller, config)) is not None:
                    display.note(gate)
                with display.begin(_progress(config, task, forecast)):
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
    num_epochs: int | None = None,
    max_accelerator_hours: float | None = None,
    workers: int | None = None,
    address: str | None = None,
    data: DataConfig | str | Path | None = None,
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
        num_epochs: the same in epochs, instead of num_trials.
        max_accelerator_hours: another total limit of accelerator time; None to keep it.
        workers: another number of trials at a time; None to keep it.
        address: of another Ray cluster; "local" for none, None to keep it.
        data: where the same data lie now: a folder, or a configuration whose paths are taken. The run keeps it. None if
            they lie where they were.
        executor: another executor configuration; the window of an ordered run stays.
        logging: another logging configuration.
        mend: first repair a journal that is damaged in the middle. A copy of the damaged one is kept.
        task: as given to `run_search`.
        display: shows progress.
    """
    folder = RunFolder.open(Path(path))
    check_resumable(folder)
    config = stored_config(folder.config())
    config = with_data(replace(config, logging=logging or config.logging), data)
    display = _with_loggers(display or Display(), config, folder.path)
    if mend:
        display.note(salvage(folder.journal_path, config, display.note))
    opened = Journal.open(folder.journal_path, mirror=mirror_of(config), note=display.note)
    with opened as journal, stopped_by_sigterm():
        state, time_taken, epoch_of = _read(folder.journal_path)
        given = {"num_trials": num_trials, "epochs": num_epochs, "max_accelerator_hours": max_accelerator_hours}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        before = with_changes(config, state.resumes)
        config = extended(path, before, changes)
        if config.budget != before.budget:
            state = replace(state, is_ending=False)
        is_finished = has_finished(state, config)
        if is_finished and data is None:
            if config.controller.name != "plan":
                display.note(f"all {len(state.trials)} trials are done; --trials N extends the search")
            return Run(folder)

        try:
            task, forecast = prepared_task(task, config)
        except UserError as error:
            if (missing := missing_data(config.task.data)) is None:
                raise
            if data is not None:
                raise UserError(f"{missing} does not exist; check the path given to --data") from error
            raise UserError(elsewhere(folder.path, missing)) from error
        check_identity(path, state.run, identity_of(task, config))
        if data is not None:
            for path_kept in keep_data_paths(folder, config.task.data):
                journal.mirror_file(path_kept)
            if is_finished:
                return Run(folder)
            changes["data"] = {name: getattr(config.task.data, name) for name in DATA_PATHS}
        found_versions = versions()
        if (sentence := changed_versions(state, found_versions)) is not None:
            display.note(sentence)
        controller = search_controller(config, state.run.get("prior", ()))
        if (gate := gate_words(controller, config)) is not None:
            display.note(gate)
        window = ordered_window(config.executor)
        executor = executor or config.executor
        executor = replace(executor, workers=workers or executor.workers, address=address or executor.address)
        config = replace(config, executor=executor)
        # Nothing is appended before the workers have started.
        with make_executor(task, executor, folder.path, display.note) as running:
            driver = Driver(
                config, folder, journal, task, controller, running, display, window=window, time_taken=time_taken
            )
            progress = _progress(config, task, forecast)
            progress.resume(state)
            with display.begin(progress):
                killed = {"killed_at": journal.killed_at} if journal.killed_at and time_taken.num_running else {}
                driver.record(Resumed({"versions": found_versions, **changes, **killed}))
                driver.replay(state, epoch_of)
                _drive(driver)
    return Run(folder)


def _read(path: Path) -> tuple[RunState, AcceleratorTime, dict[int, int]]:
    """Read state, accelerator time and the last epoch of each trial in one pass. Raises UserError."""
    state, time_taken, epochs = Fold(), AcceleratorTime(), dict[int, int]()
    for event in read_events(path):
        state.add(event)
        time_taken.add(event)
        if isinstance(event, EpochDone):
            epochs[event.number] = event.epoch
    return state.state(path), time_taken, epochs


def _with_loggers(display: Display, config: SearchConfig, run: Path) -> Display:
    """Add the loggers of the configuration to a display. Raises UserError if a package is missing."""
    if not config.logging.tensorboard:
        return display
    from spinenas.search.monitoring.tensorboard_log import TensorBoardDisplay  # rich

    return TensorBoardDisplay(display, run)


def _progress(config: SearchConfig, task: Task, forecast: Forecast | None) -> Progress:
    """Return the progress of a search at its start."""
    return Progress(
        config.budget.num_trials,
        scalarize=config.scalarized_objective(),
        workload=Workload(forecast or count_of_epochs(task, config)),
        epochs=EpochCount(config.task.train.epochs) if config.pauses_trainings else None,
        num_epochs=config.num_epochs,
    )


def _drive(driver: Driver) -> None:
    """Run a driver; record in the journal why it ends early, if that can still be written."""
    try:
        driver.run()
    except (KeyboardInterrupt, Terminated, UserError) as reason:
        with contextlib.suppress(UserError):
            driver.record(Stopped(str(reason) or "it was interrupted"))
        raise
