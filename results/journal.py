"""The journal: one append-only file of events, and the state they add up to; nothing of how trials are run.

Each line is a JSON object `{"event": kind, ...}`, written by the driver alone as things happen:

| event | fields beside `at` (UTC, ISO 8601) |
|---|---|
| run_started | `schema`, `run`: what the run is |
| asked | `proposal` (its JSON), `network_key`, `seed`, `task_key` |
| started | `number`, `attempt`, `worker`, `device`, `dtype` |
| epoch | `number`, `attempt`, `epoch`, `metrics` |
| told | `number`, `attempt`, `status`, and `evaluation` without its curve, or `failure` |
| requeued | `number`, `attempt` (the new one), `reason` |
| resumed | `changes`: what the run was continued with |

The journal is the checkpoint: the state of a run is `fold(read_events(path))` and nothing else. A line counts
from its newline on; what stands after the last one was half-written when the driver died, and never was.
Who continues a run opens the journal first, which locks it, and reads it then.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from spinenas.results.record import Evaluation, Failure, Fidelity, Stage, Status, TrialRecord
from spinenas.space.baseline import architecture_from_text
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype

SCHEMA = "spinenas-journal/1"

FINISHED = (Status.COMPLETE, Status.PRUNED, Status.FAILED)

_MOVES = {
    (None, "asked"): (Status.ASKED,),
    (Status.ASKED, "started"): (Status.RUNNING,),
    (Status.RUNNING, "epoch"): (Status.RUNNING,),
    (Status.RUNNING, "told"): FINISHED,
    (Status.RUNNING, "requeued"): (Status.ASKED,),
    # A worker can be lost before its start was seen: the trial is queued again, or given up.
    (Status.ASKED, "requeued"): (Status.ASKED,),
    (Status.ASKED, "told"): (Status.FAILED,),
}


def next_status(current: Status | None, event: dict[str, Any]) -> Status:
    """Where a trial stands after an event; the one place that says which moves are legal. Raises UserError.

    Args:
        current: where it stood; None for a trial that does not exist yet.
        event: an event that concerns a trial.
    """
    targets = _MOVES.get((current, event["event"]), ())
    target = Status(event["status"]) if event["event"] == "told" else next(iter(targets), None)
    if target is None or target not in targets:
        word = f"{event['event']} {target}" if target else event["event"]
        raise UserError(f"a trial that is {current or 'unknown'} cannot be {word}")
    return target


class Journal:
    """An open journal; while it is open, no other process can write it.

    Use as a context manager. Lines are on the disk when `append` returns.
    """

    def __init__(self, path: Path, file: io.FileIO) -> None:
        """Take over an open, locked file; use `create` or `open`."""
        self.path = path
        self._file = file
        self._length = _complete_length(file)
        file.truncate(self._length)

    @classmethod
    def create(cls, path: Path) -> Journal:
        """Begin a new journal; an empty file may stand already. Raises UserError."""
        journal = cls(path, _open_locked(path, os.O_RDWR | os.O_CREAT))
        if journal._length:
            journal.close()
            raise UserError(f"{path} already holds a run; resume it, or choose another folder")
        return journal

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Continue a journal; a half-written last line is cut off first. Raises UserError."""
        return cls(path, _open_locked(path, os.O_RDWR))

    def append(self, event: dict[str, Any]) -> None:
        """Write one event and wait until it is on the disk.

        Raises UserError when it cannot be written (the journal then ends as before), ValueError for NaN.
        """
        line = json.dumps(event, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
            os.fsync(self._file.fileno())
        except OSError as error:
            # Without this a later event would follow half a line, and the file could not be read any more.
            os.ftruncate(self._file.fileno(), self._length)
            raise UserError(f"cannot write {self.path}: {error.strerror}; make room and resume the run") from error
        self._length += len(line)

    def close(self) -> None:
        """Let go of the file and its lock."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return all events in order; event i stands in line i + 1. Empty for a run that never wrote one.

    May be called while a driver writes. Raises UserError naming file and line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the journal {path}: {error.strerror}; name the folder of a run") from error
    lines = content.split(b"\n")[:-1]
    events = [_parse(line, path, number) for number, line in enumerate(lines, start=1)]
    if events and (events[0]["event"], events[0].get("schema")) != ("run_started", SCHEMA):
        raise UserError(
            f"{path} line 1 has schema {events[0].get('schema')!r}; this version reads journals of {SCHEMA!r}"
        )
    return events


@dataclass(frozen=True, slots=True)
class RunState:
    """What the events of a journal add up to.

    Attributes:
        run: what `run_started` said.
        resumes: the `changes` of each resumption, in order.
        trials: the records by number, ascending; curves are not in them (`RunFolder.read_curve`).
        order: ("asked" | "told", number) as they happened, which is what a controller is replayed from.
    """

    run: dict[str, Any]
    resumes: tuple[dict[str, Any], ...]
    trials: dict[int, TrialRecord]
    order: tuple[tuple[Literal["asked", "told"], int], ...]

    @property
    def unfinished(self) -> list[TrialRecord]:
        """Trials without an outcome, ascending; status RUNNING where one had been started."""
        return [record for record in self.trials.values() if record.status not in FINISHED]


def fold(events: Iterable[dict[str, Any]]) -> RunState:
    """Add events up to the state of the run. Raises UserError naming the line that cannot follow."""
    run: dict[str, Any] | None = None
    resumes: list[dict[str, Any]] = []
    trials: dict[int, dict[str, Any]] = {}  # fields of a TrialRecord, which is made once, at the end
    order: list[tuple[Literal["asked", "told"], int]] = []
    for line, event in enumerate(events, start=1):
        kind = event["event"]
        try:
            if (kind == "run_started") != (line == 1):
                raise UserError("a journal has one run_started, its first event")
            if kind == "run_started":
                run = event["run"]
            elif kind == "resumed":
                resumes.append(event["changes"])
            elif kind == "asked":
                trial = _asked(event)
                if trial["number"] != len(trials):
                    raise UserError(
                        f"trial {trial['number']} is asked after {len(trials)} trials; numbers have no gaps"
                    )
                trials[trial["number"]] = trial
                order.append(("asked", trial["number"]))
            elif kind in ("started", "epoch", "told", "requeued"):
                _advance(trials.get(event["number"], {}), event)
                if kind == "told":
                    order.append(("told", event["number"]))
            else:
                raise UserError(f"{kind!r} is no event this version knows")
        except UserError as error:
            raise UserError(f"line {line} of the journal does not fit: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"line {line} of the journal is no valid {kind} event: {type(error).__name__} {error}"
            ) from error
    if run is None:
        raise UserError(
            "the journal is empty: the run was stopped before it began; remove its folder and start it again"
        )
    return RunState(
        run=run,
        resumes=tuple(resumes),
        trials={number: TrialRecord(**trial) for number, trial in trials.items()},
        order=tuple(order),
    )


def _asked(event: dict[str, Any]) -> dict[str, Any]:
    """Fields of a fresh TrialRecord from an asked event."""
    proposal = event["proposal"]
    fidelity = proposal["fidelity"]
    architecture = architecture_from_text(proposal["genotype"])
    is_genotype = isinstance(architecture, Genotype)
    return {
        "number": proposal["number"],
        "genotype": architecture if is_genotype else None,
        "network_key": event["network_key"],
        "status": next_status(None, event),
        "architecture": "genotype" if is_genotype else architecture.text,
        "fidelity": None if fidelity is None else Fidelity.from_json(fidelity),
        "replicate": proposal["replicate"],
        "stage": Stage(proposal["stage"]),
        "continues": proposal["continues"],
        "parent": proposal["parent"],
        "origin": proposal["origin"],
        "info": proposal["info"],
        "seed": event["seed"],
        "attempt": 0,
        "task_key": event["task_key"],
        "asked_at": event["at"],
    }


def _advance(trial: dict[str, Any], event: dict[str, Any]) -> None:
    """Change the fields of a trial as an event about it says."""
    kind, attempt = event["event"], event["attempt"]
    status = next_status(trial.get("status"), event)
    if attempt != trial["attempt"] + (kind == "requeued"):
        raise UserError(f"trial {trial['number']} is in attempt {trial['attempt']}, {kind} names {attempt}")
    trial["status"], trial["attempt"] = status, attempt
    if kind == "started":
        trial.update(started_at=event["at"], worker=event["worker"], device=event["device"], dtype=event["dtype"])
    elif kind == "told":
        trial["finished_at"] = event["at"]
        if status is Status.FAILED:
            trial["failure"] = Failure.from_json(event["failure"])
        else:
            trial["evaluation"] = Evaluation.from_json(event["evaluation"])


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise UserError(
            f"{path} line {number} is broken: {line[:60].decode(errors='replace')!r} is no event; "
            "restore the file from a copy, or cut it before that line"
        )
    return event


def _open_locked(path: Path, flags: int) -> io.FileIO:
    try:
        file = os.fdopen(os.open(path, flags | os.O_APPEND, 0o666), "r+b", buffering=0)
    except OSError as error:
        raise UserError(f"cannot open the journal {path}: {error.strerror}; name the folder of a run") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise UserError(f"{path} is being written by another process; wait for it or stop it first") from error
    return file


def _complete_length(file: io.FileIO) -> int:
    """Bytes up to the last newline, inclusive; read from the end, as journals get long and lines do not."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 65536)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
