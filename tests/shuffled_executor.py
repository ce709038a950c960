"""Simulates several workers in one process: they finish in random order, and some are lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Self

import numpy as np

from spinenas.results.record import Failure, FailureKind
from spinenas.results.storage.events import Finished
from spinenas.search.executors.base import Job, Task, WorkerEvent
from spinenas.search.executors.worker import run_job


class ShuffledExecutor:
    """Runs each job when it is submitted, and hands out the events of all jobs in random order."""

    def __init__(self, task: Task, num_slots: int, seed: int, lost: dict[tuple[int, int], FailureKind]):
        self.num_slots = num_slots
        self.note: Callable[[str], None] | None = None
        self._task, self._lost = task, lost
        self._rng = np.random.default_rng(seed)
        self._queues: list[deque[WorkerEvent]] = []

    @property
    def num_free(self) -> int:
        return self.num_slots - len(self._queues)

    def submit(self, job: Job) -> None:
        events: deque[WorkerEvent] = deque()
        run_job(self._task, job, "shuffled", events.append)
        kind = self._lost.get((job.number, job.attempt))
        if kind is not None:
            events = deque([events[0], Finished(job.number, job.attempt, Failure(kind, "lost on purpose"))])
        self._queues.append(events)
        assert len(self._queues) <= self.num_slots

    def cancel(self, number: int) -> None:
        self._queues = [events for events in self._queues if events[0].number != number]

    def release_idle(self) -> None:
        pass

    def wait(self, on_event: Callable[[WorkerEvent], None], timeout_seconds: float | None) -> None:
        if not self._queues:
            assert timeout_seconds is not None, "otherwise the driver waits for nothing"
            return
        events = self._queues[self._rng.integers(len(self._queues))]
        event = events.popleft()
        if not events:
            self._queues.remove(events)
        on_event(event)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass
