"""TensorBoard event files of a search, written from the events of its journal.

tensorboard/search/        `search/...` by number of results: each objective, the best mean and its number of runs;
                           if trainings pause, by number of epochs, with the objectives at each pause
tensorboard/trial-NNNNNN/  `epoch/...` by epoch: the metrics that each training reports

The files follow from the journal alone, byte for byte, times included. Each session rewrites them and then appends, so
that a resumed run has no step twice and an open TensorBoard continues to read. tensorboardX's SummaryWriter cannot do
this: it names files after the time of day and the host, and starts each with its own time. Its Event message is used.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import google_crc32c

from spinenas.results.leaderboard import ScalarizedObjective
from spinenas.results.record import Evaluation
from spinenas.results.storage.epoch_count import EpochCount
from spinenas.results.storage.events import EpochDone, Event, Finished, Paused, Requeued, RunStarted, Skipped
from spinenas.results.storage.journal import read_events
from spinenas.search.monitoring.base import Display
from spinenas.search.monitoring.progress import Progress
from spinenas.space.errors import UserError, first_line


class EventRecords:
    """Turns the events of a journal, in order, into records of event files."""

    def __init__(self, scalarize: ScalarizedObjective | None = None) -> None:
        from tensorboardX.proto.event_pb2 import Event  # it loads torch

        self._event = Event
        self._progress, self._epochs = Progress(num_trials=0, scalarize=scalarize), EpochCount()
        self._runs: dict[int, str] = {}  # by trial, the folder of its epochs
        self._last_epochs: dict[str, int] = {}
        self._known: set[str] = set()

    def add(self, event: Event) -> Iterator[tuple[str, bytes]]:
        """Yield file (below tensorboard/) and bytes to append for the next event."""
        match event:
            case RunStarted():
                self._name = f"events.out.tfevents.{int(_seconds(event))}.spinenas"
            case Requeued(number) if event.fidelity is not None:  # another training, whose epochs are kept apart
                self._runs[number] = f"trial-{number:06d}-attempt-{event.attempt}"
            case EpochDone(number):
                run = self._runs.setdefault(number, f"trial-{number:06d}")
                # A lost attempt may have reported the epoch already; the next one reports the same.
                if event.epoch > self._last_epochs.get(run, 0):
                    self._last_epochs[run] = event.epoch
                    figures = {f"epoch/{name}": value for name, value in event.metrics.items() if name != "epoch"}
                    yield from self._records(run, event, event.epoch, figures)
        self._progress.add(event)
        self._epochs.add(event)
        is_stopped = isinstance(event, Finished) and isinstance(event.result, Evaluation) and event.result.stopped_after
        if isinstance(event, Paused) and self._epochs.pauses:
            objective = {f"search/objective_after_epoch_{event.evaluation.stopped_after}": event.evaluation.objective}
            yield from self._records("search", event, self._epochs.done, objective)
        elif isinstance(event, Finished) and not (is_stopped and self._epochs.pauses):
            figures = {"search/failed": self._progress.num_failed}
            if isinstance(event.result, Evaluation) and event.result.stopped_after is None:
                figures["search/objective"] = event.result.objective
            leader = self._progress.leader()
            if leader is not None:
                figures |= {"search/best_mean": leader.mean, "search/best_runs": len(leader.objectives)}
            step = self._epochs.done if self._epochs.pauses else self._progress.num_done
            yield from self._records("search", event, step, figures)

    def _records(self, run: str, event: Event, step: int, figures: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
        file, seconds = f"{run}/{self._name}", _seconds(event)
        if run not in self._known:
            self._known.add(run)
            yield file, _record(self._event(wall_time=seconds, file_version="brain.Event:2").SerializeToString())
        values = [
            {"tag": tag, "simple_value": value}
            for tag, value in sorted(figures.items())
            if isinstance(value, int | float)
        ]
        summary = self._event(wall_time=seconds, step=step, summary={"value": values})
        yield file, _record(summary.SerializeToString())


class TensorBoardDisplay(Display):
    """A display that also writes event files; if they cannot be written, it says so once and the search continues."""

    def __init__(self, inner: Display, run: Path) -> None:
        """Wrap another display; nothing is written before `begin`. Raises UserError."""
        try:
            import tensorboardX  # noqa: F401
        except ImportError as error:
            raise UserError(
                "logging.tensorboard needs tensorboardX; pip install tensorboardX, or leave it off"
            ) from error
        self._inner, self._run, self._folder = inner, run, run / "tensorboard"
        self._records: EventRecords | None = None

    @contextmanager
    def begin(self, progress: Progress) -> Iterator[None]:
        self._scalarize = progress.scalarize
        with self._inner.begin(progress):
            self._try(self._rewrite)
            yield

    def show(self, event: Event) -> None:
        self._inner.show(event)
        if self._records is not None:
            self._try(lambda: self._append(event))

    def name_networks(self, names: Mapping[str, str]) -> None:
        self._inner.name_networks(names)

    def note(self, text: str) -> None:
        self._inner.note(text)

    def _rewrite(self) -> None:
        """Rewrite the files from the journal; earlier bytes stay the same."""
        records, contents = EventRecords(self._scalarize), defaultdict[str, bytearray](bytearray)
        for event in read_events(self._run / "journal.jsonl"):
            if not isinstance(event, Skipped):
                for file, content in records.add(event):
                    contents[file] += content
        for path in self._folder.glob("*/events.out.tfevents.*.spinenas"):
            if path.relative_to(self._folder).as_posix() not in contents:
                path.unlink()
        for file, whole in contents.items():
            self._write(file, whole, "wb")
        self._records = records

    def _append(self, event: Event) -> None:
        assert self._records is not None
        for file, content in self._records.add(event):
            self._write(file, content, "ab")

    def _write(self, file: str, content: bytes | bytearray, mode: str) -> None:
        path = self._folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, mode) as opened:  # not kept open, as there may be thousands of trials
            opened.write(content)

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # any exception: a search must not fail because of its log
            self._records = None
            self.note(
                f"this session stops logging for TensorBoard; resuming the run writes all of it: {first_line(error)}"
            )


def _seconds(event: Event) -> float:
    return datetime.fromisoformat(event.at).timestamp()


def _record(data: bytes) -> bytes:
    """Return a TFRecord: length, its checksum, data, its checksum."""
    length = struct.pack("<Q", len(data))
    return length + _masked_checksum(length) + data + _masked_checksum(data)


def _masked_checksum(data: bytes) -> bytes:
    crc: int = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
