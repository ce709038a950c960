"""The task of a validation or a replay: each training also writes the detections of its network on val.

The task of a search never reads val, so that val cannot influence the search.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from spinenas.results.record import Evaluation, Failure, FailureKind
from spinenas.search.executors.base import Task
from spinenas.space.baseline import Architecture

if TYPE_CHECKING:
    from spinenas.results.stats.bootstrap import Matches

ValMetrics = dict[str, float | None]
"""Metrics on val by name; None where the data has no object of that kind."""

EVALUATED_BY = "hotcoco, confirmed by pycocotools to 1e-9"
"""Evaluators of every figure on val that is printed or stored. A search uses hotcoco alone."""


class ValTask(Task, Protocol):
    """A task that can also measure on val, such as `spinenas.proxy_task.task.ProxyTask`."""

    @property
    def val_fingerprint(self) -> dict[str, Any]:
        """Identity of the val data."""

    def prepare(self, *, with_val: bool = False) -> None:
        """Prepare the data, including val if `with_val`. Raises UserError."""

    def evaluate_with_val(
        self, architecture: Architecture, *, folder: Path, keep_weights: bool, **how: Any
    ) -> Evaluation | Failure:
        """Run `evaluate` to the end of the training, then write the detections on val to the folder.

        `keep_weights` also writes the weights there. `how` has the other arguments of `Task.evaluate`, but for `until`.
        """

    def val_matches(self, folder: Path) -> Matches:
        """Match the detections in a trial's folder with the annotations of val. Raises UserError."""

    def val_metrics(self, folder: Path) -> ValMetrics:
        """Compute the metrics of the detections in a trial's folder.

        Raises UserError if the two evaluators disagree.
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
        """Identity of the data, including val. A run does not resume on other val images."""
        return self._task.fingerprint | self._task.val_fingerprint

    def findings(self) -> tuple[Any, ...]:
        """Return what was found in the data, including val. Raises UserError."""
        find = getattr(self._task, "findings", None)
        return () if find is None else tuple(find(with_val=True))

    def prepare(self) -> None:
        """Prepare the data, including val, so that invalid val data is found before a training. Raises UserError."""
        self._task.prepare(with_val=True)

    def evaluate(
        self, architecture: Architecture, *, folder: Path, until: int | None = None, **how: Any
    ) -> Evaluation | Failure:
        """Do what `Task.evaluate` says, and write the detections on val to the folder."""
        assert until is None, "a training that measures on val never pauses"
        if not folder.is_dir():  # checked first, or the training would be wasted
            return Failure(
                FailureKind.INVALID_DATA,
                f"this machine does not see {folder}, where the detections on val are kept; put the run on storage "
                "that all machines see under the same path",
            )
        return self._task.evaluate_with_val(architecture, folder=folder, keep_weights=self._keep_weights, **how)
