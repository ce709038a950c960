"""A task whose trainings leave behind what they detect on val; what the figures on val are, no training is told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from spinenas.results.record import Evaluation, Failure, FailureKind, Fidelity
from spinenas.search.executors.base import Report, Task
from spinenas.space.baseline import Architecture

if TYPE_CHECKING:
    from spinenas.results.stats.bootstrap import Matches


class ValTask(Task, Protocol):
    """A task that can keep detections on val; `spinenas.proxy_task.task.ProxyTask` is one."""

    @property
    def val_fingerprint(self) -> dict[str, Any]:
        """What val is."""

    def prepare(self, *, with_val: bool = False) -> None:
        """Make the data ready, val as well if asked. Raises UserError."""

    def validate(
        self,
        genotype: Architecture,
        *,
        seed: int,
        folder: Path,
        fidelity: Fidelity | None = None,
        report: Report,
    ) -> Evaluation | Failure:
        """Do what `evaluate` does, and keep in the folder what is detected on val."""

    def val_matches(self, folder: Path) -> Matches:
        """Compare what `validate` kept in a folder with the annotations of val. Raises UserError."""


class ValidatingTask:
    """The task of a run of stage "validate": `evaluate` is the other task's `validate`."""

    def __init__(self, task: ValTask):
        self._task = task

    def __reduce__(self) -> tuple[Any, ...]:
        return ValidatingTask, (self._task,)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the data is, val included: a validation is not gone on with on other images."""
        return self._task.fingerprint | self._task.val_fingerprint

    def prepare(self) -> None:
        """Make the data ready, val too: what is wrong with it must not cost a training. Raises UserError."""
        self._task.prepare(with_val=True)

    def evaluate(
        self,
        genotype: Architecture,
        *,
        seed: int,
        fidelity: Fidelity | None,
        attempt: int,
        folder: Path,
        report: Report,
        until: int | None = None,
    ) -> Evaluation | Failure:
        """Train, measure on the reward images, and keep the detections on val."""
        assert until is None, "no training of a validation is stopped early"
        if not folder.is_dir():  # before the training, which would be for nothing
            return Failure(
                FailureKind.INVALID_DATA,
                f"this machine does not see {folder}, where the detections on val are kept; put the run on storage "
                "that all machines see under the same path",
            )
        return self._task.validate(genotype, seed=seed, folder=folder, fidelity=fidelity, report=report)
