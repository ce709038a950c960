"""The task of a validation or a replay: each training also keeps what its network detects on val.

A search never uses this module, so that val cannot influence it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from spinenas.results.record import Evaluation, Failure, FailureKind, Fidelity
from spinenas.search.executors.base import Report, Task
from spinenas.space.baseline import Architecture

if TYPE_CHECKING:
    from spinenas.results.stats.bootstrap import Matches

ValMetrics = dict[str, float | None]
"""Figures on val by name; None where the data has no object to find."""

EVALUATED_BY = "hotcoco, confirmed by pycocotools to 1e-9"
"""Evaluators of all figures on val that are printed or kept; a search uses hotcoco alone."""


class ValTask(Task, Protocol):
    """A task that can measure on val too, such as `spinenas.proxy_task.task.ProxyTask`."""

    @property
    def val_fingerprint(self) -> dict[str, Any]:
        """Identity of the val data."""

    def prepare(self, *, with_val: bool = False) -> None:
        """Make the data ready, with val if asked. Raises UserError."""

    def evaluate_with_val(
        self,
        architecture: Architecture,
        *,
        seed: int,
        fidelity: Fidelity | None = None,
        attempt: int = 0,
        folder: Path,
        report: Report | None = None,
        keep_weights: bool = False,
    ) -> Evaluation | Failure:
        """Do what `evaluate` does, and write detections on val, and the weights if asked, to the folder."""

    def val_matches(self, folder: Path) -> Matches:
        """Match the detections in a trial's folder with the annotations of val. Raises UserError."""

    def val_metrics(self, folder: Path) -> ValMetrics:
        """Compute the figures of the detections in a trial's folder by both evaluators, which must agree.

        Raises UserError.
        """


class WithVal:
    """Wraps a task so that `evaluate` calls its `evaluate_with_val`."""

    def __init__(self, task: ValTask, keep_weights: bool):
        self._task, self._keep_weights = task, keep_weights

    def __reduce__(self) -> tuple[Any, ...]:
        return WithVal, (self._task, self._keep_weights)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Identity of the data, val included: such a run is not resumed on other val images."""
        return self._task.fingerprint | self._task.val_fingerprint

    def prepare(self) -> None:
        """Make the data ready, val too: a problem with val must not cost a training. Raises UserError."""
        self._task.prepare(with_val=True)

    def evaluate(
        self,
        architecture: Architecture,
        *,
        seed: int,
        fidelity: Fidelity | None,
        attempt: int,
        folder: Path,
        report: Report,
        until: int | None = None,
    ) -> Evaluation | Failure:
        """Train, measure on the reward images, and write the detections on val to the folder."""
        assert until is None, "no training that measures on val is stopped early"
        if not folder.is_dir():  # checked before the training, which would be wasted
            return Failure(
                FailureKind.INVALID_DATA,
                f"this machine does not see {folder}, where the detections on val are kept; put the run on storage "
                "that all machines see under the same path",
            )
        return self._task.evaluate_with_val(
            architecture,
            seed=seed,
            fidelity=fidelity,
            attempt=attempt,
            folder=folder,
            report=report,
            keep_weights=self._keep_weights,
        )
