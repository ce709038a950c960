"""Simulates one search of a landscape by a controller: the network that would be chosen, and the controller's time.

A fixed number of simulated workers take random times, so that results arrive late and in another order. A training
takes time in proportion to its epochs. A controller may pause it, and is told its results as in a real search. Nothing
is trained. Every random decision follows from the cell alone, so a repeated cell has the same outcome.
"""

from __future__ import annotations

import heapq
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spinenas.controller.base import Controller, Proposal, SpaceExhausted
from spinenas.controller.predictor.freeze_thaw import Schedule
from spinenas.controller.registry import make_controller
from spinenas.controller.replicates import ReplicateLeaders, num_replicates
from spinenas.results.leaderboard import NetworkRuns, leader
from spinenas.results.record import Evaluation, Failure, Stage
from spinenas.search.controller_bench.cell import BY_MADDS, REPLICATE_SHARE, ROWS, TABLE, Cell, checkpoints
from spinenas.search.controller_bench.landscapes import Landscape, make_landscape, with_crossing_curves
from spinenas.search.controller_bench.learnt_landscape import table_score
from spinenas.search.controller_bench.tabular import RestrictedToRows, TableRows
from spinenas.space.cost import backbone_cost
from spinenas.space.genotype import Genotype
from spinenas.space.random_streams import generator
from spinenas.space.scaling import SCALINGS
from spinenas.space.search_space import SearchSpace, space_by_name


@dataclass(frozen=True, slots=True)
class _Trial:
    """A training that ended: its number, its network with the key, and its result."""

    number: int
    genotype: Genotype
    key: str
    result: Evaluation | Failure


@dataclass(slots=True)
class _History:
    """What happened in a search.

    Attributes:
        proposals: by number.
        trials: in the order in which they ended; a training that is still paused is not among them.
        num_epochs: epochs of all steps.
        ask_seconds, tell_seconds: processor time of each call.
    """

    proposals: dict[int, Proposal] = field(default_factory=dict)
    trials: list[_Trial] = field(default_factory=list)
    num_epochs: int = 0
    ask_seconds: list[float] = field(default_factory=list)
    tell_seconds: list[float] = field(default_factory=list)


def run_cell(cell: Cell) -> dict[str, Any]:
    """Return the cell with its outcome, as plain data.

    `chosen` and `replicated` hold the true value of the network that would be chosen at each of `checkpoints`. `chosen`
    takes the best single result. `replicated` spends the last tenth of the budget on replicates of the leaders, and
    takes the best mean among networks that were trained twice. A controller that counts epochs replicates by itself.
    Its only checkpoint is the end of its budget, and both hold the winner of the leaderboard. Values are in standard
    deviations over random networks. `duplicates` counts proposals of a network that was proposed before.
    """
    space = space_by_name(cell.space)
    landscape = _landscape(cell, space)
    schedule = Schedule(landscape.num_epochs, cell.budget * landscape.num_epochs, REPLICATE_SHARE)
    controller = make_controller(cell.controller_name, space, seed=cell.seed, schedule=schedule, **cell.all_options())
    if isinstance(landscape, TableRows):
        controller = RestrictedToRows(controller, landscape)
    history = _search(controller, landscape, cell)
    trials, chosen, replicated = history.trials, {}, {}
    for point in [cell.budget] if cell.counts_epochs else checkpoints(cell.budget):
        if cell.counts_epochs:
            chosen[str(point)] = replicated[str(point)] = _value(landscape, _winner(trials))
        elif cell.controller == BY_MADDS:
            chosen[str(point)] = replicated[str(point)] = _value(landscape, _most_madds(trials[:point]))
        else:
            chosen[str(point)] = _value(landscape, _best(trials[:point]))
            replicated[str(point)] = _value(landscape, _best_replicated(trials, space, landscape, cell, point))
    searched = [each.network_key for each in history.proposals.values() if each.stage is Stage.SEARCH]
    ask_seconds = history.ask_seconds
    return {
        **cell.identity(),
        "chosen": chosen,
        "replicated": replicated,
        "num_trials": len(history.proposals),
        "num_epochs": history.num_epochs,
        "duplicates": len(searched) - len(set(searched)),
        "ask_milliseconds": 1000 * statistics.fmean(ask_seconds),
        "ask_milliseconds_p99": 1000 * sorted(ask_seconds)[int(0.99 * (len(ask_seconds) - 1))],
        "tell_milliseconds": 1000 * statistics.fmean(history.tell_seconds),
    }


def _landscape(cell: Cell, space: SearchSpace) -> Landscape | TableRows:
    if cell.family == ROWS and cell.table is not None:
        return TableRows(Path(cell.table), space)
    if cell.table is None:
        landscape = make_landscape(cell.family, cell.landscape, space)
    else:
        score = table_score(Path(cell.table), cell.landscape, space)
        landscape = Landscape(f"{TABLE}-{cell.landscape}", space, score)
    return with_crossing_curves(landscape, cell.landscape) if cell.crossing else landscape


def _search(controller: Controller, landscape: Landscape | TableRows, cell: Cell) -> _History:
    """Run a search: ask while a worker is free, and tell each result when its step ends."""
    history = _History()
    reached: dict[int, int] = {}  # by training, the epoch at which its latest step ends
    busy: list[tuple[float, int]] = []  # end of a step and its training
    now, exhausted = 0.0, False
    while True:
        while len(busy) < cell.workers and not exhausted:
            if len(history.proposals) >= cell.budget and not cell.counts_epochs:
                break
            started = time.thread_time()
            try:
                step = controller.ask()
            except SpaceExhausted:
                exhausted, step = True, None
            history.ask_seconds.append(time.thread_time() - started)
            if step is None:
                break
            if isinstance(step, Proposal):
                history.proposals[step.number] = step
            until = step.until or landscape.num_epochs
            num_epochs = until - reached.get(step.number, 0)
            reached[step.number] = until
            history.num_epochs += num_epochs
            whole = generator(cell.seed, "bench/duration", step.number).lognormal(sigma=0.3)
            heapq.heappush(busy, (now + whole * (num_epochs / landscape.num_epochs), step.number))
        if not busy:
            return history
        now, number = heapq.heappop(busy)
        trial = _train(history.proposals[number], landscape, cell, reached[number])
        started = time.thread_time()
        controller.tell(number, trial.result)
        history.tell_seconds.append(time.thread_time() - started)
        if isinstance(trial.result, Failure) or trial.result.stopped_after is None:
            history.trials.append(trial)


def _train(proposal: Proposal, landscape: Landscape | TableRows, cell: Cell, until: int | None = None) -> _Trial:
    assert isinstance(proposal.genotype, Genotype), "a search proposes genotypes"
    result = landscape.train(proposal.genotype, proposal.replicate, seed=cell.seed, noise=cell.noise, until=until)
    return _Trial(proposal.number, proposal.genotype, proposal.network_key, result)


def _winner(trials: Sequence[_Trial]) -> Genotype | None:
    """Return the network that the leaderboard names."""
    networks: dict[str, NetworkRuns] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if isinstance(trial.result, Evaluation):
            network = networks.setdefault(trial.key, NetworkRuns(trial.number, trial.genotype))
            network.objectives.append(trial.result.objective)
    found = leader(networks.values())
    return None if found is None else found.genotype


def _best(trials: Sequence[_Trial]) -> Genotype | None:
    """Return the network with the highest single result; the first of equal ones."""
    found = [(trial.result.objective, trial) for trial in trials if isinstance(trial.result, Evaluation)]
    return max(found, key=lambda pair: pair[0])[1].genotype if found else None


def _most_madds(trials: Sequence[_Trial]) -> Genotype | None:
    """Return the network with the most multiply-adds in its backbone."""
    genotypes = (trial.genotype for trial in trials)
    return max(genotypes, key=lambda genotype: backbone_cost(genotype, SCALINGS["49"], 640).madds, default=None)


def _value(landscape: Landscape | TableRows, genotype: Genotype | None) -> float | None:
    return None if genotype is None else landscape.value(genotype)


def _best_replicated(
    trials: Sequence[_Trial], space: SearchSpace, landscape: Landscape | TableRows, cell: Cell, budget: int
) -> Genotype | None:
    """Return the winner if the last part of the budget goes to replicates of the leaders."""
    num_left = num_replicates(budget, REPLICATE_SHARE)
    searched = trials[: budget - num_left]
    # The search is over, so what the wrapped controller would propose does not matter.
    controller = ReplicateLeaders(make_controller("random", space), num_trials=budget, share=REPLICATE_SHARE)
    objectives: dict[str, list[float]] = {}
    genotypes: dict[str, Genotype] = {}

    def learn(number: int, trial: _Trial) -> None:
        controller.tell(number, trial.result)
        if isinstance(trial.result, Evaluation):
            objectives.setdefault(trial.key, []).append(trial.result.objective)
            genotypes[trial.key] = trial.genotype

    for number, trial in enumerate(searched):
        controller.replay_ask(Proposal(number, trial.genotype, known_key=trial.key))
        learn(number, trial)
    controller.end_search()
    waiting: list[Proposal] = []
    while True:
        proposal = None
        if num_left and len(waiting) < cell.workers:
            try:
                proposal = controller.ask()
            except SpaceExhausted:
                num_left = 0
        if proposal is not None:
            assert isinstance(proposal, Proposal), "leaders are trained to the end"
            waiting.append(proposal)
            num_left -= 1
        elif waiting:
            done = waiting.pop(0)
            learn(done.number, _train(done, landscape, cell))
        else:
            break
    means = {key: statistics.fmean(found) for key, found in objectives.items()}
    twice = {key: mean for key, mean in means.items() if len(objectives[key]) > 1}
    best = max(twice or means, key=means.__getitem__, default=None)
    return None if best is None else genotypes[best]
