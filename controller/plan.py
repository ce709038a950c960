"""Trainings that were decided beforehand: what a study of the proxy task is made of; no result changes anything."""

from __future__ import annotations

from collections.abc import Sequence

from spinenas.controller.base import Proposal, SpaceExhausted
from spinenas.controller.ledger import Feasible
from spinenas.results.record import Evaluation, Failure, Stage
from spinenas.space.baseline import architecture_from_text
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.search_space import SearchSpace


class PlannedTrials:
    """Proposes given architectures, all of them with one seed before any with the next: a part of it is one too.

    Args:
        space, seed, feasible: as every controller takes them; they decide nothing here.
        architectures: texts of genotypes, inside the space or not, or names of baselines such as "r50-fpn".
        replicates: trainings of each, with different seeds.
        stage: what they are for.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        architectures: Sequence[str] = (),
        replicates: int = 1,
        stage: str = Stage.SEARCH,
        feasible: Feasible | None = None,
    ) -> None:
        if not architectures or replicates < 1:
            raise UserError(
                f"the plan has {len(architectures)} architectures and {replicates} trainings of each; "
                "controller.plan needs one or more of both"
            )
        self._architectures = [architecture_from_text(text) for text in architectures]
        self._replicates, self._stage = replicates, Stage(stage)
        self._next_number = 0
        self._open: set[int] = set()

    def ask(self) -> Proposal:
        """Return the next of the plan. Raises SpaceExhausted after the last."""
        replicate, index = divmod(self._next_number, len(self._architectures))
        if replicate >= self._replicates:
            raise SpaceExhausted("the plan is done")
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
        """Change nothing: what is planned is trained."""

    def replay_ask(self, proposal: Proposal) -> None:
        """Adopt a recorded proposal."""
        self._next_number = proposal.number + 1
        self._open.add(proposal.number)
