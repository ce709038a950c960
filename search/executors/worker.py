"""The worker's side of an executor: runs one job and reports its events."""

from __future__ import annotations

import queue
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from spinenas.results.record import Evaluation, Failure, FailureKind
from spinenas.results.storage.events import EpochDone, Finished, Paused, Started
from spinenas.search.executors.base import ENDS, Job, Message, Remark, Task
from spinenas.search.executors.trial_storage import TrialStorage
from spinenas.space.errors import UserError


class _TimeIsUp(BaseException):
    """A trial has exceeded its time limit. A BaseException, because a task turns every Exception into a failure."""


def run_job(
    task: Task,
    job: Job,
    worker: str,
    on_event: Callable[[Message], None],
    *,
    accelerators: float = 1.0,
    seconds: float | None = None,
) -> None:
    """Run a job in this thread; an exception that the task raises becomes a Failure of kind bug.

    Args:
        accelerators: accelerators of the worker, for accounting.
        seconds: the time limit, checked after each epoch.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    storage = TrialStorage(job.folder, job.mirror)

    def try_storage(step: Callable[[], None]) -> None:
        try:
            step()
        except (OSError, UserError) as problem:
            if _remarked:
                return
            _remarked.append(str(problem))
            on_event(
                Remark(
                    f"{worker} cannot keep checkpoints, {problem}; a trial that loses its worker there starts over; "
                    "put the run on storage that all machines see under the same path, or give it a storage.mirror"
                )
            )

    def report(epoch: int, metrics: dict[str, float]) -> None:
        try_storage(storage.keep)  # before the report: a reported epoch is not repeated
        on_event(EpochDone(job.number, job.attempt, epoch, metrics))
        if deadline is not None and time.monotonic() > deadline:
            raise _TimeIsUp

    try:
        on_event(Started(job.number, job.attempt, worker, task.device, task.dtype, accelerators))
        _say_remark(task, worker, on_event)
        try_storage(storage.open)
        result = task.evaluate(
            job.genotype,
            seed=job.seed,
            fidelity=job.fidelity,
            attempt=job.attempt,
            folder=storage.folder,
            report=report,
            until=job.until,
        )
    except _TimeIsUp:
        result = timeout_failure(seconds or 0.0)
    except Exception as error:
        result = Failure(FailureKind.BUG, str(error) or type(error).__name__, traceback.format_exc())
    storage.close()
    if isinstance(result, Evaluation) and result.stopped_after is not None:
        on_event(Paused(job.number, job.attempt, result))
    else:
        on_event(Finished(job.number, job.attempt, result))


def _say_remark(task: Task, worker: str, on_event: Callable[[Message], None]) -> None:
    """Tell the user, once in this process, what the task says of this machine, if it says anything."""
    remark = getattr(task, "remark", None)
    if isinstance(remark, str) and remark not in _remarks_of_tasks:
        _remarks_of_tasks.add(remark)
        on_event(Remark(f"{worker}: {remark}"))


_remarks_of_tasks: set[str] = set()
"""Remarks of tasks that this process has passed on."""

_remarked: list[str] = []
"""Storage problems that this process has reported; each process reports one."""


def timeout_failure(seconds: float) -> Failure:
    """The failure of a trial that exceeds its time limit."""
    return Failure(FailureKind.TIMEOUT, f"it took longer than executor.trial_minutes, {seconds / 60:g}, allows")


# One thread for all jobs of a worker: glibc would keep the memory pools of each new thread.
_job_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trial")


def stream_job(task: Task, job: Job, worker: str, *, accelerators: float, seconds: float | None) -> Iterator[Message]:
    """Run a job in the worker's single job thread, and yield its events as they happen."""
    events: queue.SimpleQueue[Message | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            run_job(task, job, worker, events.put, accelerators=accelerators, seconds=seconds)
        finally:
            events.put(None)  # even after a BaseException

    _job_thread.submit(run)
    event: Message | None = None
    while not isinstance(event, ENDS):
        event = events.get()
        if event is None:
            raise RuntimeError(f"trial {job.number} was left without a result")
        yield event
