"""Record of a controller's proposals, which prevents that a training is proposed twice.

Two proposals are the same training if they agree in (network_key, fidelity, replicate). The built network counts, not
the genotype that describes it. Proposals in flight, finished and failed all count, and so do observed networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from spinenas.controller.base import Proposal, SpaceExhausted
from spinenas.results.record import Fidelity
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key
from spinenas.space.limits import Limits
from spinenas.space.search_space import SearchSpace

Feasible = Callable[[Genotype], bool]
"""Whether a genotype may be proposed; a pure function. `Limits` can also edit a genotype until it may."""

MAX_TRIES = 200
"""Candidates drawn from each source before the space is enumerated."""

MAX_FITTED = 8
"""Candidates of each source that are edited to fit the limits if none of the source's candidates does."""

MAX_ENUMERATED = 50_000
"""Size of the largest space that is enumerated, which takes about 10 s."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A genotype that may become a proposal, with the proposal's `origin`, `parent` and `info`."""

    genotype: Genotype
    origin: str
    parent: int | None = None
    info: dict[str, float] = field(default_factory=dict)


class Ledger:
    """Numbers proposals, keeps the open ones, and refuses repeated and infeasible ones.

    Args:
        space: search space of the proposals.
        feasible: the user's condition for a proposal.
        rule: the controller's own condition.
    """

    def __init__(self, space: SearchSpace, feasible: Feasible | None = None, *, rule: Feasible | None = None) -> None:
        self._space = space
        self._feasible = feasible
        self._rule = rule
        self._seen: set[tuple[str, Fidelity | None, int]] = set()
        self._open: dict[int, Proposal] = {}
        self._enumerated: dict[str, Genotype] | None = None
        self.next_number = 0

    def propose(self, *sources: Iterator[Candidate], rng: np.random.Generator) -> Proposal:
        """Return the first new candidate as the next proposal.

        Args:
            sources: candidates, best source first; at most MAX_TRIES are drawn from each. If none of them is within
                `Limits`, the first few are edited until they are (origin "...+fitted"). After the last source, a
                small space is enumerated and one of its remaining networks is drawn.
            rng: for these edits and that last draw.

        Raises SpaceExhausted. A refused candidate takes no number.
        """
        proposal = self.draw(*sources, rng=rng)
        self.adopt(proposal)
        return proposal

    def draw(self, *sources: Iterator[Candidate], rng: np.random.Generator) -> Proposal:
        """Return what `propose` would, and take no note of it."""
        candidate, key = self._first_new(sources, rng) or self._any_remaining(rng)
        return Proposal(
            self.next_number,
            candidate.genotype,
            parent=candidate.parent,
            origin=candidate.origin,
            info=candidate.info,
            known_key=key,
        )

    def is_new(self, genotype: Genotype) -> bool:
        """Whether a genotype may be proposed, and its network was not proposed yet."""
        return self._new_key(genotype) is not None

    def adopt(self, proposal: Proposal) -> None:
        """Take a recorded proposal as the next one."""
        assert proposal.number == self.next_number, f"{proposal.number} follows {self.next_number - 1}"
        self._seen.add((proposal.network_key, proposal.fidelity, proposal.replicate))
        self._open[proposal.number] = proposal
        self.next_number += 1

    def finish(self, number: int) -> Proposal | None:
        """Close an open proposal and return it; None if the number is unknown or finished."""
        return self._open.pop(number, None)

    def observe(self, genotype: Genotype) -> None:
        """Count an archived network as proposed. Raises GenotypeError if it is not of the space."""
        self._space.check(genotype)
        self._seen.add((network_key(genotype), None, 0))

    def _admits(self, genotype: Genotype) -> bool:
        return (self._feasible is None or self._feasible(genotype)) and (self._rule is None or self._rule(genotype))

    def _new_key(self, genotype: Genotype) -> str | None:
        """Return the key of a network that may be proposed; None for any other."""
        if not self._admits(genotype):
            return None
        key = network_key(genotype)
        return None if (key, None, 0) in self._seen else key

    def _first_new(
        self, sources: tuple[Iterator[Candidate], ...], rng: np.random.Generator
    ) -> tuple[Candidate, str] | None:
        for source in sources:
            refused: list[Candidate] = []
            for candidate in islice(source, MAX_TRIES):
                if (key := self._new_key(candidate.genotype)) is not None:
                    return candidate, key
                if len(refused) < MAX_FITTED:
                    refused.append(candidate)
            if isinstance(self._feasible, Limits):
                for candidate in refused:
                    genotype = self._feasible.fitted(self._space, candidate.genotype, rng)
                    if (key := self._new_key(genotype)) is not None:
                        # `info`, such as a log-probability, belongs to the genotype before the edits.
                        return Candidate(genotype, f"{candidate.origin}+fitted", candidate.parent), key
        return None

    def _any_remaining(self, rng: np.random.Generator) -> tuple[Candidate, str]:
        if self._enumerated is None:
            if self._space.size() > MAX_ENUMERATED:
                raise SpaceExhausted(
                    f"none of the last {MAX_TRIES} candidates of {self._space.name} was new and feasible"
                )
            self._enumerated = {}
            for genotype in self._space.enumerate():
                if self._admits(genotype):
                    self._enumerated.setdefault(network_key(genotype), genotype)
        remaining = [key for key in self._enumerated if (key, None, 0) not in self._seen]
        if not remaining:
            raise SpaceExhausted(
                f"all {len(self._enumerated)} feasible networks of {self._space.name} have been proposed"
            )
        key = remaining[rng.integers(len(remaining))]
        return Candidate(self._enumerated[key], "random:enumerated"), key
