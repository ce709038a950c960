"""What a controller is told where AP is not all that counts; the journal keeps AP alone.

Sources: MnasNet (Tan et al., CVPR 2019), equation 2, with one exponent on both sides of the target; Fonseca and
Fleming, "Genetic Algorithms for Multiobjective Optimization" (1993), for the rank by the number of those that dominate.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

from spinenas.controller.base import Controller, Proposal
from spinenas.results.pareto import Figures, dominates
from spinenas.results.record import Evaluation, Failure
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype

Costs = Callable[[Genotype], tuple[float, ...]]
"""What a genotype costs, each figure better if lower."""


@dataclass(frozen=True, slots=True)
class SoftCost:
    """AP * (multiply-adds / target) ** weight.

    Attributes:
        madds: counts the multiply-adds of a genotype.
        target: multiply-adds at which AP stays as it is.
        weight: 0 or below; -0.07 (MnasNet) takes a twentieth of its AP from a network of twice the cost.
    """

    madds: Callable[[Genotype], float]
    target: float
    weight: float = -0.07

    def __post_init__(self) -> None:
        if not self.target > 0 or not self.weight <= 0:
            raise UserError(
                f"the soft cost has target {self.target} and weight {self.weight}; the one is above 0, the other "
                "0 or below"
            )

    def __call__(self, genotype: Genotype, objective: float) -> float:
        """Return what an AP is worth at what the genotype costs."""
        return float(objective * (self.madds(genotype) / self.target) ** self.weight)


class _Retold(ABC):
    """A controller that lets another one search, and tells it another value of each result."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._open: dict[int, Proposal] = {}

    @abstractmethod
    def _value(self, genotype: Genotype, evaluation: Evaluation) -> float:
        """Return what the searcher is told of a result, a pure function of those before it."""

    def ask(self) -> Proposal | None:
        """Return the searcher's proposal. Raises SpaceExhausted."""
        proposal = self._controller.ask()
        if proposal is not None:
            self._open[proposal.number] = proposal
        return proposal

    def tell(self, number: int, result: Evaluation | Failure) -> bool:
        """Pass a result on with its other value; a failure as it is."""
        proposal = self._open.pop(number, None)
        if proposal is None:
            return False
        if isinstance(result, Evaluation):
            assert isinstance(proposal.genotype, Genotype), "a search proposes genotypes"
            result = replace(result, objective=self._value(proposal.genotype, result))
        return self._controller.tell(number, result)

    def observe(self, genotype: Genotype, evaluation: Evaluation) -> None:
        """Pass archived knowledge on with its other value."""
        self._controller.observe(genotype, replace(evaluation, objective=self._value(genotype, evaluation)))

    def replay_ask(self, proposal: Proposal) -> None:
        """Adopt a recorded proposal."""
        self._controller.replay_ask(proposal)
        self._open[proposal.number] = proposal


class Softened(_Retold):
    """Tells a controller what each AP is worth by a soft cost.

    Args:
        controller: who searches.
        soft_cost: of genotype and AP.
    """

    def __init__(self, controller: Controller, soft_cost: SoftCost) -> None:
        super().__init__(controller)
        self._soft_cost = soft_cost

    def _value(self, genotype: Genotype, evaluation: Evaluation) -> float:
        return self._soft_cost(genotype, evaluation.objective)


class RankedByFront(_Retold):
    """Tells a controller 1 / (1 + the number of earlier results that dominate a new one).

    Args:
        controller: who searches.
        costs: of a genotype, each better if lower.

    A result keeps the rank that it had when it came. Regularized evolution suits that: its members are forgotten by
    age, and those of one time have ranks of one time.
    """

    def __init__(self, controller: Controller, costs: Costs) -> None:
        super().__init__(controller)
        self._costs = costs
        self._known: list[Figures] = []

    def _value(self, genotype: Genotype, evaluation: Evaluation) -> float:
        own = (evaluation.objective, *self._costs(genotype))
        num_better = sum(dominates(other, own) for other in self._known)
        if evaluation.stopped_after is None:
            self._known.append(own)
        return 1 / (1 + num_better)
