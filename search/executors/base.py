"""What the loop and those who run its trials say to each other; nothing of how either works.

Figures and results travel as events. An event belongs to one attempt of one trial, so that what arrives late or
twice can be told from what is awaited.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from spinenas.results.record import Evaluation, Failure, Fidelity
from spinenas.results.storage.events import EpochDone, Finished, Paused, Started
from spinenas.space.baseline import Architecture


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at one trial.

    Attributes:
        number, attempt: which one.
        genotype: what is trained.
        seed: what everything random in it is derived from.
        fidelity: how much training; None for the task's own.
        folder: the trial's own in the run.
        mirror: URI of the run's other place, where its checkpoints are kept then.
        until: the epoch after which it pauses, for another attempt to go on from there; None for its end.
    """

    number: int
    attempt: int
    genotype: Architecture
    seed: int
    fidelity: Fidelity | None
    folder: Path
    mirror: str | None = None
    until: int | None = None


WorkerEvent = Started | EpochDone | Paused | Finished
"""What workers report; the driver stamps the time."""

ENDS = (Paused, Finished)
"""The events after which a worker is free."""


@dataclass(frozen=True, slots=True)
class Remark:
    """What a worker has noticed and a user should know; executors pass it on as a note, the loop never sees it."""

    text: str


Note = Callable[[str], None]
"""Where an executor says what a user should know."""


Report = Callable[[int, dict[str, float]], None]
"""Called by a task with the epoch, counted from 1, and its figures, when the epoch is over."""


class Evaluate(Protocol):
    """Trains and measures an architecture; never raises for what can go wrong in a trial."""

    def __call__(
        self,
        architecture: Architecture,
        /,
        *,
        seed: int,
        fidelity: Fidelity | None,
        attempt: int,
        folder: Path,
        report: Report,
        until: int | None,
    ) -> Evaluation | Failure:
        """Run one attempt at a training.

        An attempt may continue where the one before was interrupted; it then reports only the epochs after that.

        Args:
            architecture: what to train.
            seed: source of all randomness of the training.
            fidelity: how much training; None for the task's own.
            attempt: 0 for the first.
            folder: of the trial, for its checkpoint.
            report: called after each epoch.
            until: epoch after which to pause. The result is then as of that epoch, which is its `stopped_after`, and
                the next attempt continues from there to the result it would have had. None for the end.
        """


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

    @property
    def evaluate(self) -> Evaluate:
        """Train and measure."""


class Executor(Protocol):
    """Runs jobs somewhere, a few at a time; a context manager, made by entering and stopped by leaving."""

    @property
    def num_free(self) -> int:
        """How many jobs may be submitted now; workers come and go."""

    def submit(self, job: Job) -> None:
        """Begin a job; at most num_free."""

    def cancel(self, number: int) -> None:
        """Stop the job of that trial, if one runs; nothing more is heard of it."""

    def wait(self, on_event: Callable[[WorkerEvent], None], timeout_seconds: float | None) -> None:
        """Hand over what has happened, or return when more jobs may be submitted; waits until one of the two.

        A lost worker and a trial that exceeded its time are Finished as well.

        Args:
            on_event: called with each event.
            timeout_seconds: after which to return in any case.
        """

    def release_idle(self) -> None:
        """Give back what idle workers hold: no new trial will come, only second attempts at those that run."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
