"""The smaller tables of a configuration: space, budget, halving, storage and logging."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spinenas.search.config.executor import check_positive
from spinenas.space.errors import UserError
from spinenas.space.search_space import space_by_name


@dataclass(frozen=True, slots=True)
class SpaceConfig:
    """Which architectures exist.

    Attributes:
        name: one of `spinenas.space.SPACES`.
    """

    name: str = "spinenet49"

    def __post_init__(self) -> None:
        space_by_name(self.name)


@dataclass(frozen=True, slots=True)
class BudgetConfig:
    """How much is tried.

    Attributes:
        num_trials: trainings in all.
        replicate_share: share of them that trains the leaders again with other seeds, at the end; what is left of it
            once the winner is settled is not spent.
        max_accelerator_hours: no trial is begun that would not end within so many hours of accelerators in all, at
            the mean of the trials so far (a worker on CPUs counts as one accelerator); None for no limit.
        price_per_accelerator_hour: in your currency; what `--dry-run` reckons with.
    """

    num_trials: int = 100
    replicate_share: float = 0.1
    max_accelerator_hours: float | None = None
    price_per_accelerator_hour: float | None = None

    def __post_init__(self) -> None:
        if self.num_trials < 1:
            raise UserError(f"budget.num_trials is {self.num_trials}; it is at least 1")
        if not 0 <= self.replicate_share < 1:
            raise UserError(f"budget.replicate_share is {self.replicate_share}; it is 0 or more and below 1")
        check_positive("budget", self, "max_accelerator_hours", "price_per_accelerator_hour")


@dataclass(frozen=True, slots=True)
class HalvingConfig:
    """Which trainings are stopped early: asynchronous successive halving (`search/run/halving.py`).

    Trainings of leaders with other seeds are never stopped.

    Attributes:
        rungs: epochs, ascending, after each of which a training goes on only if it is among the best there so far;
            below task.train.epochs, and multiples of task.eval.every_epochs. Empty: nothing is stopped.
        reduction: the best 1/reduction go on.
        min_results: all go on while fewer than so many have reached the rung. With the default reduction 4 is the
            first number of which two go on.
    """

    rungs: tuple[int, ...] = ()
    reduction: float = 3.0
    min_results: int = 4

    def __post_init__(self) -> None:
        if list(self.rungs) != sorted(set(self.rungs)) or min(self.rungs, default=1) < 1:
            raise UserError(f"halving.rungs is {list(self.rungs)}; it lists epochs, 1 or more, each above the last")
        if not 1 < self.reduction < math.inf:
            raise UserError(f"halving.reduction is {self.reduction}; it is a number above 1")
        if self.min_results < 1:
            raise UserError(f"halving.min_results is {self.min_results}; it is at least 1")


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """Where else a run is kept.

    Attributes:
        mirror: a URI of an object store or remote path (s3://, gs://, hdfs://, file://) that has every result before
            it counts, for a run whose folder dies with its machine; None for none.
    """

    mirror: str | None = None


@dataclass(frozen=True, slots=True)
class LoggingConfig:
    """What else is written of a search while it runs; all of it follows from the journal.

    Attributes:
        tensorboard: event files for TensorBoard, in the run's folder tensorboard/.
    """

    tensorboard: bool = False
