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

from spinenas.controller.base import ControllerOptions, Proposal
from spinenas.controller.ledger import Candidate
from spinenas.controller.ledger_search import LedgerSearch, Sources
from spinenas.results.record import Evaluation, Failure, Stage
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype


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


class RegularizedEvolution(LedgerSearch[EvolutionOptions]):
    """Proposes edits of the winner of a tournament in the population. Arguments are those of `LedgerSearch`.

    The first P proposals are random networks without dead blocks. Of uniform samples more than half have a block that
    does nothing; a start from those would credit evolution with merely leaving them behind.

    A failure becomes the worst member. A training that was stopped early counts with its last objective.
    """

    default_options: type[EvolutionOptions] = EvolutionOptions
    stream = "controller/evolution"

    def _start(self) -> None:
        assert self._options.population_size is not None, "derived from the budget"
        assert self._options.tournament_size is not None, "derived from the population"
        self._population_size, self._tournament_size = self._options.population_size, self._options.tournament_size
        self._population: deque[Member] = deque(maxlen=self._population_size)  # oldest first

    def _sources(self, rng: np.random.Generator) -> Sources:
        if self._num_started < self._population_size or not self._population:
            return ()
        return (self._children(rng),)

    def _learn(self, genotype: Genotype, result: Evaluation | Failure, proposal: Proposal | None) -> None:
        if proposal is None or proposal.stage is Stage.SEARCH:  # a replicate adds no member
            number = None if proposal is None else proposal.number
            objective = result.objective if isinstance(result, Evaluation) else -math.inf
            self._population.append(Member(number, genotype, objective))

    def _children(self, rng: np.random.Generator) -> Iterator[Candidate]:
        while True:
            drawn = rng.integers(len(self._population), size=self._tournament_size)
            parent = max((self._population[i] for i in drawn), key=lambda member: member.objective)
            num_edits = int(rng.integers(1, self._options.max_edits + 1))
            edits, genotype = self._edited(parent.genotype, num_edits, rng)
            yield Candidate(genotype, f"mutation:{edits}", parent.number)
