"""Trials one after the other in this process: the executor for debugging and for machines without Ray."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from spinenas.search.executor import Event, Job, Task, run_job


class SerialExecutor:
    """Runs the submitted job inside `wait`, from its start to its end."""

    num_slots = 1

    def __init__(self, task: Task):
        """Run trials of a prepared task."""
        self._task = task
        self._job: Job | None = None

    def submit(self, job: Job) -> None:
        """Keep the job for the next wait."""
        assert self._job is None, "a serial executor takes one job at a time"
        self._job = job

    def wait(self, on_event: Callable[[Event], None]) -> None:
        """Do the job, handing over its events as they happen."""
        assert self._job is not None, "nothing was submitted"
        job, self._job = self._job, None
        run_job(self._task, job, "serial", on_event)

    def __enter__(self) -> SerialExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to stop."""
