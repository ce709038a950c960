"""The serial executor: trials one after the other in this process, for debugging and without Ray."""

from __future__ import annotations

import time
from collections.abc import Callable

from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.executors.base import Executor, Job, Message, Note, Remark, Task, WorkerEvent
from spinenas.search.executors.worker import run_job


class SerialExecutor(Executor):
    """Runs the submitted job inside `wait`, from its start to its end."""

    def __init__(self, task: Task, config: ExecutorConfig, note: Note):
        """Run trials of a prepared task."""
        self._task, self._note = task, note
        self._seconds = config.trial_seconds
        self._job: Job | None = None

    @property
    def num_free(self) -> int:
        """One, until a job is submitted."""
        return int(self._job is None)

    def submit(self, job: Job) -> None:
        """Store the job for the next wait."""
        assert self._job is None, "a serial executor takes one job at a time"
        self._job = job

    def cancel(self, number: int) -> None:
        """Drop the job; the driver cannot call this while one runs."""
        self._job = None

    def wait(self, on_event: Callable[[WorkerEvent], None], timeout_seconds: float | None) -> None:
        """Run the job and hand over its events as they happen; without a job, sleep."""
        if self._job is None:
            time.sleep(timeout_seconds or 0)
            return
        job, self._job = self._job, None

        def hand_over(event: Message) -> None:
            if isinstance(event, Remark):
                self._note(event.text)
            else:
                on_event(event)

        run_job(self._task, job, "serial", hand_over, seconds=self._seconds)
