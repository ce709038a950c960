"""Local search: edits of the best few networks so far; the baseline for controllers that learn more.

Source: White et al., "Exploring the Loss Landscape in Neural Architecture Search" (UAI 2021). This version edits
several incumbents and proposes one random neighbour at a time, so that many trials can run at once. "Mutation is all
you need" (Schneider et al., 2021) found that the gain of a published predictor came from such edits of the incumbent,
not from predictions.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Self

import numpy as np

from spinenas.controller.base import ControllerOptions, Proposal, objective_of
from spinenas.controller.ledger import Candidate
from spinenas.controller.ledger_search import LedgerSearch, Sources
from spinenas.results.record import Evaluation, Failure
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalOptions(ControllerOptions):
    """Options of the controller "local".

    Attributes:
        num_parents: how many of the best networks by mean objective have children, each equally likely.
        num_random: random proposals without dead blocks at the start; observed networks count. None for a quarter of
            the budget, at most 16.
    """

    num_parents: int = 8
    num_random: int | None = None

    def __post_init__(self) -> None:
        if self.num_parents < 1 or (self.num_random is not None and self.num_random < 1):
            raise UserError(f"num_parents is {self.num_parents} and num_random {self.num_random}; both are at least 1")

    def for_budget(self, num_trials: int) -> Self:
        return replace(self, num_random=self.num_random or min(16, max(1, num_trials // 4)))


@dataclass(slots=True)
class _Network:
    """A network with results; `number` is that of its first trial, None for an observed network."""

    number: int | None
    genotype: Genotype
    objectives: list[float] = field(default_factory=list)
    mean: float = 0.0


class LocalSearch(LedgerSearch[LocalOptions]):
    """Proposes an edit of one of the best networks by mean objective. Arguments are those of `LedgerSearch`.

    If every neighbour drawn was proposed before, the proposal has two edits; if those fail too, it is random. Results
    of replicates count in the mean of their network.
    """

    default_options = LocalOptions
    stream = "controller/local"

    def _start(self) -> None:
        self._networks: dict[str, _Network] = {}

    def _sources(self, rng: np.random.Generator) -> Sources:
        assert self._options.num_random is not None, "derived from the budget"
        if self._num_started < self._options.num_random or not self._networks:
            return ()
        best = heapq.nlargest(self._options.num_parents, self._networks.values(), key=lambda network: network.mean)
        return self._neighbours(best, 1, rng), self._neighbours(best, 2, rng)

    def _learn(self, genotype: Genotype, result: Evaluation | Failure, proposal: Proposal | None) -> None:
        objective = objective_of(result)
        if objective is not None:
            number = None if proposal is None else proposal.number
            network = self._networks.setdefault(network_key(genotype), _Network(number, genotype))
            network.objectives.append(objective)
            network.mean = fmean(network.objectives)

    def _neighbours(self, best: list[_Network], num_edits: int, rng: np.random.Generator) -> Iterator[Candidate]:
        while True:
            parent = best[rng.integers(len(best))]
            edits, genotype = self._edited(parent.genotype, num_edits, rng)
            yield Candidate(genotype, f"local:{edits}", parent.number)
