"""Shows the progress of a search: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from spinenas.results.record import Evaluation, Failure
from spinenas.results.storage.events import EpochDone, Event, Finished, Paused, Promoted, Requeued, Started
from spinenas.search.monitoring.base import Display
from spinenas.search.monitoring.progress import Progress

REFRESHES_PER_SECOND = 4

QUIET_SECONDS = 30.0
"""Plain lines report an epoch only if the trial had no line for this long."""


MOST_RUNNING = 16
"""The live table shows at most this many running trials."""


def _requeued(event: Requeued, trial: str) -> str:
    return f"{trial} is tried again: {event.reason}"


class _NamingDisplay(Display):
    """A display that can name the networks of trials."""

    _progress: Progress

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # by network key

    def name_networks(self, names: Mapping[str, str]) -> None:
        self._names.update(names)

    def _trial(self, number: int) -> str:
        """Return the number of a trial without a result, with the name of its network if it has one."""
        name = self._names.get(self._progress.network_of(number) or "")
        return f"trial {number} ({name})" if name else f"trial {number}"


class PlainDisplay(_NamingDisplay):
    """Prints one line for each trial that starts or ends, and for some epochs of long trials."""

    def __init__(self, stream: TextIO):
        super().__init__()
        self._stream = stream
        self._heard_of: dict[int, float] = {}  # by number of a running trial, time of its last line
        self._continued: set[int] = set()  # trials that continue, before they start again

    def begin(self, progress: Progress) -> AbstractContextManager[object]:
        self._progress = progress
        if progress.is_resumed:
            unit = " trials" if progress.epochs is None else ""
            self.note(f"resumed with {progress.done_words()}{unit} done")
        if progress.workload is not None and progress.workload.is_calibrated:
            self.note(f"{progress.time_left()} predicted, by the calibration of this machine")
        return nullcontext()

    def show(self, event: Event) -> None:
        trial = self._trial(event.number) if isinstance(event, Finished) else ""  # the name before it is finished
        self._progress.add(event)
        match event:
            case EpochDone():
                self._epoch(event)
            case Started(number):
                self._heard_of[number] = time.monotonic()
                if number in self._continued:  # a line has said so
                    self._continued.remove(number)
                else:
                    self.note(f"{self._trial(number)} started on {event.worker} ({event.device})")
            case Requeued() if event.failure_kind is not None:  # else the driver says where the trial continues
                self.note(_requeued(event, self._trial(event.number)))
            case Paused() if self._progress.epochs is not None:
                self.note(self._paused(event))
            case Promoted():
                self.note(
                    f"{self._trial(event.number)} continues after epoch {event.epoch}, with AP {event.objective:.4f}"
                    + self._up_to(event)
                )
            case Finished(result=Evaluation(stopped_after=int())) if self._progress.epochs is not None:
                pass  # a paused training that the search has ended without; its pause was reported
            case Finished():
                self.note(self._finished(event, trial))

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def _epoch(self, event: EpochDone) -> None:
        now = time.monotonic()
        if now - self._heard_of[event.number] >= QUIET_SECONDS:
            self._heard_of[event.number] = now
            figures = "".join(f", {name} {value:.4g}" for name, value in event.metrics.items())
            self.note(f"{self._trial(event.number)} epoch {event.epoch}{figures}")

    def _finished(self, event: Finished, trial: str) -> str:
        result = event.result
        if isinstance(result, Failure):
            outcome = f"failed ({result.kind}): {result.message}"
        else:
            outcome = f"AP {result.objective:.4f}"
            if result.stopped_after is not None:
                outcome = f"stopped after epoch {result.stopped_after} with {outcome}"
        return f"{trial} {outcome}; {self._standing()}"

    def _paused(self, event: Paused) -> str:
        evaluation = event.evaluation
        return (
            f"{self._trial(event.number)} paused after epoch {evaluation.stopped_after} with AP "
            f"{evaluation.objective:.4f}; {self._standing()}"
        )

    def _standing(self) -> str:
        progress = self._progress
        done = f"{progress.num_done}/{progress.num_trials} done"
        if progress.epochs is not None:
            done = f"{progress.done_words()} done ({progress.networks_words()})"
        best = progress.ahead() or f"best {progress.best()}"
        return f"{done}, {best}, {progress.time_left()} left"

    def _up_to(self, event: Promoted) -> str:
        """Say how far a controller continues a trial; nothing for halving."""
        if event.num_told is None:
            return ""
        self._continued.add(event.number)
        return f", {'to the end' if event.until is None else f'up to epoch {event.until}'}"


class LiveDisplay(_NamingDisplay):
    """Shows a table that is redrawn in place."""

    def __init__(self, console: Console):
        super().__init__()
        self._console = console

    def begin(self, progress: Progress) -> AbstractContextManager[object]:
        self._progress = progress
        return Live(console=self._console, get_renderable=self._draw, refresh_per_second=REFRESHES_PER_SECOND)

    def show(self, event: Event) -> None:
        trial = self._trial(event.number) if isinstance(event, Finished | Requeued) else ""
        self._progress.add(event)
        match event:
            case Requeued() if event.failure_kind is not None:
                self.note(_requeued(event, trial))
            case Finished(result=Failure() as failure):
                self.note(f"{trial} failed ({failure.kind}): {failure.message}")

    def note(self, text: str) -> None:
        self._console.print(Text(text))

    def _draw(self) -> Table:
        progress = self._progress
        pace = progress.trials_per_hour()
        table = Table.grid(padding=(0, 2))
        total, completed, unit = progress.num_trials, progress.num_done, "trials"
        if progress.epochs is not None:
            total, completed, unit = progress.num_epochs, progress.epochs.done, "trainings' worth"
        table.add_row("", ProgressBar(total=total, completed=completed, width=50))
        is_stopped = progress.num_stopped and progress.epochs is None
        stopped = f", {progress.num_stopped} stopped early" if is_stopped else ""
        running = [f"{self._trial(number)}: {trial.words()}" for number, trial in sorted(progress.running.items())]
        if len(running) > MOST_RUNNING:
            running[MOST_RUNNING:] = [f"and {len(running) - MOST_RUNNING} more"]
        for name, value in (
            ("done", f"{progress.done_words()}, {progress.num_failed} failed{stopped}"),
            *([] if progress.epochs is None else [("trained", progress.networks_words())]),
            ("running", "\n".join(running) or "none"),
            ("best AP", progress.ahead() or progress.best()),
            ("pace", "unknown" if pace is None else f"{pace:.1f} {unit} per hour"),
            ("time left", progress.time_left()),
        ):
            table.add_row(Text(name, style="bold"), Text(value))
        return table


def display_for(stream: TextIO = sys.stderr) -> Display:
    """Return a live display for a terminal, plain lines otherwise."""
    console = Console(file=stream)
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(stream)
