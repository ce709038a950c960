"""The configuration of a search: TOML or a preset, overridden by name, checked once; nothing of how it is run.

preset = "coco-small"          # optional: what is not given is the preset's
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
from spinenas.proxy_task.config import BUILT_IN, DataConfig, TaskConfig
from spinenas.results.leaderboard import Worth
from spinenas.search.config.checking import checked
from spinenas.search.config.constraints import ConstraintsConfig
from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.objective import ObjectiveConfig
from spinenas.search.config.parts import BudgetConfig, HalvingConfig, LoggingConfig, SpaceConfig, StorageConfig
from spinenas.space.errors import UserError
from spinenas.space.limits import CostTarget
from spinenas.space.search_space import space_by_name


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """A whole search; everything its result depends on, and where it runs.

    Attributes:
        seed: what every random decision is derived from.
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
        rungs, epochs, every = self.halving.rungs, self.task.train.epochs, self.task.eval.every_epochs
        if rungs and rungs[-1] >= epochs:
            raise UserError(
                f"halving.rungs has {rungs[-1]}, and a training has task.train.epochs = {epochs}; a rung lies below "
                "that: leave it out, or train longer"
            )
        unmeasured = [rung for rung in rungs if not every or rung % every]
        if unmeasured:
            raise UserError(
                f"halving.rungs has {unmeasured[0]}, after which epoch AP is not measured, with "
                f"task.eval.every_epochs = {every}; set that to {math.gcd(*rungs)}, or take multiples of it for rungs"
            )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SearchConfig:
        """Check plain data, such as `to_json` gave. Raises UserError."""
        return checked(cls, with_current_names(data))

    def to_json(self) -> dict[str, Any]:
        """Plain data with every default filled in."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data

    def unused(self) -> list[str]:
        """Return a sentence for each value that was set and that other values leave without effect."""
        sentences = []
        chosen = self.controller.name
        for name in sorted(set(CONTROLLERS) - {chosen}):
            options = self.controller.options_of(name)
            for item in dataclasses.fields(options):
                if getattr(options, item.name) != item.default:
                    key = f"controller.{table_name(name)}.{item.name}"
                    sentences.append(f"{key} has no effect, since controller.name is {chosen!r}")
        if self.constraints.are_any and chosen == "plan":
            sentences.append("constraints have no effect, since controller.name is 'plan'")
        if chosen == "plan" and self.objective.kind != "ap":
            sentences.append("objective.kind has no effect, since controller.name is 'plan'")
        if self.constraints.target is not None and not self.counts_costs:
            sentences.append("constraints.target has no effect, since no cost is limited and AP alone is the objective")
        for item in dataclasses.fields(self.objective):
            is_given = getattr(self.objective, item.name) != item.default
            if item.name != "kind" and is_given and self.objective.kind != "soft":
                sentences.append(
                    f'objective.{item.name} has no effect, since objective.kind is "{self.objective.kind}"'
                )
        unused: dict[str, tuple[str, ...]] = {
            "serial": ("gpus_per_worker", "gpu_memory_gib", "tpus_per_worker", "stall_minutes", "address"),
            "tune": ("stall_minutes",),
            "ray": (),
        }
        for item in dataclasses.fields(self.halving):
            if not self.halving.rungs and getattr(self.halving, item.name) != item.default:
                sentences.append(f"halving.{item.name} has no effect, since halving.rungs is empty")
        defaults = ExecutorConfig()
        for name in unused[self.executor.kind]:
            if getattr(self.executor, name) != getattr(defaults, name):
                sentences.append(f'executor.{name} has no effect, since executor.kind is "{self.executor.kind}"')
        return sentences

    def check_constraints(self) -> None:
        """Raise UserError where nothing is known that this search may propose. What is planned has no limits."""
        limits = self.constraints.limits(self.task)
        if limits is not None and self.controller.name != "plan":
            limits.check(space_by_name(self.space.name))

    @property
    def counts_costs(self) -> bool:
        """Whether anything depends on what architectures cost."""
        return self.constraints.are_any or self.objective.kind != "ap"

    def worth(self) -> Worth | None:
        """Return what an AP is worth at what its genotype costs; None for a search for AP, or for a front."""
        return self.objective.soft_cost(self.constraints.cost_target(self.task))

    def cost_target(self) -> CostTarget | None:
        """Return the detector that costs are counted in; None for the one that is trained."""
        return None if self.constraints.target is None else self.constraints.cost_target(self.task)

    def resolved(self) -> SearchConfig:
        """Fill in what follows from other values, so that it stays when the budget is extended later.

        The options of the chosen controller follow the budget, and data paths become absolute.
        """
        return replace(
            self,
            controller=self.controller.for_budget(self.budget.num_trials),
            task=replace(self.task, data=_absolute(self.task.data)),
        )


def _absolute(data: DataConfig) -> DataConfig:
    """The same data, wherever the run is resumed from."""
    values = asdict(data)
    for name, value in values.items():
        if isinstance(value, str) and value not in ("", BUILT_IN):
            values[name] = str(Path(value).expanduser().absolute())
    return DataConfig(**values)
