"""Predictor-guided evolution: regularized evolution in which a predictor selects one of many children.

Source: Wei et al., "NPENAS: Neural Predictor Guided Evolution for Neural Architecture Search" (TNNLS 2022), with a
Gaussian process instead of the neural network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import Self

from spinenas.controller.base import ASSUMED_NUM_TRIALS, Proposal
from spinenas.controller.evolution import EvolutionOptions, RegularizedEvolution
from spinenas.controller.ledger import Feasible
from spinenas.controller.one_thread import one_blas_thread
from spinenas.controller.predictor.gaussian_process import Predictor
from spinenas.controller.predictor.screening import best_candidates, teach
from spinenas.results.record import Evaluation, Failure
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.random_streams import generator
from spinenas.space.search_space import SearchSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorGuidedOptions(EvolutionOptions):
    """Options of the controller "predictor-guided".

    Attributes:
        population_size: how many of the latest results may have children.
        tournament_size: members drawn, with replacement, to find a parent.
        max_edits: a child differs from its parent by 1 to this many edits.
        num_random: random proposals without dead blocks before the predictor is used; observed networks count. None
            for a quarter of the budget, at most 60.
        num_candidates: children from which the predictor selects each proposal.
        ucb_coefficient: how much uncertainty counts in favour of a child, see `best_candidates`.
    """

    population_size: int = 64
    tournament_size: int = 16
    max_edits: int = 3
    num_random: int | None = None
    num_candidates: int = 150
    ucb_coefficient: float = 0.5

    def __post_init__(self) -> None:
        EvolutionOptions.__post_init__(self)
        too_few = self.num_candidates < 1 or (self.num_random is not None and self.num_random < 1)
        if too_few or not self.ucb_coefficient >= 0:
            raise UserError(
                f"num_random is {self.num_random}, num_candidates {self.num_candidates} and ucb_coefficient "
                f"{self.ucb_coefficient}; the first two are at least 1, the last is 0 or more"
            )

    def for_budget(self, num_trials: int) -> Self:
        return replace(self, num_random=self.num_random or min(60, max(1, num_trials // 4)))


class PredictorGuidedEvolution(RegularizedEvolution):
    """Proposes the child with the best prediction among `num_candidates` children of tournament winners.

    Args:
        space: search space.
        options: None for the defaults.
        seed: seed of the run.
        feasible: whether a genotype may be proposed.
    """

    def __init__(
        self,
        space: SearchSpace,
        options: PredictorGuidedOptions | None = None,
        *,
        seed: int = 0,
        feasible: Feasible | None = None,
    ) -> None:
        options = (options or PredictorGuidedOptions()).for_budget(ASSUMED_NUM_TRIALS)
        assert options.num_random is not None, "derived from the budget"
        super().__init__(space, options, seed=seed, feasible=feasible)
        self._num_random = options.num_random
        self._num_candidates = options.num_candidates
        self._ucb_coefficient = options.ucb_coefficient
        self._predictor = Predictor(space)

    def ask(self) -> Proposal | None:
        """Return a random network at first, later the child with the best prediction. Raises SpaceExhausted."""
        rng = generator(self._seed, "controller/screened", self._ledger.next_number)
        num_started = self._ledger.next_number + self._num_observed
        if num_started < self._num_random or not self._population or not self._predictor.num_results:
            return self._ledger.propose(self._random(rng), rng=rng)
        with one_blas_thread():
            children = islice(self._children(rng), self._num_candidates)
            best = best_candidates(children, self._predictor, ucb_coefficient=self._ucb_coefficient, rng=rng)
        return self._ledger.propose(iter(best), self._children(rng), self._random(rng), rng=rng)

    def tell(self, number: int, result: Evaluation | Failure) -> bool:
        """Add a result to the population and to the predictor; a replicate's only to the predictor."""
        proposal = self._ledger.open_proposal(number)
        if not super().tell(number, result):
            return False
        teach(self._predictor, proposal, result)
        return True

    def observe(self, genotype: Genotype, evaluation: Evaluation) -> None:
        """Add an archived result to the population and to the predictor."""
        super().observe(genotype, evaluation)
        with one_blas_thread():
            self._predictor.add(genotype, evaluation.objective)
