"""Predictor-guided evolution: regularized evolution in which a predictor selects one of many children.

Source: Wei et al., "NPENAS: Neural Predictor Guided Evolution for Neural Architecture Search" (TNNLS 2022), with a
Gaussian process instead of the neural network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import Self

import numpy as np

from spinenas.controller.base import Proposal, objective_of
from spinenas.controller.evolution import EvolutionOptions, RegularizedEvolution
from spinenas.controller.ledger import Feasible
from spinenas.controller.ledger_search import Sources
from spinenas.controller.one_thread import one_blas_thread
from spinenas.controller.predictor.gaussian_process import Predictor
from spinenas.controller.predictor.prior import Lessons, expectation_of, read_lessons
from spinenas.controller.predictor.screening import best_candidates
from spinenas.results.foretold import END
from spinenas.results.record import Evaluation, Failure
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
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
        prior: what the predictor expects before any result: "digits" for trainings that the package has, or the path of
            a training table or of a run of another task. None for no prior.
    """

    population_size: int = 64
    tournament_size: int = 16
    max_edits: int = 3
    num_random: int | None = None
    num_candidates: int = 150
    ucb_coefficient: float = 0.5
    prior: str | None = None

    @property
    def protocol(self) -> int:
        return 2

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

    Arguments are those of `LedgerSearch`, and:

        lessons: what the option `prior` stands for, if that was read already; None to read it.

    The predictor learns from replicates as well.
    """

    default_options = PredictorGuidedOptions
    stream = "controller/screened"
    _options: PredictorGuidedOptions

    def __init__(
        self,
        space: SearchSpace,
        options: PredictorGuidedOptions | None = None,
        *,
        seed: int = 0,
        feasible: Feasible | None = None,
        lessons: Lessons | None = None,
    ) -> None:
        self._lessons = lessons
        super().__init__(space, options, seed=seed, feasible=feasible)

    def _start(self) -> None:
        super()._start()
        lessons = read_lessons(self._options.prior, self._space) if self._lessons is None else self._lessons
        self._predictor = Predictor(self._space, expectation_of(lessons, self._space) if lessons else None)

    def _sources(self, rng: np.random.Generator) -> Sources:
        options = self._options
        assert options.num_random is not None, "derived from the budget"
        if self._num_started < options.num_random or not self._population or not self._predictor.num_results:
            return ()
        with one_blas_thread():
            children = islice(self._children(rng), options.num_candidates)
            best = best_candidates(children, self._predictor, ucb_coefficient=options.ucb_coefficient, rng=rng)
        return iter(best), self._children(rng)

    def _learn(self, genotype: Genotype, result: Evaluation | Failure, proposal: Proposal | None) -> None:
        super()._learn(genotype, result, proposal)
        if isinstance(result, Failure):
            objective = objective_of(result)
            if objective is None or proposal is None:
                return
            ends = {END: objective, self._calibration.reference: objective}
            self._calibration.add(proposal.network_key, proposal.replicate, ends)
        with one_blas_thread():
            self._predictor.learn(genotype, self._calibration.estimates)
