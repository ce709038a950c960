"""What the loop and those who run its trials say to each other; nothing of how either works.

Figures and results travel as events. An event belongs to one attempt of one trial, so that what arrives late or
twice can be told from what is awaited.
"""

from __future__ import annotations

import queue
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from spinenas.results.record import Evaluation, Failure, FailureKind, Fidelity
from spinenas.space.baseline import Architecture


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at one trial.

    Attributes:
        number, attempt: which one.
        genotype: what is trained.
        seed: what everything random in it is derived from.
        fidelity: how much training; None for the task's own.
        folder: the trial's own.
    """

    number: int
    attempt: int
    genotype: Architecture
    seed: int
    fidelity: Fidelity | None
    folder: Path


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has begun."""

    number: int
    attempt: int
    worker: str
    device: str
    dtype: str


@dataclass(frozen=True, slots=True)
class EpochDone:
    """An epoch, counted from 1, is over."""

    number: int
    attempt: int
    epoch: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Finished:
    """An attempt is over.

    A Failure of kind worker_lost or preempted says that the worker, not the trial, came to an end.
    """

    number: int
    attempt: int
    result: Evaluation | Failure


Event = Started | EpochDone | Finished


class Task(Protocol):
    """What measures a genotype; `spinenas.proxy_task.task.ProxyTask` is one. It is pickled to reach workers."""

    @property
    def key(self) -> str:
        """What gives its numbers their meaning."""

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the data is."""

    @property
    def fidelity(self) -> Fidelity:
        """How much training a trial is."""

    @property
    def device(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    def prepare(self) -> None:
        """Make the data ready, before any worker starts. Raises UserError."""

    def evaluate(
        self,
        genotype: Architecture,
        *,
        seed: int,
        fidelity: Fidelity | None,
        attempt: int,
        folder: Path,
        report: Callable[[int, dict[str, float]], bool],
    ) -> Evaluation | Failure:
        """Train and measure; never raises for what can go wrong in a trial.

        An attempt may go on where the one before it was interrupted, and then reports only the epochs after that.
        """


class Executor(Protocol):
    """Runs jobs somewhere, a few at a time; a context manager, made by entering and stopped by leaving."""

    @property
    def num_slots(self) -> int:
        """How many jobs may be submitted before one is finished."""

    def submit(self, job: Job) -> None:
        """Begin a job; at most num_slots are unfinished."""

    def wait(self, on_event: Callable[[Event], None]) -> None:
        """Hand over what has happened, waiting until something has; a lost worker is a Finished as well."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def run_job(task: Task, job: Job, worker: str, on_event: Callable[[Event], None]) -> None:
    """Do a job in this thread; whatever the task raises against its promise is a Failure of kind bug."""

    def report(epoch: int, metrics: dict[str, float]) -> bool:
        on_event(EpochDone(job.number, job.attempt, epoch, metrics))
        return True  # nothing stops a trial early yet

    result: Evaluation | Failure
    try:
        on_event(Started(job.number, job.attempt, worker, task.device, task.dtype))
        result = task.evaluate(
            job.genotype,
            seed=job.seed,
            fidelity=job.fidelity,
            attempt=job.attempt,
            folder=job.folder,
            report=report,
        )
    except Exception as error:
        result = Failure(FailureKind.BUG, str(error) or type(error).__name__, traceback.format_exc())
    on_event(Finished(job.number, job.attempt, result))


# One thread for all jobs of a worker: a new one for each would get memory pools of its own, which glibc keeps.
_job_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trial")


def stream_job(task: Task, job: Job, worker: str) -> Iterator[Event]:
    """Do a job in another thread, always the same one, and yield its events as they happen."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    _job_thread.submit(run_job, task, job, worker, events.put)
    event: Event | None = None
    while not isinstance(event, Finished):
        event = events.get()
        yield event
