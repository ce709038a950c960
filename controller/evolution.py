"""Regularized evolution: tournaments in a population whose oldest member is removed.

Source: Real et al., "Regularized Evolution for Image Classifier Architecture Search" (AAAI 2019), Algorithm 1. This
version is asynchronous: results may arrive late and in any order. A member's age counts from the arrival of its result.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np

from spinenas.controller.base import ASSUMED_NUM_TRIALS, ControllerOptions, Proposal
from spinenas.controller.ledger import Candidate, Feasible, Ledger
from spinenas.results.record import Evaluation, Failure, Stage
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.mutate import random_edit
from spinenas.space.random_streams import generator
from spinenas.space.sampling import sample_without_dead_blocks
from spinenas.space.search_space import SearchSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class EvolutionOptions(ControllerOptions):
    """Options of the controller "evolution".

    Attributes:
        population_size: how many of the latest results may have children (P in the paper); None for a quarter of the
            budget, at most 64.
        tournament_size: members drawn, with replacement, to find a parent (S in the paper); None for half of the
            population, at least 2.
        max_edits: a child differs from its parent by 1 to this many edits; the paper uses 1.
    """

    population_size: int | None = None
    tournament_size: int | None = None
    max_edits: int = 1

    def __post_init__(self) -> None:
        largest = math.inf if self.population_size is None else self.population_size
        if largest < 1 or (self.tournament_size is not None and not 1 <= self.tournament_size <= largest):
            raise UserError(
                f"tournament_size is {self.tournament_size} with population_size {self.population_size}; "
                "it is at least 1 and at most the population"
            )
        if self.max_edits < 1:
            raise UserError(f"max_edits is {self.max_edits}; it is at least 1")

    def for_budget(self, num_trials: int) -> Self:
        population = self.population_size or min(64, max(2, num_trials // 4))
        tournament = self.tournament_size or min(population, max(2, population // 2))
        return replace(self, population_size=population, tournament_size=tournament)


class Member(NamedTuple):
    """A member of the population; `number` is None for an observed network."""

    number: int | None
    genotype: Genotype
    objective: float


class RegularizedEvolution:
    """Proposes edits of the winner of a tournament in the population.

    Args:
        space: search space.
        options: None for the defaults.
        seed: seed of the run.
        feasible: whether a genotype may be proposed.

    The first P proposals are random networks without dead blocks. Of uniform samples more than half have a block that
    does nothing; a start from those would credit evolution with merely leaving them behind.
    """

    def __init__(
        self,
        space: SearchSpace,
        options: EvolutionOptions | None = None,
        *,
        seed: int = 0,
        feasible: Feasible | None = None,
    ) -> None:
        options = (options or EvolutionOptions()).for_budget(ASSUMED_NUM_TRIALS)
        assert options.population_size is not None, "derived from the budget"
        assert options.tournament_size is not None, "derived from the population"
        self._space = space
        self._population_size = options.population_size
        self._tournament_size = options.tournament_size
        self._max_edits = options.max_edits
        self._seed = seed
        self._ledger = Ledger(space, feasible)
        self._population: deque[Member] = deque(maxlen=options.population_size)  # oldest first
        self._num_observed = 0

    def ask(self) -> Proposal | None:
        """Return a random network at first, later a child of a tournament winner. Raises SpaceExhausted."""
        rng = generator(self._seed, "controller/evolution", self._ledger.next_number)
        num_started = self._ledger.next_number + self._num_observed
        if num_started < self._population_size or not self._population:
            return self._ledger.propose(self._random(rng), rng=rng)
        return self._ledger.propose(self._children(rng), self._random(rng), rng=rng)

    def tell(self, number: int, result: Evaluation | Failure) -> bool:
        """Add a result to the population: a failure as the worst member, a stopped training with its last objective."""
        proposal = self._ledger.finish(number)
        if proposal is None:
            return False
        if proposal.stage is Stage.SEARCH:  # a replicate adds no member
            assert isinstance(proposal.genotype, Genotype), "a search proposes genotypes"
            objective = result.objective if isinstance(result, Evaluation) else -math.inf
            self._population.append(Member(number, proposal.genotype, objective))
        return True

    def observe(self, genotype: Genotype, evaluation: Evaluation) -> None:
        """Add an archived result to the population."""
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
