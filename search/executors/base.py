"""Protocol between driver and executors: jobs, events of workers, the Task and Executor interfaces.

An event belongs to one attempt of one trial, so that the driver can recognise late and repeated events.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from spinenas.results.record import Evaluation, Failure, Fidelity, Report
from spinenas.results.storage.events import EpochDone, Finished, Paused, Started
from spinenas.space.baseline import Architecture


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at one trial.

    Attributes:
        number: number of the trial.
        attempt: number of the attempt, from 0.
        genotype: the architecture to train.
        seed: source of all randomness of the training.
        fidelity: how much training; None for the task's own.
        folder: the trial's folder in the run.
        mirror: URI of the run's mirror, which then stores the checkpoints.
        until: epoch after which the attempt pauses, for another one to continue from there; None for the end.
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
"""Events that workers report. The driver adds the time."""

ENDS = (Paused, Finished)
"""The events after which a worker is free."""


@dataclass(frozen=True, slots=True)
class Remark:
    """A worker's message for the user; executors pass it on as a note, and the driver never sees it."""

    text: str


Message = WorkerEvent | Remark
"""What a worker sends."""

Note = Callable[[str], None]
"""Shows a message to the user."""


class Task(Protocol):
    """Trains and measures genotypes, such as `spinenas.proxy_task.task.ProxyTask`. It is pickled to reach workers."""

    @property
    def key(self) -> str:
        """Identity of the task; results are comparable within one key."""

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Fingerprint of the data."""

    @property
    def fidelity(self) -> Fidelity:
        """Default amount of training of a trial."""

    @property
    def device(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    def prepare(self) -> None:
        """Make the data ready, before any worker starts. Raises UserError."""

    def evaluate(
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
        """Run one attempt at a training, and measure. Never raises for what can go wrong in a trial.

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


class Executor(Protocol):
    """Runs jobs, several at a time; a context manager that starts its workers on entry and stops them on exit.

    By default there are no workers to start, stop or release.
    """

    _cleanup: ExitStack

    @property
    def num_free(self) -> int:
        """Number of jobs that can be submitted now. It changes as workers come and go."""

    def submit(self, job: Job) -> None:
        """Start a job; `num_free` must be above 0."""

    def cancel(self, number: int) -> None:
        """Stop the job of a trial, if one runs; it reports nothing more."""

    def wait(self, on_event: Callable[[WorkerEvent], None], timeout_seconds: float | None) -> None:
        """Wait for events and hand them over, or return when more jobs can be submitted.

        A lost worker and a trial that exceeds its time limit are reported as Finished too.

        Args:
            on_event: called with each event.
            timeout_seconds: return after this time in any case; None for no limit.
        """

    def release_idle(self) -> None:
        """Release the resources of idle workers: no new trial will come, only further attempts at running ones."""
        return None

    def start(self, stack: ExitStack) -> None:
        """Start the workers, and tell the stack how to stop them."""
        return None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.start(stack)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._cleanup.close()
