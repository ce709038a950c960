"""What a search is for, as configured: AP, AP at what it costs, or the front of AP and costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spinenas.controller.objectives import Costs, SoftCost
from spinenas.search.config.amount import Amount
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.limits import CostTarget
from spinenas.space.published import SPINENET_49


@dataclass(frozen=True, slots=True)
class ObjectiveConfig:
    """What is searched for. Costs are counted in the detector of `constraints.target`.

    Attributes:
        kind: "ap"; "soft", AP * (multiply-adds / target_madds) ** weight; "front", networks that no other one beats in
            AP, multiply-adds and parameters at once.
        target_madds: of "soft": where AP counts as it is; None for what SpineNet-49 has in the same detector.
        weight: of "soft"; 0 or below.
    """

    kind: Literal["ap", "soft", "front"] = "ap"
    target_madds: Amount | None = None
    weight: float = -0.07

    def __post_init__(self) -> None:
        if self.target_madds is not None and not 0 < self.target_madds < float("inf"):
            raise UserError(f"objective.target_madds is {self.target_madds}; it is a number above 0")
        if not -10 <= self.weight <= 0:
            raise UserError(f"objective.weight is {self.weight}; it is -10 to 0")

    def soft_cost(self, target: CostTarget) -> SoftCost | None:
        """Return what an AP is worth; None unless that depends on costs."""
        if self.kind != "soft":
            return None
        at = self.target_madds or target.cost(SPINENET_49).madds
        return SoftCost(lambda genotype: target.cost(genotype).madds, at, self.weight)

    def front_costs(self, target: CostTarget) -> Costs | None:
        """Return what counts beside AP on the front: multiply-adds and parameters; None for another objective."""
        if self.kind != "front":
            return None

        def costs(genotype: Genotype) -> tuple[float, ...]:
            cost = target.cost(genotype)
            return cost.madds, cost.params

        return costs
