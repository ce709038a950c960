"""Simulates one search of a landscape by a controller: the network that would be chosen, and the controller's time.

A fixed number of simulated workers take random times, so that results arrive late and in another order. Nothing is
trained. Every random decision follows from the cell alone, so a repeated cell has the same outcome.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spinenas.controller.base import Controller, Proposal, SpaceExhausted
from spinenas.controller.registry import CONTROLLERS, make_controller
from spinenas.controller.replicates import ReplicateLeaders, num_replicates
from spinenas.results.record import Evaluation, Failure
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.config.parts import BudgetConfig
from spinenas.search.controller_bench.landscapes import Landscape, make_landscape
from spinenas.search.controller_bench.learnt_landscape import table_score
from spinenas.search.controller_bench.tabular import RestrictedToRows, TableRows
from spinenas.space.cost import backbone_cost
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.random_streams import generator
from spinenas.space.scaling import SCALINGS
from spinenas.space.search_space import SearchSpace, space_by_name

CHECKPOINTS = (10, 20, 30, 50, 100, 200, 300, 350, 500, 1000)
"""Budgets, in trials, at which outcomes are recorded, from a twentieth of the cell's budget; its end is one as well."""

REPLICATE_SHARE = 0.1
"""Share of a budget, equal to the default of `budget.replicate_share`."""

TABLE = "table"
"""The family of landscapes learnt from a table."""

ROWS = "rows"
"""The family in which searches are restricted to the networks of a table (`tabular.py`)."""

BY_MADDS = "random by madds"
"""The control that trains random networks and selects the one with most multiply-adds, whatever the results."""

BENCH_PROTOCOL = 1
"""Version of outcomes: raised when the code changes them, so that earlier outcomes are not reused."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One search.

    Attributes:
        controller: a name in `CONTROLLERS`, or BY_MADDS.
        family, landscape: family and number of the landscape; all numbers of "rows" are the same landscape.
        seed: seed of the controller and the trainings; landscapes of a comparison have different seeds.
        workers: trainings at the same time.
        noise: noise of a training of a mean network, in standard deviations over random networks; unused for "rows".
        budget: total number of trainings.
        space: name of the search space.
        table: file of trainings, for the families "table" and "rows".
        options: options of the controller; the others are those of a search with this budget.
    """

    controller: str
    family: str
    landscape: int
    seed: int
    workers: int
    noise: float
    budget: int
    space: str = "spinenet49"
    table: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def controller_name(self) -> str:
        """Name of the controller in `CONTROLLERS`."""
        return "random" if self.controller == BY_MADDS else self.controller

    def all_options(self) -> dict[str, Any]:
        """Return all options of the controller, with defaults."""
        config = SearchConfig(controller=ControllerConfig(self.controller_name), budget=BudgetConfig(self.budget))
        return config.resolved().controller.options() | dict(self.options)

    @property
    def protocol(self) -> int | str:
        """BENCH_PROTOCOL, with the controller's own protocol unless that is 1."""
        own = CONTROLLERS[self.controller_name].options(**self.all_options()).protocol
        return BENCH_PROTOCOL if own == 1 else f"{BENCH_PROTOCOL}.{own}"

    def identity(self) -> dict[str, Any]:
        """Return all that the outcome depends on, with all options, and a digest of the table instead of its path."""
        return {
            **asdict(self),
            "options": self.all_options(),
            "table": None if self.table is None else _digest(self.table),
            "protocol": self.protocol,
        }


@dataclass(frozen=True, slots=True)
class _Trial:
    """A finished training: its network, with the key, and its result."""

    genotype: Genotype
    key: str
    result: Evaluation | Failure


def checkpoints(budget: int) -> list[int]:
    """Return the checkpoints of a cell with this budget."""
    return sorted({point for point in CHECKPOINTS if budget / 20 <= point < budget} | {budget})


def run_cell(cell: Cell) -> dict[str, Any]:
    """Return the cell with its outcome, as plain data.

    `chosen` and `replicated` hold the true value of the network that would be chosen at each of `checkpoints`. `chosen`
    takes the best single result. `replicated` spends the last tenth of the budget on replicates of the leaders, and
    takes the best mean among networks that were trained twice. Values are in standard deviations over random networks.
    `duplicates` counts proposals of a network that was proposed before.
    """
    space = space_by_name(cell.space)
    landscape = _landscape(cell, space)
    controller = make_controller(cell.controller_name, space, seed=cell.seed, **cell.all_options())
    if isinstance(landscape, TableRows):
        controller = RestrictedToRows(controller, landscape)
    trials, ask_seconds, tell_seconds = _search(controller, landscape, cell)
    chosen, replicated = {}, {}
    for point in checkpoints(cell.budget):
        if cell.controller == BY_MADDS:
            chosen[str(point)] = replicated[str(point)] = _value(landscape, _most_madds(trials[:point]))
        else:
            chosen[str(point)] = _value(landscape, _best(trials[:point]))
            replicated[str(point)] = _value(landscape, _best_replicated(trials, space, landscape, cell, point))
    keys = [trial.key for trial in trials]
    return {
        **cell.identity(),
        "chosen": chosen,
        "replicated": replicated,
        "num_trials": len(trials),
        "duplicates": len(keys) - len(set(keys)),
        "ask_milliseconds": 1000 * statistics.fmean(ask_seconds),
        "ask_milliseconds_p99": 1000 * sorted(ask_seconds)[int(0.99 * (len(ask_seconds) - 1))],
        "tell_milliseconds": 1000 * statistics.fmean(tell_seconds),
    }


@functools.cache
def _digest(table: str) -> str:
    try:
        return hashlib.sha256(Path(table).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise UserError(f"{table} is not a table of trainings ({error}); name the file of one") from error


def _landscape(cell: Cell, space: SearchSpace) -> Landscape | TableRows:
    if cell.table is None:
        return make_landscape(cell.family, cell.landscape, space)
    if cell.family == ROWS:
        return TableRows(Path(cell.table), space)
    score = table_score(Path(cell.table), cell.landscape, space)
    return Landscape(f"{TABLE}-{cell.landscape}", space, score)


def _search(
    controller: Controller, landscape: Landscape | TableRows, cell: Cell
) -> tuple[list[_Trial], list[float], list[float]]:
    """Run a search; return its trials in the order they finished, and the processor seconds of each ask and tell."""
    trials: list[_Trial] = []
    ask_seconds: list[float] = []
    tell_seconds: list[float] = []
    busy: list[tuple[float, int, Proposal]] = []
    now, num_asked, exhausted = 0.0, 0, False
    while True:
        while len(busy) < cell.workers and num_asked < cell.budget and not exhausted:
            started = time.thread_time()
            try:
                proposal = controller.ask()
            except SpaceExhausted:
                exhausted, proposal = True, None
            ask_seconds.append(time.thread_time() - started)
            if proposal is None:
                break
            num_asked += 1
            takes = generator(cell.seed, "bench/duration", proposal.number).lognormal(sigma=0.3)
            heapq.heappush(busy, (now + takes, proposal.number, proposal))
        if not busy:
            return trials, ask_seconds, tell_seconds
        now, _, proposal = heapq.heappop(busy)
        trial = _train(proposal, landscape, cell)
        started = time.thread_time()
        controller.tell(proposal.number, trial.result)
        tell_seconds.append(time.thread_time() - started)
        trials.append(trial)


def _train(proposal: Proposal, landscape: Landscape | TableRows, cell: Cell) -> _Trial:
    assert isinstance(proposal.genotype, Genotype), "a search proposes genotypes"
    result = landscape.train(proposal.genotype, proposal.replicate, seed=cell.seed, noise=cell.noise)
    return _Trial(proposal.genotype, proposal.network_key, result)


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
