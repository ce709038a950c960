"""A policy and edits of the leaders both propose, a predictor screens, and every result teaches policy and predictor.

The policy is PPO's and finds what is far from everything so far; edits refine what is known to be good; the Gaussian
process weighs one against the other. After the policies, the replay and the predictor-screened search of FNAS (Liu et
al., 2021) and BANANAS (White et al., AAAI 2021).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Self

import numpy as np

from spinenas.controller.base import ASSUMED_NUM_TRIALS, ControllerOptions, Proposal
from spinenas.controller.ledger import Candidate, Feasible
from spinenas.controller.one_thread import one_blas_thread
from spinenas.controller.policy.policies import PolicyKind
from spinenas.controller.policy.ppo import Ppo, PpoOptions
from spinenas.controller.predictor.gaussian_process import Leader, Predictor
from spinenas.controller.predictor.predictor_guided_evolution import check_screening
from spinenas.controller.predictor.screening import screened, teach
from spinenas.results.record import Evaluation, Failure
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.mutate import random_edit
from spinenas.space.random_streams import generator
from spinenas.space.search_space import SearchSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class HybridOptions(ControllerOptions):
    """Options of the controller "hybrid".

    Attributes:
        policy: "factorised", a logit for each option, or "recurrent", the published LSTM.
        learning_rate: of Adam; None for a rate that suits the policy and a thousand trials.
        batch_size: number of results in each update of the policy.
        num_leaders: networks whose edits are candidates: those of which the predictor expects most.
        max_edits: such a candidate differs from its leader by 1 to this many edits.
        num_random: proposals before the predictor is used, random and without dead blocks; observed networks count.
            None for a quarter of the budget, at most 20.
        num_candidates: from which the predictor selects each proposal.
        policy_share: share of the candidates that are samples of the policy.
        optimism: how much uncertainty counts in favour of a candidate, see `screened`.
    """

    policy: PolicyKind = "factorised"
    learning_rate: float | None = None
    batch_size: int = 20
    num_leaders: int = 10
    max_edits: int = 3
    num_random: int | None = None
    num_candidates: int = 200
    policy_share: float = 0.5
    optimism: float = 0.5

    def __post_init__(self) -> None:
        self.of_policy()
        check_screening(num_random=self.num_random, num_candidates=self.num_candidates, optimism=self.optimism)
        if self.num_leaders < 1 or self.max_edits < 1 or not 0 <= self.policy_share <= 1:
            raise UserError(
                f"num_leaders is {self.num_leaders}, max_edits {self.max_edits} and policy_share {self.policy_share}; "
                "the first two are at least 1, the last is 0 to 1"
            )

    def for_budget(self, num_trials: int) -> Self:
        return replace(self, num_random=self.num_random or min(20, max(1, num_trials // 4)))

    def of_policy(self) -> PpoOptions:
        """Return the options of the policy alone."""
        return PpoOptions(policy=self.policy, learning_rate=self.learning_rate, batch_size=self.batch_size)


class Hybrid(Ppo):
    """Proposes the best expected among samples of the policy and edits of the leaders.

    Args:
        space: what to search.
        options: None for the defaults.
        seed: of the run.
        feasible: what else a proposal must satisfy.
    """

    def __init__(
        self,
        space: SearchSpace,
        options: HybridOptions | None = None,
        *,
        seed: int = 0,
        feasible: Feasible | None = None,
    ) -> None:
        options = (options or HybridOptions()).for_budget(ASSUMED_NUM_TRIALS)
        assert options.num_random is not None, "the budget decides it"
        super().__init__(space, options.of_policy(), seed=seed, feasible=feasible)
        self._num_leaders = options.num_leaders
        self._max_edits = options.max_edits
        self._num_random = options.num_random
        self._num_samples = round(options.policy_share * options.num_candidates)
        self._num_edited = options.num_candidates - self._num_samples
        self._optimism = options.optimism
        self._predictor = Predictor(space)
        self._num_observed = 0

    def ask(self) -> Proposal | None:
        """Return a random network first, later the best expected candidate. Raises SpaceExhausted."""
        rng = generator(self._seed, "controller/hybrid", self._ledger.next_number)
        founders = self._ledger.next_number + self._num_observed
        if founders < self._num_random or not self._predictor.num_results:
            return self._ledger.propose(self._random(rng), rng=rng)
        with one_blas_thread():
            leaders = self._predictor.leaders(self._num_leaders)
            edited = self._edited(leaders, rng)
            sampled = self._samples([], rng, self._num_samples) if self._num_samples else iter(())
            candidates = chain(sampled, islice(edited, self._num_edited))
            best = screened(candidates, self._predictor, optimism=self._optimism, rng=rng)
        return self._ledger.propose(iter(best), edited, self._random(rng), rng=rng)

    def tell(self, number: int, result: Evaluation | Failure) -> bool:
        """Teach policy and predictor; a replicate teaches the predictor alone."""
        proposal = self._ledger.open_proposal(number)
        if not super().tell(number, result):
            return False
        teach(self._predictor, proposal, result)
        return True

    def observe(self, genotype: Genotype, evaluation: Evaluation) -> None:
        """Teach policy and predictor an archived result, and never propose this network."""
        super().observe(genotype, evaluation)
        self._num_observed += 1
        with one_blas_thread():
            self._predictor.add(genotype, evaluation.objective)

    def _edited(self, leaders: list[Leader], rng: np.random.Generator) -> Iterator[Candidate]:
        while True:
            leader = leaders[rng.integers(len(leaders))]
            genotype, edits = leader.genotype, []
            for _ in range(rng.integers(1, self._max_edits + 1)):
                edit, genotype = random_edit(self._space, genotype, rng)
                edits.append(edit)
            yield Candidate(genotype, f"mutation:{'+'.join(edits)}", leader.number)
