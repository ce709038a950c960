"""A driver whose executor plays a script: the test says which events arrive, and in which order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fake_task import FakeTask
from journal_lines import json_events

import spinenas.search.run.driver as driver_module
from spinenas.controller.random_search import RandomSearch
from spinenas.results.record import Failure, FailureKind
from spinenas.results.storage.events import Finished, RunStarted, Started
from spinenas.results.storage.journal import SCHEMA, Journal, read_events
from spinenas.results.storage.run_folder import RunFolder
from spinenas.results.storage.run_state import fold
from spinenas.search.config.config import SearchConfig
from spinenas.search.executors.base import ENDS, Job, WorkerEvent
from spinenas.search.monitoring.base import Display
from spinenas.search.run.driver import Driver
from spinenas.space.search_space import space_by_name


class ScriptedExecutor:
    """Hands over the events of a test's script, one list per wait."""

    def __init__(self, num_slots: int, script: list[list[WorkerEvent]]):
        self._num_slots, self._script = num_slots, script
        self.jobs: list[Job] = []
        self.open: dict[int, Job] = {}
        self.timeouts: list[float | None] = []
        self.cancelled: list[int] = []
        self.is_released = False

    @property
    def num_free(self) -> int:
        return self._num_slots - len(self.open)

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        self.open[job.number] = job

    def cancel(self, number: int) -> None:
        self.cancelled.append(number)
        del self.open[number]

    def release_idle(self) -> None:
        self.is_released = True

    def wait(self, on_event: Callable[[WorkerEvent], None], timeout_seconds: float | None) -> None:
        self.timeouts.append(timeout_seconds)
        if not self._script:
            raise EndOfScript
        for event in self._script.pop(0):
            if isinstance(event, ENDS):
                job = self.open.get(event.number)
                if job is not None and job.attempt == event.attempt:
                    del self.open[event.number]
            on_event(event)


class EndOfScript(Exception):
    pass


class NotingDisplay(Display):
    def note(self, text: str) -> None:
        notes.append(text)


notes: list[str] = []


class Play:
    """A driver with a scripted executor, and its journal."""

    def __init__(self, tmp_path: Path, script: list[list[WorkerEvent]], *, num_slots: int = 1, config: SearchConfig):
        self.folder = RunFolder.create(tmp_path / "run", "", config.to_json(), {})
        self.executor = ScriptedExecutor(num_slots, script)
        self.clock = 100.0
        self.task_epochs = 2
        self.window: int | None = None
        self._config = config

    def run(self) -> list[dict[str, Any]]:
        """Play the script; the events that were recorded."""
        with Journal.create(self.folder.journal_path) as journal:
            journal.append(RunStarted(SCHEMA, {}, at=driver_module.now()))
            controller = RandomSearch(space_by_name("tiny"), seed=0)
            self.driver = Driver(
                self._config,
                self.folder,
                journal,
                FakeTask(self.task_epochs),
                controller,
                self.executor,
                NotingDisplay(),
                window=self.window,
                clock=lambda: self.clock,
            )
            with contextlib.suppress(EndOfScript):
                self.driver.run()
        events = json_events(self.folder.journal_path)
        fold(read_events(self.folder.journal_path))
        return events[1:]


def started(number: int, attempt: int = 0) -> Started:
    return Started(number, attempt, "worker-0", "cpu", "float32")


def lost(number: int, attempt: int, kind: FailureKind) -> Finished:
    return Finished(number, attempt, Failure(kind, f"{kind} on purpose"))


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]
