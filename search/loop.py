"""The search loop: ask, run, tell; every step is in the journal before it is acted on.

A controller proposes, an executor runs, and neither knows the other. What happened is in the journal alone, so
that a killed search is continued by folding it: `resume` replays the controller and goes on.
"""

from __future__ import annotations

import importlib.metadata
import logging
import platform
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from spinenas.controller.base import Controller, Proposal, SpaceExhausted
from spinenas.controller.choices import make_controller
from spinenas.controller.replicates import ReplicateLeaders
from spinenas.results import leaderboard
from spinenas.results.journal import SCHEMA, Journal, RunState, fold, read_events
from spinenas.results.record import Evaluation, Failure, FailureKind, Status, TrialRecord
from spinenas.results.run_folder import RunFolder
from spinenas.search.config import ExecutorConfig, SearchConfig
from spinenas.search.executor import EpochDone, Event, Executor, Finished, Job, Started, Task
from spinenas.space.errors import UserError
from spinenas.space.graph import network_key
from spinenas.space.random_streams import seed_for
from spinenas.space.search_space import space_by_name

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger(__name__)

SEARCH_PROTOCOL = 1
"""Raised whenever the code changes what a resumed run would propose: it is then no longer the same run."""

Result = Evaluation | Failure


class Display(Protocol):
    """Who watches a search; a context manager around it, told each event after it is in the journal."""

    def begin(self, num_trials: int, past_events: list[dict[str, Any]]) -> AbstractContextManager[object]:
        """Start watching; past events are those of a run that is resumed."""

    def show(self, event: dict[str, Any]) -> None:
        """Take the next event."""

    def note(self, text: str) -> None:
        """Take a remark that is no event."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it stands on disk.

    Attributes:
        folder: its files.
    """

    folder: RunFolder

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open the folder of a run, finished or not. Raises UserError."""
        return cls(RunFolder.open(Path(path)))

    def state(self) -> RunState:
        """Read the journal."""
        return fold(read_events(self.folder.journal_path))

    def records(self) -> list[TrialRecord]:
        """All trials in the order of their numbers."""
        return list(self.state().trials.values())

    def leaderboard(self, top: int | None = None) -> pandas.DataFrame:
        """Return the networks, best mean first."""
        return leaderboard.leaderboard(self.records(), top)

    def winner(self) -> TrialRecord | None:
        """Return the first trial of the best network, None without a complete one."""
        records = self.records()
        row = leaderboard.winner(records)
        return None if row is None else records[row["number"]]


def run_search(
    config: SearchConfig,
    *,
    out: str | Path,
    task: Task | None = None,
    display: Display | None = None,
    config_toml: str = "# This run was configured in Python; config.json has every value.\n",
) -> Run:
    """Search from the start. Raises UserError before anything is written.

    Args:
        config: what to search, how.
        out: the folder of the run, which must not hold one.
        task: what measures a genotype; None for the proxy task of the configuration.
        display: who watches.
        config_toml: the configuration as given, to be kept.
    """
    for sentence in config.unused():
        logger.warning("%s", sentence)
    config = config.resolved()
    # Made before anything else: a wrong option is refused before data is read.
    controller = _make_controller(config, config.budget.num_trials)
    return start_run(
        config, out=out, task=task, display=display, config_toml=config_toml, controller_for=lambda task: controller
    )


def start_run(
    config: SearchConfig,
    *,
    out: str | Path,
    task: Task | None,
    display: Display | None,
    config_toml: str,
    controller_for: Callable[[Task], Controller],
    kind: Literal["search", "replay"] = "search",
) -> Run:
    """Do what `run_search` does with any controller, made for the prepared task. Raises UserError.

    Only a run of kind "search" can be resumed.
    """
    RunFolder.check_free(Path(out))
    task = task or proxy_task(config)
    task.prepare()
    controller = controller_for(task)
    versions = _versions()
    about = {
        "kind": kind,
        "versions": versions,
        "platform": platform.platform(),
        "device": task.device,
        "data": task.fingerprint,
    }
    display = display or _Silent()
    # The executor first: where the workers cannot start, no folder is left that refuses the corrected command.
    with _make_executor(task, config.executor, Path(out)) as executor:
        folder = RunFolder.create(Path(out), config_toml, config.to_json(), about)
        with Journal.create(folder.journal_path) as journal:
            run = _identity(task, config) | {"versions": versions}
            journal.append({"event": "run_started", "schema": SCHEMA, "at": _now(), "run": run})
            driver = _Driver(config, folder, journal, task, controller, executor, display)
            with display.begin(config.budget.num_trials, []):
                driver.run()
    return Run(folder)


def resume(
    path: str | Path,
    *,
    num_trials: int | None = None,
    workers: int | None = None,
    address: str | None = None,
    task: Task | None = None,
    display: Display | None = None,
) -> Run:
    """Finish a run that was stopped, or extend one; no finished trial is repeated. Raises UserError.

    Args:
        path: the folder of the run.
        num_trials: a larger budget in all; None for what the run has.
        workers: trials at a time, if other than before.
        address: of a Ray cluster, if another than before; "local" for none.
        task: as given to `run_search`.
        display: who watches.
    """
    folder = RunFolder.open(Path(path))
    if folder.run_info().get("kind") == "replay":
        raise UserError(
            f"{path} is a replay, which starts over rather than being resumed; give its `spinenas replay` command "
            "again, with another folder or with this one removed"
        )
    config = SearchConfig.from_json(folder.config())
    with Journal.open(folder.journal_path) as journal:
        events = read_events(folder.journal_path)
        state = fold(events)
        budget = config.budget.num_trials
        for changes in state.resumes:
            budget = changes.get("num_trials", budget)
        if num_trials is not None and num_trials < budget:
            raise UserError(f"{path} has a budget of {budget} trials; it can be extended, not cut to {num_trials}")
        if not state.unfinished and len(state.trials) >= (num_trials or budget):
            return Run(folder)

        task = task or proxy_task(config)
        task.prepare()
        _check_identity(path, state.run, _identity(task, config))
        changes = {"versions": _versions()} | ({} if num_trials is None else {"num_trials": num_trials})
        budget = num_trials or budget
        controller = _make_controller(config, budget)
        executor_config = replace(
            config.executor,
            workers=workers or config.executor.workers,
            address=address or config.executor.address,
        )
        display = display or _Silent()
        # Nothing is appended before the workers stand.
        with _make_executor(task, executor_config, folder.path) as executor:
            driver = _Driver(config, folder, journal, task, controller, executor, display, num_trials=budget)
            with display.begin(budget, events):
                journal.append({"event": "resumed", "at": _now(), "changes": changes})
                driver.replay(events, state)
                driver.run()
    return Run(folder)


def trial_seed(run_seed: int, key: str, replicate: int) -> int:
    """Seed of a training; of the network and its replicate alone, so that any search trains it the same."""
    return seed_for(run_seed, f"trial/{key}", replicate)


@dataclass(slots=True)
class _Trial:
    """A trial that has no result yet."""

    proposal: Proposal
    seed: int
    attempt: int = 0
    num_lost: int = 0


class _Driver:
    """One session of a run: the only one who writes its journal, asks, tells and submits.

    Results reach the controller when they arrive or, in an ordered run, in the order of their numbers and only
    as far as the next ask needs them; how many it knew is kept with each asked event.
    """

    def __init__(
        self,
        config: SearchConfig,
        folder: RunFolder,
        journal: Journal,
        task: Task,
        controller: Controller,
        executor: Executor,
        display: Display,
        *,
        num_trials: int | None = None,
    ):
        self._config, self._folder, self._journal = config, folder, journal
        self._controller, self._executor, self._display = controller, executor, display
        self._task_key = task.key
        self._num_trials = num_trials or config.budget.num_trials
        # The window of an ordered run is part of what the run is; other workers on resume do not change it.
        # The single place of a serial run makes it ordered by itself.
        self._window = config.executor.workers if config.executor.ordered else None
        self._num_asked = self._num_told = 0
        self._untold: dict[int, Result] = {}  # results the controller does not know yet
        self._waiting: deque[_Trial] = deque()  # asked, to be submitted
        self._in_flight: dict[int, _Trial] = {}
        self._over = False  # nothing more will be proposed

    def run(self) -> None:
        """Go on until the budget is spent, nothing more is proposed, or an exception ends it."""
        while True:
            self._fill_slots()
            if not self._in_flight:
                return
            self._executor.wait(self._on_event)

    def replay(self, events: list[dict[str, Any]], state: RunState) -> None:
        """Bring the controller to where it was, and queue the trials that have no result."""
        told = [number for kind, number in state.order if kind == "told"]
        if self._window is not None:
            told.sort()
        for number in told:
            record = state.trials[number]
            result = record.evaluation or record.failure
            assert result is not None
            self._untold[number] = result
        in_order = iter(told)
        proposals = [Proposal.from_json(event["proposal"]) for event in events if event["event"] == "asked"]
        num_told = [event["num_told"] for event in events if event["event"] == "asked"]
        for proposal, known in zip(proposals, num_told, strict=True):
            while self._num_told < known:
                self._tell(next(in_order))
            self._controller.replay_ask(proposal)
            self._num_asked += 1
        if self._window is None:
            for number in in_order:
                self._tell(number)
        for record in state.unfinished:
            trial = _Trial(proposals[record.number], record.seed, record.attempt)
            if record.status is Status.RUNNING:
                self._requeue(trial, "the search was stopped")
            else:
                self._waiting.append(trial)

    def _fill_slots(self) -> None:
        while len(self._in_flight) < self._executor.num_slots:
            trial = self._waiting.popleft() if self._waiting else self._ask()
            if trial is None:
                return
            number = trial.proposal.number
            self._in_flight[number] = trial
            self._executor.submit(
                Job(
                    number,
                    trial.attempt,
                    trial.proposal.genotype,
                    trial.seed,
                    trial.proposal.fidelity,
                    self._folder.trial_folder(number).absolute(),
                )
            )

    def _ask(self) -> _Trial | None:
        """Return a new trial, or None when there is none now; what is in flight may change that."""
        if self._over or self._num_asked >= self._num_trials:
            return None
        if self._window is not None:
            while self._num_told <= self._num_asked - self._window:
                if self._num_told not in self._untold:
                    return None
                self._tell(self._num_told)
        try:
            proposal = self._controller.ask()
            while proposal is None and self._num_told in self._untold:
                self._tell(self._num_told)  # an ordered run: one more, as the controller cannot do without
                proposal = self._controller.ask()
        except SpaceExhausted as reason:
            self._over = True
            self._display.note(f"nothing is left to try after {self._num_asked} trials: {reason}")
            return None
        if proposal is None:
            return None
        assert proposal.number == self._num_asked, "a controller numbers its proposals 0, 1, 2, ..."
        self._num_asked += 1
        key = network_key(proposal.genotype)
        seed = trial_seed(self._config.seed, key, proposal.replicate)
        self._record(
            "asked",
            proposal=proposal.to_json(),
            network_key=key,
            seed=seed,
            task_key=self._task_key,
            num_told=self._num_told,
        )
        return _Trial(proposal, seed)

    def _on_event(self, event: Event) -> None:
        trial = self._in_flight.get(event.number)
        if trial is None or trial.attempt != event.attempt:
            return  # late or repeated: this attempt is over
        about = {"number": event.number, "attempt": event.attempt}
        if isinstance(event, Started):
            self._record("started", **about, worker=event.worker, device=event.device, dtype=event.dtype)
        elif isinstance(event, EpochDone):
            self._record("epoch", **about, epoch=event.epoch, metrics=event.metrics)
        else:
            del self._in_flight[event.number]
            if not self._try_again(trial, event.result):
                self._finish(event)

    def _try_again(self, trial: _Trial, result: Result) -> bool:
        """Queue a trial again whose worker was lost; a lost machine is not held against the trial."""
        if not isinstance(result, Failure):
            return False
        if result.kind is FailureKind.WORKER_LOST:
            trial.num_lost += 1
        elif result.kind is not FailureKind.PREEMPTED:
            return False
        if trial.num_lost >= self._config.executor.max_attempts:
            return False
        self._requeue(trial, result.message)
        return True

    def _requeue(self, trial: _Trial, reason: str) -> None:
        trial.attempt += 1
        self._record("requeued", number=trial.proposal.number, attempt=trial.attempt, reason=reason)
        self._waiting.append(trial)

    def _finish(self, event: Finished) -> None:
        about = {"number": event.number, "attempt": event.attempt}
        result = event.result
        if isinstance(result, Evaluation):
            self._folder.write_curve(event.number, result.curve)
            result = replace(result, curve=())
            data = result.to_json()
            del data["curve"]
            self._record("told", **about, status=str(Status.COMPLETE), evaluation=data)
        else:
            self._record("told", **about, status=str(Status.FAILED), failure=result.to_json())
        # The controller gets what the journal has, so that a replayed one knows the same.
        self._untold[event.number] = result
        if self._window is None:
            self._tell(event.number)

    def _tell(self, number: int) -> None:
        self._controller.tell(number, self._untold.pop(number))
        self._num_told += 1

    def _record(self, kind: str, **fields: Any) -> None:
        event = {"event": kind, "at": _now(), **fields}
        self._journal.append(event)
        self._display.show(event)


class _Silent:
    """A display for nobody."""

    def begin(self, num_trials: int, past_events: list[dict[str, Any]]) -> AbstractContextManager[object]:
        return nullcontext()

    def show(self, event: dict[str, Any]) -> None:
        pass

    def note(self, text: str) -> None:
        pass


def _make_controller(config: SearchConfig, num_trials: int) -> Controller:
    space = space_by_name(config.space.name)
    searcher = make_controller(config.controller.name, space, seed=config.seed, **config.controller.options())
    return ReplicateLeaders(searcher, num_trials=num_trials, share=config.budget.replicate_share)


def _make_executor(task: Task, config: ExecutorConfig, run: Path) -> Executor:
    """Make the executor of a run, whose folder need not exist yet."""
    # Imported here: Ray takes seconds, and a serial search does without.
    if config.kind == "serial":
        from spinenas.search.serial import SerialExecutor

        return SerialExecutor(task)
    if config.kind == "ray":
        from spinenas.search.ray_actors import RayExecutor

        return RayExecutor(task, config)
    from spinenas.search.ray_tune import TuneExecutor

    return TuneExecutor(task, config, run.absolute() / "tune")


def proxy_task(config: SearchConfig) -> Task:
    """Make the task of a configuration."""
    from spinenas.proxy_task.task import ProxyTask  # torch

    return ProxyTask(config.task, threads=config.executor.threads_per_trial)


def _identity(task: Task, config: SearchConfig) -> dict[str, Any]:
    """What must be the same for a run to be continued."""
    return {
        "space": space_by_name(config.space.name).identity,
        "data": task.fingerprint,
        "task_key": task.key,
        "search_protocol": SEARCH_PROTOCOL,
    }


def _check_identity(path: str | Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to continue a run as another one. Raises UserError naming what changed."""
    said = {
        "space": "the search space changed",
        "data": "the data changed",
        "task_key": "the task changed",
        "search_protocol": "this version of the code searches differently",
    }
    for name, words in said.items():
        if before.get(name) == now[name]:
            continue
        old, new = before.get(name), now[name]
        if isinstance(old, dict) and isinstance(new, dict):
            changed = [key for key in new if old.get(key) != new[key]]
            old, new = {key: old.get(key) for key in changed}, {key: new[key] for key in changed}
        raise UserError(
            f"{path} cannot be resumed, {words}: it was {old}, it is {new}; bring back what it was, or start a new run"
        )


def _versions() -> dict[str, str]:
    packages = ("spinenas", "torch", "ray", "numpy", "pycocotools")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
