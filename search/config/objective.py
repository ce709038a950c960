"""Configuration of the objective: AP, AP weighted by cost, or the Pareto front of AP and costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spinenas.controller.objectives import Costs, SoftCost
from spinenas.search.config.amount import Amount
from spinenas.search.config.checking import check_positive
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.limits import CostTarget
from spinenas.space.published import SPINENET_49


@dataclass(frozen=True, slots=True)
class ObjectiveConfig:
    """What a search maximizes. Costs are counted in the detector of constraints.target.

    Attributes:
        kind: "ap" maximizes AP, "soft" maximizes AP * (multiply-adds / target_madds) ** weight, and "front" searches
            for the Pareto front of AP, multiply-adds and parameters.
        target_madds: for "soft", the cost at which AP counts unchanged; None for the cost of SpineNet-49 in the same
            detector.
        weight: for "soft", the exponent of the cost, -10 to 0.
    """

    kind: Literal["ap", "soft", "front"] = "ap"
    target_madds: Amount | None = None
    weight: float = -0.07

    def __post_init__(self) -> None:
        check_positive("objective", self, "target_madds")
        if not -10 <= self.weight <= 0:
            raise UserError(f"objective.weight is {self.weight}; it is -10 to 0")

    def soft_cost(self, target: CostTarget) -> SoftCost | None:
        """Return the cost-weighted objective; None unless the kind is "soft"."""
        if self.kind != "soft":
            return None
        at = self.target_madds or target.cost(SPINENET_49).madds
        return SoftCost(lambda genotype: target.cost(genotype).madds, at, self.weight)

    def front_costs(self, target: CostTarget) -> Costs | None:
        """Return the costs of the Pareto front, multiply-adds and parameters; None unless the kind is "front"."""
        if self.kind != "front":
            return None

        def costs(genotype: Genotype) -> tuple[float, ...]:
            cost = target.cost(genotype)
            return cost.madds, cost.params

        return costs
