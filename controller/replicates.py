"""Replicates: further trainings of the leaders, with other seeds, at the end of a budget.

The best of many single results is mostly the luckiest. Replicates show which of the leaders is really better. Once the
winner is settled, the rest of the budget is not spent.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, insort
from dataclasses import dataclass, field

from spinenas.controller.base import Controller, Proposal, SpaceExhausted, Step
from spinenas.controller.objectives import Costs
from spinenas.results.leaderboard import ScalarizedObjective
from spinenas.results.pareto import front
from spinenas.results.record import Evaluation, Failure, Fidelity, Stage
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype

MIN_TRIALS = 8
"""Smaller budgets have no replicates."""


def num_replicates(num_trials: int, share: float) -> int:
    """Return how many trials of a budget are replicates."""
    if num_trials < MIN_TRIALS or share == 0:
        return 0
    # Rounded first: 0.07 * 100 is 7.000000000000001, whose ceiling is 8.
    return max(1, math.ceil(round(share * num_trials, 6)))


def confirming_budget(num_trials: int, share: float) -> int | None:
    """Return a larger budget in which the leaders are trained again; None if the share reserves nothing."""
    if share == 0:
        return None
    return max(MIN_TRIALS, math.floor(1 / share) + 1, num_trials + 1)


@dataclass(slots=True)
class _Network:
    """The trainings of one network.

    Attributes:
        first: proposal of the first training.
        num_asked: trainings proposed.
        objectives: one per finished training, scalarized if the search is.
        costs: figures of the front, if one is searched for.
    """

    first: Proposal
    num_asked: int = 0
    objectives: list[float] = field(default_factory=list)
    costs: tuple[float, ...] = ()

    @property
    def rank(self) -> tuple[float, int]:
        """Sort key: best mean first, then the older network. Needs a result."""
        return -statistics.fmean(self.objectives), self.first.number


class ReplicateLeaders:
    """Wraps a controller and replicates the leaders at the end of the budget.

    Args:
        controller: the search algorithm, which pauses no training; it adopts the replicates, so that numbers are
            consecutive.
        num_trials: the whole budget. If a resumption raises it, the search goes on before replicates follow.
        share: share of the budget that is reserved for replicates.
        scalarize: objective whose mean ranks networks; None for AP itself.
        front_costs: returns cost figures of a genotype. With them, the leaders are the Pareto front of mean AP and
            these figures.

    Leaders are the best max(2, half of the reserved trials) networks by mean, at the time of each ask. Each leader is
    trained twice. After that only contenders are trained: leaders that `Spread.separates` cannot tell from the best
    one, by the pooled spread of single trainings. The contender with the fewest trainings, in flight or finished, is
    next; among equals, the better one. If the best is the only contender, the winner is settled and the rest of the
    budget is not spent. A training that was stopped early does not count.

    With a front, all its members at the time of each ask are leaders, and the whole share is spent on them.
    """

    def __init__(
        self,
        controller: Controller,
        *,
        num_trials: int,
        share: float = 0.1,
        scalarize: ScalarizedObjective | None = None,
        front_costs: Costs | None = None,
    ) -> None:
        if not 0 <= share < 1:
            raise UserError(f"the share of replicates is {share}; it must be 0 or more and below 1")
        self._controller, self._scalarize, self._front_costs = controller, scalarize, front_costs
        self._num_reserved = num_replicates(num_trials, share)
        self._num_searched = num_trials - self._num_reserved
        self._networks: dict[tuple[str, Fidelity | None], _Network] = {}
        self._ranked: list[_Network] = []  # those with results, by rank
        self._open: dict[int, _Network] = {}
        self._num_asked = 0
        self._num_replicated = 0

    def ask(self) -> Step | None:
        """Return a proposal of the search algorithm or, at the end of the budget, a replicate; None before any result.

        Raises SpaceExhausted if the space is exhausted and the reserved replicates are spent, if the winner is settled,
        or if every trial has failed.
        """
        if self._num_asked - self._num_replicated < self._num_searched:
            try:
                proposal = self._controller.ask()
            except SpaceExhausted:
                if self._num_replicated >= self._num_reserved:
                    raise
            else:
                if proposal is not None:
                    self._add(_whole(proposal))
                return proposal
        replicate = self._next_replicate()
        if replicate is not None:
            self.replay_ask(replicate)
        return replicate

    def end_search(self) -> None:
        """Propose only replicates from now on, for budgets that are not counted in trials."""
        self._num_searched = min(self._num_searched, self._num_asked - self._num_replicated)

    def tell(self, number: int, result: Evaluation | Failure) -> bool:
        """Pass a result on, and record it for its network."""
        if not self._controller.tell(number, result):
            return False
        network = self._open.pop(number)
        if isinstance(result, Evaluation) and result.stopped_after is None:
            if network.objectives:
                del self._ranked[bisect_left(self._ranked, network.rank, key=lambda other: other.rank)]
            genotype = network.first.genotype
            if self._front_costs is not None and isinstance(genotype, Genotype):
                network.costs = self._front_costs(genotype)
            if self._scalarize is not None and isinstance(genotype, Genotype):
                network.objectives.append(self._scalarize(genotype, result.objective))
            else:
                network.objectives.append(result.objective)
            insort(self._ranked, network, key=lambda other: other.rank)
        return True

    def observe(self, genotype: Genotype, evaluation: Evaluation) -> None:
        """Pass an archived result on; only this run's own trials are replicated."""
        self._controller.observe(genotype, evaluation)

    def replay_ask(self, step: Step) -> None:
        """Adopt a recorded step."""
        self._controller.replay_ask(step)
        self._add(_whole(step))

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
                raise SpaceExhausted("no trial has given a result, so there is none to replicate")
            return None
        if self._front_costs is None and all(network.num_asked > 1 for network in leaders):
            leaders = _contenders(leaders)
        if self._front_costs is None and len(leaders) == 1 and len(leaders[0].objectives) > 1:
            if self._open:
                return None  # a replicate in flight may change the leader
            number = leaders[0].first.number
            raise SpaceExhausted(f"the winner is settled: trial {number} leads by more than seeds explain")
        leader = min(leaders, key=lambda network: network.num_asked)  # among equals the first, which is the best
        return Proposal(
            self._num_asked,
            leader.first.genotype,
            fidelity=leader.first.fidelity,
            replicate=leader.num_asked,
            stage=Stage.RERANK,
            parent=leader.first.number,
            origin="replicate",
        )


def _whole(step: Step) -> Proposal:
    assert isinstance(step, Proposal), "a controller that pauses trainings replicates its leaders itself"
    return step


def _contenders(leaders: list[_Network]) -> list[_Network]:
    """Return the best of some ranked networks and those not separated from it; all of them without a known spread."""
    from spinenas.results.stats.intervals import pooled_spread  # scipy

    spread = pooled_spread([network.objectives for network in leaders])
    if spread is None:
        return leaders
    best = leaders[0].objectives
    return [network for network in leaders if not spread.separates(best, network.objectives)]
