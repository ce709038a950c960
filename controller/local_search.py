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

from spinenas.controller.base import ASSUMED_NUM_TRIALS, ControllerOptions, Proposal, objective_of
from spinenas.controller.ledger import Candidate, Feasible, Ledger
from spinenas.results.record import Evaluation, Failure
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key
from spinenas.space.mutate import random_edit
from spinenas.space.random_streams import generator
from spinenas.space.sampling import sample_without_dead_blocks
from spinenas.space.search_space import SearchSpace


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


class LocalSearch:
    """Proposes an edit of one of the best networks by mean objective.

    Args:
        space: search space.
        options: None for the defaults.
        seed: seed of the run.
        feasible: whether a genotype may be proposed.

    If every neighbour drawn was proposed before, the proposal has two edits; if those fail too, it is random.
    """

    def __init__(
        self,
        space: SearchSpace,
        options: LocalOptions | None = None,
        *,
        seed: int = 0,
        feasible: Feasible | None = None,
    ) -> None:
        options = (options or LocalOptions()).for_budget(ASSUMED_NUM_TRIALS)
        assert options.num_random is not None, "derived from the budget"
        self._space = space
        self._num_parents = options.num_parents
        self._num_random = options.num_random
        self._seed = seed
        self._ledger = Ledger(space, feasible)
        self._networks: dict[str, _Network] = {}
        self._num_observed = 0

    def ask(self) -> Proposal | None:
        """Return a random network at first, later a neighbour of one of the best. Raises SpaceExhausted."""
        rng = generator(self._seed, "controller/local", self._ledger.next_number)
        num_started = self._ledger.next_number + self._num_observed
        if num_started < self._num_random or not self._networks:
            return self._ledger.propose(self._random(rng), rng=rng)
        best = heapq.nlargest(self._num_parents, self._networks.values(), key=lambda network: network.mean)
        return self._ledger.propose(
            self._edits(best, rng, num_edits=1), self._edits(best, rng, num_edits=2), self._random(rng), rng=rng
        )

    def tell(self, number: int, result: Evaluation | Failure) -> bool:
        """Add a result, of a replicate too, to the mean of its network."""
        proposal = self._ledger.finish(number)
        if proposal is None:
            return False
        objective = objective_of(result)
        if objective is not None:
            assert isinstance(proposal.genotype, Genotype), "a search proposes genotypes"
            self._add(number, proposal.genotype, objective)
        return True

    def observe(self, genotype: Genotype, evaluation: Evaluation) -> None:
        """Make an archived network a possible parent."""
        self._ledger.observe(genotype)
        self._add(None, genotype, evaluation.objective)
        self._num_observed += 1

    def replay_ask(self, proposal: Proposal) -> None:
        """Adopt a recorded proposal."""
        self._ledger.adopt(proposal)

    def _add(self, number: int | None, genotype: Genotype, objective: float) -> None:
        network = self._networks.setdefault(network_key(genotype), _Network(number, genotype))
        network.objectives.append(objective)
        network.mean = fmean(network.objectives)

    def _random(self, rng: np.random.Generator) -> Iterator[Candidate]:
        while True:
            yield Candidate(sample_without_dead_blocks(self._space, rng), "random:alive")

    def _edits(self, best: list[_Network], rng: np.random.Generator, *, num_edits: int) -> Iterator[Candidate]:
        while True:
            parent = best[rng.integers(len(best))]
            genotype, edits = parent.genotype, []
            for _ in range(num_edits):
                edit, genotype = random_edit(self._space, genotype, rng)
                edits.append(edit)
            yield Candidate(genotype, f"local:{'+'.join(edits)}", parent.number)
