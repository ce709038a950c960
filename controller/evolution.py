"""Regularized evolution: tournaments in a population whose oldest member dies; nothing of who trains them.

Source: Real et al., "Regularized Evolution for Image Classifier Architecture Search" (AAAI 2019), Algorithm
1, asynchronous: results may come late and in any order, and a member's age is counted from its arrival.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from spinenas.controller.base import Proposal
from spinenas.controller.ledger import Candidate, Feasible, Ledger
from spinenas.results.record import Evaluation, Failure, Stage
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.mutate import random_edit
from spinenas.space.random_streams import generator
from spinenas.space.sampling import sample_without_dead_blocks
from spinenas.space.search_space import SearchSpace


class Member(NamedTuple):
    """One of the population; number is None if it was observed and not proposed."""

    number: int | None
    genotype: Genotype
    objective: float


class RegularizedEvolution:
    """Proposes edits of the best of a few random members of the population.

    Args:
        space: what to search.
        population_size: how many of the latest results may have children (P of the paper).
        tournament_size: members drawn, with replacement, to find a parent (S of the paper).
        max_edits: a child differs from its parent by 1 to so many edits; 1 in the paper.
        seed: of the run.
        feasible: what else a proposal must satisfy.

    The first P proposals are random without dead blocks, not uniform: more than half of uniform samples have
    a block that does nothing, and a start from those would credit evolution with merely leaving them behind.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        population_size: int = 64,
        tournament_size: int = 32,
        max_edits: int = 1,
        seed: int = 0,
        feasible: Feasible | None = None,
    ) -> None:
        if not 1 <= tournament_size <= population_size:
            raise UserError(
                f"tournament_size is {tournament_size} with population_size {population_size}; "
                "it is at least 1 and at most the population"
            )
        if max_edits < 1:
            raise UserError(f"max_edits is {max_edits}; it is at least 1")
        self._space = space
        self._population_size = population_size
        self._tournament_size = tournament_size
        self._max_edits = max_edits
        self._seed = seed
        self._ledger = Ledger(space, feasible)
        self._population: deque[Member] = deque(maxlen=population_size)  # oldest first
        self._num_observed = 0

    def ask(self) -> Proposal | None:
        """Return a random network first, later a child of a tournament's winner. Raises SpaceExhausted."""
        rng = generator(self._seed, "controller/evolution", self._ledger.next_number)
        founders = self._ledger.next_number + self._num_observed
        if founders < self._population_size or not self._population:
            return self._ledger.propose(self._random(rng), rng=rng)
        return self._ledger.propose(self._children(rng), self._random(rng), rng=rng)

    def tell(self, number: int, result: Evaluation | Failure) -> bool:
        """Let a result into the population, a failure as its worst member, a stopped training with what it had."""
        proposal = self._ledger.finish(number)
        if proposal is None:
            return False
        if proposal.stage is Stage.SEARCH:  # a replicate measures a member again and makes no new one
            assert isinstance(proposal.genotype, Genotype), "a search proposes genotypes"
            objective = result.objective if isinstance(result, Evaluation) else -math.inf
            self._population.append(Member(number, proposal.genotype, objective))
        return True

    def observe(self, genotype: Genotype, evaluation: Evaluation) -> None:
        """Let an archived result into the population."""
        self._ledger.observe(genotype)
        self._population.append(Member(None, genotype, evaluation.objective))
        self._num_observed += 1

    def replay_ask(self, proposal: Proposal) -> None:
        """Adopt a recorded proposal."""
        self._ledger.adopt(proposal)

    def _random(self, rng: np.random.Generator) -> Iterator[Candidate]:
        while True:
            yield Candidate(sample_without_dead_blocks(self._space, rng), "random:alive")

    def _children(self, rng: np.random.Generator) -> Iterator[Candidate]:
        while True:
            drawn = rng.integers(len(self._population), size=self._tournament_size)
            parent = max((self._population[i] for i in drawn), key=lambda member: member.objective)
            genotype, edits = parent.genotype, []
            for _ in range(rng.integers(1, self._max_edits + 1)):
                edit, genotype = random_edit(self._space, genotype, rng)
                edits.append(edit)
            yield Candidate(genotype, f"mutation:{'+'.join(edits)}", parent.number)
