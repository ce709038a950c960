"""Shows the progress of a search: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from spinenas.controller.base import Proposal
from spinenas.results.leaderboard import NetworkRuns, ScalarizedObjective, leader
from spinenas.results.record import Failure, Fidelity, Status, TrialRecord
from spinenas.results.storage.events import Asked, EpochDone, Event, Finished, Paused, Promoted, Requeued, Started
from spinenas.results.storage.run_state import FINISHED, RunState, asked_fields
from spinenas.search.monitoring.forecast import Forecast, Workload

REFRESHES_PER_SECOND = 4

QUIET_SECONDS = 30.0
"""Plain lines report an epoch only if the trial had no line for this long."""


@dataclass(slots=True)
class Progress:
    """Progress of a search, computed from its events.

    Attributes:
        num_trials: the budget.
        running: by number of a running trial, the last epoch done.
        scalarize: the objective by which networks are compared; None for AP itself.
        num_failed: failed trials.
        num_complete: trials with a complete training.
        num_stopped: trials that halving has stopped.
        num_timed: trials finished in this session, which determine its pace.
        began: start of this session, in seconds of the monotonic clock.
        workload: predicted work, for the time left; None without a prediction, when all trials count the same.
    """

    num_trials: int
    running: dict[int, int] = field(default_factory=dict)
    scalarize: ScalarizedObjective | None = None
    num_complete: int = 0
    num_failed: int = 0
    num_stopped: int = 0
    num_timed: int = 0
    began: float = field(default_factory=time.monotonic)
    workload: Workload | None = None
    _trials: dict[int, TrialRecord] = field(default_factory=dict)  # without a result
    _networks: dict[tuple[str, Fidelity | None], NetworkRuns] = field(default_factory=dict)
    _best_single: NetworkRuns | None = None
    _replicated: dict[tuple[str, Fidelity | None], NetworkRuns] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Take the next event of the journal."""
        if self.workload is not None:
            self.workload.add(event)
        match event:
            case Asked():
                self._trials[event.number] = TrialRecord(**asked_fields(event))
            case Started(number):
                self.running[number] = 0
            case EpochDone(number):
                self.running[number] = event.epoch
            case Requeued(number) | Paused(number):
                self.running.pop(number, None)
                if isinstance(event, Requeued) and event.fidelity is not None:
                    self._trials[number] = replace(self._trials[number], fidelity=event.fidelity)
            case Finished(number, _, result):
                self.running.pop(number, None)
                self.num_timed += 1
                trial = self._trials.pop(number)
                if isinstance(result, Failure):
                    self.num_failed += 1
                elif result.stopped_after is not None:
                    self.num_stopped += 1
                else:
                    self._count(trial, result.objective)

    @property
    def num_done(self) -> int:
        """Complete, stopped and failed trials together."""
        return self.num_complete + self.num_stopped + self.num_failed

    def resume(self, past: RunState) -> None:
        """Count the trials of earlier sessions; none of them counts for the pace."""
        for record in past.trials.values():
            if record.evaluation and record.status is Status.COMPLETE:
                self._count(record, record.evaluation.objective)
            elif record.status not in FINISHED:
                self._trials[record.number] = record
            self.num_stopped += record.status is Status.PRUNED
            self.num_failed += record.failure is not None

    def best(self) -> str:
        """Mean AP of the network that would win now, with its spread where there is one."""
        network = self.leader()
        if network is None:
            return "none yet"
        objectives = network.objectives
        if len(objectives) == 1:
            return f"{objectives[0]:.4f} (one run)"
        return f"{network.mean:.4f} ± {statistics.stdev(objectives):.4f} (n={len(objectives)})"

    def leader(self) -> NetworkRuns | None:
        """The network that would win now; None before the first result."""
        return leader(self._replicated.values(), self.scalarize) if self._replicated else self._best_single

    def _count(self, trial: TrialRecord, objective: float) -> None:
        """Count a complete trial. A long run has too many networks to compare all of them each time."""
        self.num_complete += 1
        key = trial.network_key, trial.fidelity
        network = self._networks.setdefault(key, NetworkRuns(trial.number, trial.genotype))
        network.number = min(network.number, trial.number)
        network.objectives.append(objective)
        if len(network.objectives) > 1:
            self._replicated[key] = network
        elif not self._replicated:
            self._best_single = leader(filter(None, (self._best_single, network)), self.scalarize)

    def trials_per_hour(self) -> float | None:
        """The pace of this session; None before its first result."""
        seconds = time.monotonic() - self.began
        return 3600 * self.num_timed / seconds if self.num_timed and seconds > 0 else None

    def time_left(self) -> str:
        """Hours, minutes and seconds left at the present pace; the prediction before there is one."""
        num_left = self.num_trials - self.num_done
        if self.workload is not None:
            seconds = self.workload.seconds_left(num_left, time.monotonic() - self.began)
        else:
            pace = self.trials_per_hour()
            seconds = None if pace is None else 3600 * num_left / pace
        if seconds is None:
            return "unknown"
        whole = round(seconds)
        return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _progress(
    num_trials: int, past: RunState | None, scalarize: ScalarizedObjective | None, forecast: Forecast | None
) -> Progress:
    workload = None
    if forecast is not None:
        workload = Workload(forecast)
        for record in past.unfinished if past else ():
            workload.ask(Proposal.of_record(record))
    progress = Progress(num_trials, scalarize=scalarize, workload=workload)
    if past:
        progress.resume(past)
    return progress


def _requeued(event: Requeued) -> str:
    if event.failure_kind is None:  # the driver stopped, not the trial
        return f"trial {event.number} continues from its last checkpoint, if it has one: {event.reason}"
    return f"trial {event.number} is tried again: {event.reason}"


class PlainDisplay:
    """Prints one line for each trial that starts or ends, and for some epochs of long trials."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._heard_of: dict[int, float] = {}  # by number of a running trial, time of its last line
        self._forecast: Forecast | None = None

    def expect(self, forecast: Forecast) -> None:
        self._forecast = forecast

    @contextmanager
    def begin(
        self, num_trials: int, past: RunState | None, scalarize: ScalarizedObjective | None = None
    ) -> Iterator[None]:
        self._progress = _progress(num_trials, past, scalarize, self._forecast)
        if past:
            self.note(f"resumed with {self._progress.num_done} of {num_trials} trials done")
        if self._forecast:
            self.note(f"{self._progress.time_left()} predicted, by the calibration of this machine")
        yield

    def show(self, event: Event) -> None:
        self._progress.add(event)
        match event:
            case EpochDone():
                self._epoch(event)
            case Started(number):
                self._heard_of[number] = time.monotonic()
                self.note(f"trial {number} started on {event.worker} ({event.device})")
            case Requeued():
                self.note(_requeued(event))
            case Promoted():
                self.note(f"trial {event.number} continues after epoch {event.epoch}, with AP {event.objective:.4f}")
            case Finished():
                self.note(self._finished(event))

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def _epoch(self, event: EpochDone) -> None:
        now = time.monotonic()
        if now - self._heard_of[event.number] >= QUIET_SECONDS:
            self._heard_of[event.number] = now
            figures = "".join(f", {name} {value:.4g}" for name, value in event.metrics.items())
            self.note(f"trial {event.number} epoch {event.epoch}{figures}")

    def _finished(self, event: Finished) -> str:
        progress, result = self._progress, event.result
        if isinstance(result, Failure):
            outcome = f"failed ({result.kind}): {result.message}"
        else:
            outcome = f"AP {result.objective:.4f}"
            if result.stopped_after is not None:
                outcome = f"stopped after epoch {result.stopped_after} with {outcome}"
        return (
            f"trial {event.number} {outcome}; {progress.num_done}/{progress.num_trials} done, "
            f"best {progress.best()}, {progress.time_left()} left"
        )


class LiveDisplay:
    """Shows a table that is redrawn in place."""

    def __init__(self, console: Console):
        self._console = console
        self._forecast: Forecast | None = None

    def expect(self, forecast: Forecast) -> None:
        self._forecast = forecast

    @contextmanager
    def begin(
        self, num_trials: int, past: RunState | None, scalarize: ScalarizedObjective | None = None
    ) -> Iterator[None]:
        self._progress = _progress(num_trials, past, scalarize, self._forecast)
        with Live(console=self._console, get_renderable=self._draw, refresh_per_second=REFRESHES_PER_SECOND):
            yield

    def show(self, event: Event) -> None:
        self._progress.add(event)
        match event:
            case Requeued():
                self.note(_requeued(event))
            case Finished(number, _, Failure() as failure):
                self.note(f"trial {number} failed ({failure.kind}): {failure.message}")

    def note(self, text: str) -> None:
        self._console.print(Text(text))

    def _draw(self) -> Table:
        progress = self._progress
        pace = progress.trials_per_hour()
        table = Table.grid(padding=(0, 2))
        table.add_row("", ProgressBar(total=progress.num_trials, completed=progress.num_done, width=50))
        stopped = f", {progress.num_stopped} stopped early" if progress.num_stopped else ""
        running = ", ".join(f"{number} (epoch {epoch})" for number, epoch in sorted(progress.running.items()))
        for name, value in (
            ("done", f"{progress.num_done} of {progress.num_trials}, {progress.num_failed} failed{stopped}"),
            ("running", running or "none"),
            ("best AP", progress.best()),
            ("pace", "unknown" if pace is None else f"{pace:.1f} trials per hour"),
            ("time left", progress.time_left()),
        ):
            table.add_row(Text(name, style="bold"), Text(value))
        return table


def display_for(stream: TextIO = sys.stderr) -> PlainDisplay | LiveDisplay:
    """Return a live display for a terminal, plain lines otherwise."""
    console = Console(file=stream)
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(stream)
