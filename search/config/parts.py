"""Configuration of the space, budget, early stopping, storage and logs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spinenas.search.config.checking import check_positive
from spinenas.space.errors import UserError
from spinenas.space.search_space import space_by_name


@dataclass(frozen=True, slots=True)
class SpaceConfig:
    """The search space.

    Attributes:
        name: the name of the space, such as "spinenet49"; `spinenas space describe` prints its rules.
    """

    name: str = "spinenet49"

    def __post_init__(self) -> None:
        space_by_name(self.name)


@dataclass(frozen=True, slots=True)
class BudgetConfig:
    """How many trainings a search may use.

    Attributes:
        num_trials: number of whole trainings in total. A controller that pauses trainings spends their epochs on more.
        replicate_share: share of the trainings reserved for retraining the leaders with other seeds at the end. The
            search ends early when the winner is settled. A controller that pauses trainings brings finalists to the end
            with this share.
        epochs: epochs of all trainings in total, instead of num_trials; None for num_trials times task.train.epochs.
        max_accelerator_hours: limit of the hours of all accelerators in total; None for no limit. No trial starts that
            would exceed it at the mean duration so far. A worker on CPUs counts as one accelerator.
        price_per_accelerator_hour: price that `--dry-run` multiplies with the predicted hours, in your currency; None
            to print no cost. Without accelerators it is the price of an hour of one worker.
    """

    num_trials: int = 100
    replicate_share: float = 0.1
    epochs: int | None = None
    max_accelerator_hours: float | None = None
    price_per_accelerator_hour: float | None = None

    def __post_init__(self) -> None:
        if self.num_trials < 1:
            raise UserError(f"budget.num_trials is {self.num_trials}; it is at least 1")
        if not 0 <= self.replicate_share < 1:
            raise UserError(f"budget.replicate_share is {self.replicate_share}; it is 0 or more and below 1")
        if self.epochs is not None and self.epochs < 1:
            raise UserError(f"budget.epochs is {self.epochs}; it is at least 1")
        check_positive("budget", self, "max_accelerator_hours", "price_per_accelerator_hour")


@dataclass(frozen=True, slots=True)
class HalvingConfig:
    """Early stopping of weak trainings, by asynchronous successive halving. Replicates of leaders never stop early.

    Attributes:
        rungs: ascending epochs after which a training continues only if it ranks among the best so far. Each is below
            task.train.epochs and a multiple of task.eval.every_epochs. An empty list stops nothing.
        reduction: the best 1/reduction of the trainings at a rung continue.
        min_results: number of results that a rung needs before it stops any training.
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
    """Where a run is kept besides its folder.

    Attributes:
        mirror: URI of a second copy (s3://, gs://, hdfs:// or file://); None for no copy. Every result is written there
            before it counts, so that a run survives the loss of its folder.
    """

    mirror: str | None = None


@dataclass(frozen=True, slots=True)
class LoggingConfig:
    """Logs that a search writes besides its journal.

    Attributes:
        tensorboard: write event files for TensorBoard into the folder tensorboard/ of the run.
    """

    tensorboard: bool = False
