"""The end of a budget goes to further trainings of the leaders; knows nothing of how networks are found.

The best of many single evaluations is mostly the luckiest. Training the leaders again, each time with another
seed, turns the last tenth of a budget into a winner that is better in truth; and what is left of that tenth once the
winner is settled is not spent.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, field

from spinenas.controller.base import Controller, Proposal, SpaceExhausted
from spinenas.controller.objectives import Costs
from spinenas.results.pareto import front
from spinenas.results.record import Evaluation, Failure, Fidelity, Stage
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype

MIN_TRIALS = 8
"""Budgets below this have no replicates: there are no leaders among so few."""


def num_replicates(num_trials: int, share: float) -> int:
    """How many trials of a budget are replicates."""
    if num_trials < MIN_TRIALS or share == 0:
        return 0
    # Rounded first: 0.07 * 100 is 7.000000000000001, and would reserve eight.
    return max(1, math.ceil(round(share * num_trials, 6)))


@dataclass(slots=True)
class _Network:
    """A network's trainings: the first one's proposal, how many were asked, what the finished ones gave, its costs."""

    first: Proposal
    num_asked: int = 0
    objectives: list[float] = field(default_factory=list)
    costs: tuple[float, ...] = ()

    @property
    def rank(self) -> tuple[float, int]:
        """Sorts by mean, best first, of equals the older one; there is none before a result."""
        return -statistics.fmean(self.objectives), self.first.number


class ReplicateLeaders:
    """A controller that lets another one search, and replicates the leaders at the end.

    Args:
        controller: who searches; it adopts the replicates, so that numbers run through.
        num_trials: the whole budget; a raised one, on resume, is searched first and replicated after.
        share: of the budget that is reserved for replicates.
        worth: of a genotype and an AP, by which means are compared; None for AP itself.
        front_costs: of a genotype, where the leaders are the front of mean AP and these; None for one best.

    Leaders are the best max(2, half of the reserved trials) networks by mean, as known at each ask. Each is trained
    twice; from then on only the contenders are, those whose means are not below the best one's by more than the pooled
    spread of single trainings explains (`Spread.separates`). The one with the fewest trainings, in flight or finished,
    is next, of equals the better one. Where the best is the only contender left, the winner is settled, and what is
    left of the budget is not spent. A training that was stopped early makes no leader.

    The leaders of a front are all of it, as known at each ask, and the whole share is spent on them.
    """

    def __init__(
        self,
        controller: Controller,
        *,
        num_trials: int,
        share: float = 0.1,
        worth: Callable[[Genotype, float], float] | None = None,
        front_costs: Costs | None = None,
    ) -> None:
        if not 0 <= share < 1:
            raise UserError(f"the share of replicates is {share}; it is 0 or more and below 1")
        self._controller, self._worth, self._front_costs = controller, worth, front_costs
        self._num_reserved = num_replicates(num_trials, share)
        self._num_searched = num_trials - self._num_reserved
        self._networks: dict[tuple[str, Fidelity | None], _Network] = {}
        self._ranked: list[_Network] = []  # those with results, by rank
        self._open: dict[int, _Network] = {}
        self._num_asked = 0
        self._num_replicated = 0

    def ask(self) -> Proposal | None:
        """Return the searcher's proposal or, at the end of the budget, a replicate; None before any result.

        Raises SpaceExhausted when nothing is left to search and the reserved replicates are spent, when the winner is
        settled, or when every trial has failed.
        """
        if self._num_asked - self._num_replicated < self._num_searched:
            try:
                proposal = self._controller.ask()
            except SpaceExhausted:
                if self._num_replicated >= self._num_reserved:
                    raise
            else:
                if proposal is not None:
                    self._add(proposal)
                return proposal
        replicate = self._next_replicate()
        if replicate is not None:
            self.replay_ask(replicate)
        return replicate

    def end_search(self) -> None:
        """Let only replicates follow: what is left of a budget that is not counted in trials is for them."""
        self._num_searched = min(self._num_searched, self._num_asked - self._num_replicated)

    def tell(self, number: int, result: Evaluation | Failure) -> bool:
        """Pass a result on, and count it for its network."""
        if not self._controller.tell(number, result):
            return False
        network = self._open.pop(number)
        if isinstance(result, Evaluation) and result.stopped_after is None:
            if network.objectives:
                del self._ranked[bisect_left(self._ranked, network.rank, key=lambda other: other.rank)]
            genotype = network.first.genotype
            if self._front_costs is not None and isinstance(genotype, Genotype):
                network.costs = self._front_costs(genotype)
            if self._worth is not None and isinstance(genotype, Genotype):
                network.objectives.append(self._worth(genotype, result.objective))
            else:
                network.objectives.append(result.objective)
            insort(self._ranked, network, key=lambda other: other.rank)
        return True

    def observe(self, genotype: Genotype, evaluation: Evaluation) -> None:
        """Pass archived knowledge on; only this run's own trials are replicated."""
        self._controller.observe(genotype, evaluation)

    def replay_ask(self, proposal: Proposal) -> None:
        """Adopt a recorded proposal."""
        self._controller.replay_ask(proposal)
        self._add(proposal)

    def _add(self, proposal: Proposal) -> None:
        key = (proposal.network_key, proposal.fidelity)
        network = self._networks.setdefault(key, _Network(proposal))
        network.num_asked += 1
        self._open[proposal.number] = network
        self._num_asked += 1
        self._num_replicated += proposal.stage is Stage.RERANK

    def _leaders(self) -> list[_Network]:
        if self._front_costs is None:
            return self._ranked[: max(2, math.ceil(self._num_reserved / 2))]
        figures = [(statistics.fmean(network.objectives), *network.costs) for network in self._ranked]
        return front(self._ranked, figures)

    def _next_replicate(self) -> Proposal | None:
        leaders = self._leaders()
        if not leaders:
            if not self._open:
                raise SpaceExhausted("no trial has given a result, so that there is none to replicate")
            return None
        if self._front_costs is None and all(network.num_asked > 1 for network in leaders):
            leaders = _contenders(leaders)
        if self._front_costs is None and len(leaders) == 1 and len(leaders[0].objectives) > 1:
            if self._open:
                return None  # what is in flight may unsettle it
            number = leaders[0].first.number
            raise SpaceExhausted(f"the winner is settled, trial {number} leads by more than seeds explain")
        leader = min(leaders, key=lambda network: network.num_asked)  # the first, and so the best, of equals
        return Proposal(
            self._num_asked,
            leader.first.genotype,
            fidelity=leader.first.fidelity,
            replicate=leader.num_asked,
            stage=Stage.RERANK,
            parent=leader.first.number,
            origin="replicate",
        )


def _contenders(leaders: list[_Network]) -> list[_Network]:
    """The best of some ranked networks and those that it is not separated from; all while no spread is known."""
    from spinenas.results.stats.intervals import pooled_spread  # scipy

    spread = pooled_spread([network.objectives for network in leaders])
    if spread is None:
        return leaders
    best = leaders[0].objectives
    return [network for network in leaders if not spread.separates(best, network.objectives)]
