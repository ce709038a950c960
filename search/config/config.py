"""The configuration of a search, checked once when it is made.

As a TOML file:

preset = "coco-small"          # optional: the other keys default to those of the preset
seed = 1
[budget]
num_trials = 50
[task.train]
epochs = 8
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from spinenas.controller.former_names import table_name, with_current_names
from spinenas.controller.registry import CONTROLLERS
from spinenas.proxy_task.config import BUILT_IN, DATA_PATHS, DataConfig, TaskConfig
from spinenas.results.leaderboard import ScalarizedObjective
from spinenas.search.config.checking import checked
from spinenas.search.config.constraints import ConstraintsConfig
from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.objective import ObjectiveConfig
from spinenas.search.config.parts import BudgetConfig, HalvingConfig, LoggingConfig, SpaceConfig, StorageConfig
from spinenas.space.errors import UserError
from spinenas.space.limits import CostTarget
from spinenas.space.search_space import space_by_name

_UNUSED_BY_EXECUTOR = {
    "ray": (),
    "serial": (
        "executor.gpus_per_worker",
        "executor.gpu_memory_gib",
        "executor.tpus_per_worker",
        "executor.stall_minutes",
        "executor.address",
    ),
    "tune": ("executor.stall_minutes",),
}
"""Keys that an executor ignores."""


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """A complete search: everything its result depends on, and where it runs.

    Attributes:
        seed: seed of every random decision.
    """

    space: SpaceConfig = field(default_factory=SpaceConfig)
    controller: ControllerConfig = field(default_factory=ControllerConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)
    halving: HalvingConfig = field(default_factory=HalvingConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    constraints: ConstraintsConfig = field(default_factory=ConstraintsConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.halving.rungs and CONTROLLERS[self.controller.name].counts_epochs:
            raise UserError(
                f"halving.rungs is set, but the controller {self.controller.name} pauses trainings itself; leave it "
                f"out, or set controller.{table_name(self.controller.name)}.rungs"
            )
        if self.budget.epochs is not None and self.budget.epochs < self.task.train.epochs:
            raise UserError(
                f"budget.epochs is {self.budget.epochs}, and one training has {self.task.train.epochs} epochs "
                "(task.train.epochs); give at least as many"
            )
        rungs, epochs, every = self.halving.rungs, self.task.train.epochs, self.task.eval.every_epochs
        if rungs and rungs[-1] >= epochs:
            raise UserError(
                f"halving.rungs has {rungs[-1]}, but task.train.epochs is {epochs}; every rung is below it: leave the "
                "rung out, or train longer"
            )
        unmeasured = [rung for rung in rungs if not every or rung % every]
        if unmeasured:
            raise UserError(
                f"halving.rungs has {unmeasured[0]}, but AP is not measured after that epoch, since "
                f"task.eval.every_epochs is {every}; set it to {math.gcd(*rungs)}, or take its multiples as rungs"
            )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SearchConfig:
        """Make a configuration from plain data, such as that of `to_json`. Raises UserError."""
        return checked(cls, with_current_names(data))

    def to_json(self) -> dict[str, Any]:
        """Return plain data with every default filled in."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data

    def unused(self) -> list[str]:
        """Return a sentence for each key that was changed and has no effect because of another key."""
        chosen, kind, executor = self.controller.name, self.objective.kind, self.executor.kind
        reasons: dict[str, str] = {}
        for name in sorted(set(CONTROLLERS) - {chosen}):
            changed = _changed(f"controller.{table_name(name)}", self.controller.options_of(name))
            reasons |= dict.fromkeys(changed, f'controller.name is "{chosen}"')
        if chosen == "plan":
            changed = [*_changed("constraints", self.constraints), *_changed("objective", self.objective)]
            set_by_user = [key for key in changed if key != "constraints.class_channels"]
            reasons |= dict.fromkeys(set_by_user, 'controller.name is "plan"')
        budget, whole = self.budget, self.num_epochs // self.task.train.epochs
        if budget.epochs is not None and budget.num_trials not in (BudgetConfig().num_trials, whole):
            reasons["budget.num_trials"] = f"budget.epochs is {budget.epochs}"
        if self.constraints.target is not None and not self.counts_costs:
            reasons["constraints.target"] = "no cost is limited and AP alone is the objective"
        if kind != "soft":
            changed = [key for key in _changed("objective", self.objective) if key != "objective.kind"]
            reasons |= dict.fromkeys(changed, f'objective.kind is "{kind}"')
        if not self.halving.rungs:
            reasons |= dict.fromkeys(_changed("halving", self.halving), "halving.rungs is empty")
        changed = [key for key in _changed("executor", self.executor) if key in _UNUSED_BY_EXECUTOR[executor]]
        reasons |= dict.fromkeys(changed, f'executor.kind is "{executor}"')
        return [f"{key} has no effect, since {reason}" for key, reason in reasons.items()]

    def check_constraints(self) -> None:
        """Raise UserError if no architecture is known within the limits. A plan has no limits."""
        limits = self.constraints.limits(self.task)
        if limits is not None and self.controller.name != "plan":
            limits.check(space_by_name(self.space.name))

    @property
    def counts_costs(self) -> bool:
        """Whether the search depends on the cost of architectures."""
        return self.constraints.are_any or self.objective.kind != "ap"

    def scalarized_objective(self) -> ScalarizedObjective | None:
        """Return how AP and cost become one number; None for a search for AP alone, or for a front."""
        return self.objective.soft_cost(self.constraints.cost_target(self.task))

    def cost_target(self) -> CostTarget | None:
        """Return the detector to count costs in; None for the one that trials train."""
        return None if self.constraints.target is None else self.constraints.cost_target(self.task)

    @property
    def pauses_trainings(self) -> bool:
        """Whether the controller pauses trainings and counts their epochs itself."""
        return CONTROLLERS[self.controller.name].counts_epochs

    @property
    def num_epochs(self) -> int:
        """Budget in epochs of all trainings together."""
        return self.budget.epochs or self.budget.num_trials * self.task.train.epochs

    def resolved(self) -> SearchConfig:
        """Fill in what follows from other values, so that it stays when the budget is extended later.

        The options of the chosen controller follow the budget, which becomes whole trainings if it was given in epochs,
        and the epochs of a training. Paths of data and prior become absolute.
        """
        num_trials = max(1, self.num_epochs // self.task.train.epochs)
        return replace(
            self,
            budget=replace(self.budget, num_trials=num_trials),
            controller=self.controller.for_budget(num_trials)
            .for_schedule(self.task.train.epochs)
            .with_absolute_prior(),
            task=replace(self.task, data=_absolute(self.task.data)),
        )


def _changed(table: str, part: Any) -> list[str]:
    """Return the dotted keys of a table whose values are not the defaults."""
    names = (item.name for item in dataclasses.fields(part) if getattr(part, item.name) != item.default)
    return [f"{table}.{name}" for name in names]


def _absolute(data: DataConfig) -> DataConfig:
    """Make the paths of the data absolute, so that a run can be resumed from any folder."""
    values = asdict(data)
    for name in DATA_PATHS:
        value = values[name]
        if value is not None and value not in ("", BUILT_IN):
            values[name] = str(Path(value).expanduser().absolute())
    return DataConfig(**values)
