"""Proposes a fixed list of trainings, for studies of the proxy task; ignores results."""

from __future__ import annotations

from dataclasses import dataclass

from spinenas.controller.base import ControllerOptions, Proposal, SpaceExhausted, Step
from spinenas.controller.ledger import Feasible
from spinenas.results.record import Evaluation, Failure, Stage
from spinenas.space.baseline import architecture_from_text
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.search_space import SearchSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions(ControllerOptions):
    """Options of the controller "plan".

    Attributes:
        architectures: texts of genotypes, inside the space or not, or names of baselines such as "r50-fpn".
        replicates: trainings of each architecture, with different seeds.
        stage: purpose of the trainings: "search" for a study of the proxy task, "validate" to measure on val too,
            "full" to keep the weights as well.
    """

    architectures: tuple[str, ...] = ()
    replicates: int = 1
    stage: str = "search"

    def __post_init__(self) -> None:
        if self.stage not in ("search", "validate", "full"):
            raise UserError(f"controller.plan.stage is {self.stage!r}; it is search, validate or full")


class PlannedTrials:
    """Proposes each given architecture once, then each again with the next seed.

    Args:
        space, seed, feasible: unused; every controller takes them.
        options: has one architecture or more.
    """

    def __init__(
        self,
        space: SearchSpace,
        options: PlanOptions | None = None,
        *,
        seed: int = 0,
        feasible: Feasible | None = None,
    ) -> None:
        options = options or PlanOptions()
        if not options.architectures or options.replicates < 1:
            raise UserError(
                f"the plan has {len(options.architectures)} architectures and {options.replicates} trainings of each; "
                "controller.plan needs one or more of both"
            )
        self._architectures = [architecture_from_text(text) for text in options.architectures]
        self._replicates, self._stage = options.replicates, Stage(options.stage)
        self._next_number = 0
        self._open: set[int] = set()

    def ask(self) -> Step:
        """Return the next training of the plan. Raises SpaceExhausted after the last."""
        replicate, index = divmod(self._next_number, len(self._architectures))
        if replicate >= self._replicates:
            raise SpaceExhausted("the plan is complete")
        proposal = Proposal(
            self._next_number, self._architectures[index], replicate=replicate, stage=self._stage, origin="plan"
        )
        self.replay_ask(proposal)
        return proposal

    def tell(self, number: int, result: Evaluation | Failure) -> bool:
        """Close a proposal."""
        if number not in self._open:
            return False
        self._open.remove(number)
        return True

    def observe(self, genotype: Genotype, evaluation: Evaluation) -> None:
        """Do nothing: every planned training is proposed."""

    def replay_ask(self, step: Step) -> None:
        """Adopt a recorded step."""
        self._next_number = step.number + 1
        self._open.add(step.number)
