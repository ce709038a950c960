"""Watching a search: a live table on a terminal, plain lines elsewhere; it knows events, and what is predicted."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from spinenas.controller.base import Proposal
from spinenas.results.record import Failure, Status
from spinenas.results.storage.events import Asked, EpochDone, Event, Finished, Paused, Promoted, Requeued, Started
from spinenas.results.storage.run_state import RunState
from spinenas.search.monitoring.forecast import Forecast, Workload

REFRESHES_PER_SECOND = 4

QUIET_SECONDS = 30.0
"""Plain lines tell of an epoch only when its trial was not heard of for so long."""


@dataclass(slots=True)
class Progress:
    """How far a search is: the sum of the events it was given.

    Attributes:
        num_trials: the budget.
        running: by trial number, the last epoch that is done.
        networks: by trial number, the network key.
        objectives: by network key, those of its complete trials.
        num_failed: trials without a result.
        num_stopped: trials that halving has stopped.
        num_timed: trials that were finished in this session, from which its pace follows.
        began: when this session began, seconds of the monotonic clock.
        workload: by which trials count for the time left; None where nothing is predicted, and all count the same.
    """

    num_trials: int
    running: dict[int, int] = field(default_factory=dict)
    objectives: dict[str, list[float]] = field(default_factory=dict)
    num_failed: int = 0
    num_stopped: int = 0
    num_timed: int = 0
    began: float = field(default_factory=time.monotonic)
    networks: dict[int, str] = field(default_factory=dict)
    workload: Workload | None = None
    _best_single: float | None = None
    _replicated: set[str] = field(default_factory=set)

    def add(self, event: Event) -> None:
        """Take the next event of the journal."""
        if self.workload is not None:
            self.workload.add(event)
        match event:
            case Asked():
                self.networks[event.number] = event.network_key
            case Started(number):
                self.running[number] = 0
            case EpochDone(number):
                self.running[number] = event.epoch
            case Requeued(number) | Paused(number):
                self.running.pop(number, None)
            case Finished(number, _, result):
                self.running.pop(number, None)
                self.num_timed += 1
                if isinstance(result, Failure):
                    self.num_failed += 1
                elif result.stopped_after is not None:
                    self.num_stopped += 1
                else:
                    self._count(self.networks[number], result.objective)

    @property
    def num_complete(self) -> int:
        return sum(map(len, self.objectives.values()))

    @property
    def num_done(self) -> int:
        """Complete, stopped and failed trials together."""
        return self.num_complete + self.num_stopped + self.num_failed

    def best(self) -> str:
        """The mean objective of the network that would win now, with its spread where there is one."""
        leader = self.leader()
        if not leader:
            return "none yet"
        if len(leader) == 1:
            return f"{leader[0]:.4f} (one run)"
        return f"{statistics.fmean(leader):.4f} ± {statistics.stdev(leader):.4f} (n={len(leader)})"

    def leader(self) -> list[float]:
        """The objectives of the network that would win now; none before the first."""
        # As results.leaderboard.winner has it: among single runs the best is mostly the luckiest.
        if self._replicated:
            return max((self.objectives[key] for key in self._replicated), key=statistics.fmean)
        return [] if self._best_single is None else [self._best_single]

    def _count(self, key: str, objective: float) -> None:
        """Take the objective of a complete trial; in a long run there are too many to look at all of them each time."""
        objectives = self.objectives.setdefault(key, [])
        objectives.append(objective)
        self._best_single = max(objective, self._best_single if self._best_single is not None else objective)
        if len(objectives) > 1:
            self._replicated.add(key)

    def trials_per_hour(self) -> float | None:
        """The pace of this session; None before its first result."""
        seconds = time.monotonic() - self.began
        return 3600 * self.num_timed / seconds if self.num_timed and seconds > 0 else None

    def time_left(self) -> str:
        """Hours, minutes and seconds at the present pace; as predicted before there is one."""
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


def _progress(num_trials: int, past: RunState | None, forecast: Forecast | None) -> Progress:
    workload = None
    if forecast is not None:
        workload = Workload(forecast)
        for record in past.unfinished if past else ():
            workload.ask(Proposal.of_record(record))
    progress = Progress(num_trials, workload=workload)
    for record in past.trials.values() if past else ():
        progress.networks[record.number] = record.network_key
        if record.evaluation and record.status is Status.COMPLETE:
            progress._count(record.network_key, record.evaluation.objective)
        progress.num_stopped += record.status is Status.PRUNED
        progress.num_failed += record.failure is not None
    return progress


class PlainDisplay:
    """One line for each trial that starts or ends, and for epochs of a trial that takes long."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._heard_of: dict[int, float] = {}  # by running trial, when its last line was printed
        self._forecast: Forecast | None = None

    def expect(self, forecast: Forecast) -> None:
        self._forecast = forecast

    @contextmanager
    def begin(self, num_trials: int, past: RunState | None) -> Iterator[None]:
        self._progress = _progress(num_trials, past, self._forecast)
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
                self.note(f"trial {event.number} is tried again: {event.reason}")
            case Promoted():
                self.note(f"trial {event.number} goes on after epoch {event.epoch}, with AP {event.objective:.4f}")
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
    """A table that is redrawn in place."""

    def __init__(self, console: Console):
        self._console = console
        self._forecast: Forecast | None = None

    def expect(self, forecast: Forecast) -> None:
        self._forecast = forecast

    @contextmanager
    def begin(self, num_trials: int, past: RunState | None) -> Iterator[None]:
        self._progress = _progress(num_trials, past, self._forecast)
        with Live(console=self._console, get_renderable=self._draw, refresh_per_second=REFRESHES_PER_SECOND):
            yield

    def show(self, event: Event) -> None:
        self._progress.add(event)
        match event:
            case Requeued():
                self.note(f"trial {event.number} is tried again: {event.reason}")
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
    """Choose by whether the stream is a terminal."""
    console = Console(file=stream)
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(stream)
