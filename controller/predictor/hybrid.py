"""A policy and edits of the leaders both propose, a predictor screens, and every result teaches policy and predictor.

The policy is PPO's and finds what is far from everything so far; edits refine what is known to be good; the Gaussian
process weighs one against the other. After the policies, the replay and the predictor-screened search of FNAS (Liu et
al., 2021) and BANANAS (White et al., AAAI 2021).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

import numpy as np

from spinenas.controller.base import Proposal
from spinenas.controller.ledger import Candidate, Feasible
from spinenas.controller.one_thread import one_blas_thread
from spinenas.controller.policy.policies import PolicyKind
from spinenas.controller.policy.ppo import Ppo
from spinenas.controller.predictor.gaussian_process import Leader, Predictor
from spinenas.controller.predictor.predictor_guided_evolution import check_screening
from spinenas.controller.predictor.screening import screened, teach
from spinenas.results.record import Evaluation, Failure
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.mutate import random_edit
from spinenas.space.random_streams import generator
from spinenas.space.search_space import SearchSpace


class Hybrid(Ppo):
    """Proposes the best expected among samples of the policy and edits of the leaders.

    Args:
        space, policy, learning_rate, batch_size, seed, feasible: as in `Ppo`.
        num_leaders: networks whose edits are candidates: those of which the predictor expects most.
        max_edits: such a candidate differs from its leader by 1 to so many edits.
        num_random: proposals before anything is screened, random and without dead blocks; observed networks count.
        num_candidates: of each proposal.
        policy_share: of the candidates, how many are samples of the policy.
        optimism: how much uncertainty counts in a candidate's favour, see `screened`.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        policy: PolicyKind = "factorised",
        learning_rate: float | None = None,
        batch_size: int = 20,
        num_leaders: int = 10,
        max_edits: int = 3,
        num_random: int = 20,
        num_candidates: int = 200,
        policy_share: float = 0.5,
        optimism: float = 0.5,
        seed: int = 0,
        feasible: Feasible | None = None,
    ) -> None:
        super().__init__(
            space, policy=policy, learning_rate=learning_rate, batch_size=batch_size, seed=seed, feasible=feasible
        )
        check_screening(num_random=num_random, num_candidates=num_candidates, optimism=optimism)
        if num_leaders < 1 or max_edits < 1 or not 0 <= policy_share <= 1:
            raise UserError(
                f"num_leaders is {num_leaders}, max_edits {max_edits} and policy_share {policy_share}; "
                "the first two are at least 1, the last is 0 to 1"
            )
        self._num_leaders = num_leaders
        self._max_edits = max_edits
        self._num_random = num_random
        self._num_samples = round(policy_share * num_candidates)
        self._num_edited = num_candidates - self._num_samples
        self._optimism = optimism
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
