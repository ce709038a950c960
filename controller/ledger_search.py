"""Base of the search algorithms: draws candidates from sources in turn, and learns from each result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

import numpy as np

from spinenas.controller.base import ASSUMED_NUM_TRIALS, ControllerOptions, Proposal, Step
from spinenas.controller.calibration import Calibration
from spinenas.controller.ledger import Candidate, Feasible, Ledger
from spinenas.results.foretold import progress_of
from spinenas.results.record import Evaluation, Failure
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key
from spinenas.space.mutate import random_edit
from spinenas.space.random_streams import generator
from spinenas.space.sampling import sample_without_dead_blocks
from spinenas.space.search_space import SearchSpace

OBSERVED = -1
"""Replicate that stands for the archived results of a network."""

Options = TypeVar("Options", bound=ControllerOptions)

Sources = Sequence[Iterator[Candidate]]
"""Candidates for one proposal, best source first."""


class LedgerSearch(ABC, Generic[Options]):
    """A controller that numbers its proposals in a ledger, which refuses repeated and infeasible ones.

    Args:
        space: search space.
        options: None for the defaults.
        seed: seed of the run.
        feasible: whether a genotype may be proposed.

    A subclass names its options and its random stream. It defines `_sources` and `_learn`, and `_start` for its state.

    A proposal depends only on the results so far and on its own number.

    `_learn` gets every result in terms of the end of the schedule: a training that was stopped early has the objective
    that those that went on foretell.
    """

    default_options: type[Options]
    stream: str
    """Name of the random stream of the proposals."""

    def __init__(
        self,
        space: SearchSpace,
        options: Options | None = None,
        *,
        seed: int = 0,
        feasible: Feasible | None = None,
    ) -> None:
        self._space, self._seed = space, seed
        self._options = (options or self.default_options()).for_budget(ASSUMED_NUM_TRIALS)
        self._ledger = Ledger(space, feasible, rule=self._admits)
        self._num_observed = 0
        self._calibration = Calibration()
        self._start()

    def ask(self) -> Step | None:
        """Return the next step. Raises SpaceExhausted."""
        return self._propose()

    def _propose(self) -> Proposal:
        rng = generator(self._seed, self.stream, self._ledger.next_number)
        return self._ledger.propose(*self._sources(rng), self._random(rng), rng=rng)

    def tell(self, number: int, result: Evaluation | Failure) -> bool:
        """Learn from a result; return False if the number is unknown or finished."""
        proposal = self._ledger.finish(number)
        if proposal is None:
            return False
        assert isinstance(proposal.genotype, Genotype), "a search proposes genotypes"
        self._learn(proposal.genotype, self._foretold(proposal, result), proposal)
        return True

    def observe(self, genotype: Genotype, evaluation: Evaluation) -> None:
        """Learn from an archived result, and exclude the network from the proposals."""
        self._ledger.observe(genotype)
        self._num_observed += 1
        self._calibration.add(network_key(genotype), OBSERVED, progress_of(evaluation))
        self._learn(genotype, evaluation, None)

    def replay_ask(self, step: Step) -> None:
        """Adopt a recorded step."""
        assert isinstance(step, Proposal), "it pauses no training"
        self._ledger.adopt(step)

    def _foretold(self, proposal: Proposal, result: Evaluation | Failure) -> Evaluation | Failure:
        """Add a result to the calibration, and return it in terms of the end of the schedule."""
        if isinstance(result, Failure):
            return result
        key = proposal.network_key
        self._calibration.add(key, proposal.replicate, progress_of(result))
        if result.stopped_after is None:
            return result
        estimate = self._calibration.estimates.get(key)
        return result if estimate is None else replace(result, objective=estimate.value)

    def _start(self) -> None:
        """Create the state of the search; `_space`, `_options`, `_seed` and `_ledger` are set."""

    def _admits(self, genotype: Genotype) -> bool:
        """Whether the controller itself permits a genotype."""
        return True

    @abstractmethod
    def _sources(self, rng: np.random.Generator) -> Sources:
        """Return the sources of the next proposal; `_random` follows as the last one."""

    @abstractmethod
    def _learn(self, genotype: Genotype, result: Evaluation | Failure, proposal: Proposal | None) -> None:
        """Learn from a result; the proposal is None for an archived result, which is an Evaluation."""

    @property
    def _num_started(self) -> int:
        """Number of proposals and observed networks so far."""
        return self._ledger.next_number + self._num_observed

    def _random(self, rng: np.random.Generator) -> Iterator[Candidate]:
        """Yield random networks: the start of a search, and its last resort."""
        while True:
            yield Candidate(sample_without_dead_blocks(self._space, rng), "random:alive")

    def _edited(self, genotype: Genotype, num_edits: int, rng: np.random.Generator) -> tuple[str, Genotype]:
        """Return the names of so many random edits, such as "swap+level", and their result."""
        edits = []
        for _ in range(num_edits):
            edit, genotype = random_edit(self._space, genotype, rng)
            edits.append(edit)
        return "+".join(edits), genotype

    def _edits(self, drawn: list[Genotype], origin: str, rng: np.random.Generator) -> Iterator[Candidate]:
        """Yield edits of the samples drawn so far, for a source that only repeats itself."""
        while True:
            edit, genotype = random_edit(self._space, drawn[rng.integers(len(drawn))], rng)
            yield Candidate(genotype, f"{origin}+mutation:{edit}")
