"""Objectives that combine AP and cost, and the wrappers that report them to a controller; the journal keeps AP alone.

Sources: MnasNet (Tan et al., CVPR 2019), equation 2, with one exponent on both sides of the target. Fonseca and
Fleming, "Genetic Algorithms for Multiobjective Optimization" (1993), for the rank by the number of dominating results.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

from spinenas.controller.base import Controller, Proposal, Step
from spinenas.results.leaderboard import ScalarizedObjective
from spinenas.results.pareto import Figures, dominates
from spinenas.results.record import Evaluation, Failure
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype

Costs = Callable[[Genotype], tuple[float, ...]]
"""Cost figures of a genotype; lower is better."""


@dataclass(frozen=True, slots=True)
class SoftCost:
    """Scalarized objective: AP * (multiply-adds / target) ** weight.

    Attributes:
        madds: counts the multiply-adds of a genotype.
        target: multiply-adds at which the objective equals AP.
        weight: 0 or below; with -0.07 (MnasNet), a network of twice the target loses a twentieth of its AP.
    """

    madds: Callable[[Genotype], float]
    target: float
    weight: float = -0.07

    def __post_init__(self) -> None:
        if not self.target > 0 or not self.weight <= 0:
            raise UserError(
                f"the soft cost has target {self.target} and weight {self.weight}; the target must be above 0 and the "
                "weight 0 or below"
            )

    def __call__(self, genotype: Genotype, objective: float) -> float:
        """Return the scalarized objective of an AP at the cost of the genotype."""
        return float(objective * (self.madds(genotype) / self.target) ** self.weight)


def scalarized(evaluation: Evaluation, genotype: Genotype, scalarize: ScalarizedObjective) -> Evaluation:
    """Return a result with the scalarized objective instead of AP, after each epoch too."""
    by_epoch = tuple((epoch, scalarize(genotype, objective)) for epoch, objective in evaluation.by_epoch)
    return replace(evaluation, objective=scalarize(genotype, evaluation.objective), by_epoch=by_epoch)


class _ReportedObjective(ABC):
    """Wraps a controller and reports another objective to it for each result."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._open: dict[int, Proposal] = {}

    @abstractmethod
    def _reported(self, genotype: Genotype, evaluation: Evaluation) -> Evaluation:
        """Return the result to report, a pure function of this result and those before it."""

    def ask(self) -> Step | None:
        """Return the next step. Raises SpaceExhausted."""
        step = self._controller.ask()
        if isinstance(step, Proposal):
            self._open[step.number] = step
        return step

    def tell(self, number: int, result: Evaluation | Failure) -> bool:
        """Pass a result on with the reported objective, and a failure unchanged."""
        proposal = self._open.pop(number, None)
        if proposal is None:
            return False
        if isinstance(result, Evaluation):
            assert isinstance(proposal.genotype, Genotype), "a search proposes genotypes"
            result = self._reported(proposal.genotype, result)
        return self._controller.tell(number, result)

    def observe(self, genotype: Genotype, evaluation: Evaluation) -> None:
        """Pass an archived result on with the reported objective."""
        self._controller.observe(genotype, self._reported(genotype, evaluation))

    def replay_ask(self, step: Step) -> None:
        """Adopt a recorded step."""
        self._controller.replay_ask(step)
        if isinstance(step, Proposal):
            self._open[step.number] = step


class Scalarized(_ReportedObjective):
    """Reports the scalarized objective instead of AP to a controller.

    Args:
        controller: the search algorithm.
        scalarize: returns the scalarized objective of a genotype and its AP.
    """

    def __init__(self, controller: Controller, scalarize: ScalarizedObjective) -> None:
        super().__init__(controller)
        self._scalarize = scalarize

    def _reported(self, genotype: Genotype, evaluation: Evaluation) -> Evaluation:
        return scalarized(evaluation, genotype, self._scalarize)


class RankedByFront(_ReportedObjective):
    """Reports 1 / (1 + n) for a result that n earlier results dominate.

    Args:
        controller: the search algorithm.
        costs: returns the cost figures of a genotype; lower is better.

    A result keeps the rank that it had on arrival. This suits regularized evolution, which removes the oldest members:
    its population therefore has ranks of about the same time.
    """

    def __init__(self, controller: Controller, costs: Costs) -> None:
        super().__init__(controller)
        self._costs = costs
        self._known: list[Figures] = []

    def _reported(self, genotype: Genotype, evaluation: Evaluation) -> Evaluation:
        own = (evaluation.objective, *self._costs(genotype))
        num_dominating = sum(dominates(other, own) for other in self._known)
        if evaluation.stopped_after is None:
            self._known.append(own)
        # Ranks of earlier epochs are not known.
        return replace(evaluation, objective=1 / (1 + num_dominating), by_epoch=())
