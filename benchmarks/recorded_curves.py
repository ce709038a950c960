"""Replay searches on the recorded curves of a table, and count the epochs until the right network is named.

    python benchmarks/recorded_curves.py benchmarks/tables/digits.csv.gz --orders 100

Each search may train the networks of the table alone, in a new order each time. A training gives the recorded AP after
each epoch. After every step the search names the network that it would choose now. Its regret is the difference between
the best mean final AP and that of the named network. A row has the epochs from which the mean regret of all orders
stays at or below 0.005, 0.003 and 0.002; "never" means not within the budget.

Rows: trainings to the end against those that pause, each without and with further seeds of the leaders; for random
networks alone, and for all networks of the table.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from spinenas.controller.base import Proposal, SpaceExhausted
from spinenas.controller.ledger import Candidate
from spinenas.controller.one_thread import one_blas_thread
from spinenas.controller.predictor.freeze_thaw import FreezeThaw, FreezeThawOptions, Schedule
from spinenas.results.record import Evaluation
from spinenas.results.training_table import read_table
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key
from spinenas.space.random_streams import generator
from spinenas.space.search_space import SearchSpace, space_by_name

LEVELS = (0.005, 0.003, 0.002)

POLICIES: dict[str, dict[str, Any]] = {
    "whole trainings": {"rungs": (), "replicate_chance": 0.0},
    "whole trainings, seeds of leaders": {"rungs": ()},
    "stop after 3 of 5, seeds of leaders": {"rungs": (3,)},
    "freeze-thaw without seeds": {"replicate_chance": 0.0},
    "freeze-thaw": {},
}


@dataclass(frozen=True)
class Curves:
    """The networks of a table: genotype, AP by epoch of each training, mean final AP, and whether it was random."""

    space: SearchSpace
    genotypes: dict[str, Genotype]
    aps: dict[str, list[tuple[float, ...]]]
    origins: dict[str, str]

    def mean(self, key: str) -> float:
        """Mean final AP."""
        return float(np.mean([curve[-1] for curve in self.aps[key]]))


@cache
def curves_of(path: Path) -> Curves:
    """Read a table."""
    table = read_table(path)
    found = Curves(space_by_name(table.about["space"]), {}, {}, {})
    for training in table.trainings:
        key = training.network_key
        found.genotypes[key] = Genotype.from_text(training.genotype)
        found.aps.setdefault(key, []).append(training.ap_by_epoch)
        found.origins[key] = training.origin
    return found


class Restricted(FreezeThaw):
    """A freeze-thaw search that proposes given genotypes alone."""

    pool: list[Genotype]

    def _children(self, rng: np.random.Generator) -> Iterator[Candidate]:
        return (Candidate(genotype, "table") for genotype in self.pool)

    def _random(self, rng: np.random.Generator) -> Iterator[Candidate]:
        return (Candidate(self.pool[place], "random") for place in rng.permutation(len(self.pool)))

    def named(self) -> str | None:
        """Key of the network that would be chosen now."""
        leaders = self._leaders()
        return network_key(leaders[0].genotype) if leaders else None


def regrets(path: Path, keys: tuple[str, ...], options: dict[str, Any], budget: int, order: int) -> np.ndarray:
    """Return the regret after each epoch of one search, (budget,)."""
    curves = curves_of(path)
    num_epochs = len(next(iter(curves.aps.values()))[0])
    given = replace(
        FreezeThawOptions(num_random=6, num_candidates=len(keys)),
        **options,
    )
    # The reserve for finalists is not counted: networks are named, not trained to the end.
    search = Restricted(curves.space, given, seed=order, schedule=Schedule(num_epochs, 10 * budget, 0.0))
    search.pool = [curves.genotypes[key] for key in keys]
    best = max(map(curves.mean, keys))
    found = np.full(budget, best - float(np.mean([curves.mean(key) for key in keys])))
    proposals: dict[int, Proposal] = {}
    with one_blas_thread():
        while search.num_epochs < budget:
            try:
                step = search.ask()
            except SpaceExhausted:
                break
            assert step is not None, "every step is told before the next"
            if isinstance(step, Proposal):
                proposals[step.number] = step
            proposal = proposals[step.number]
            seeds = curves.aps[proposal.network_key]
            turn = generator(order, f"recorded/{proposal.network_key}").permutation(len(seeds))
            curve = seeds[turn[proposal.replicate % len(seeds)]][: step.until]
            by_epoch = tuple(enumerate(curve, start=1))
            search.tell(step.number, Evaluation(curve[-1], stopped_after=step.until, by_epoch=by_epoch))
            named = search.named()
            if named is not None:
                found[search.num_epochs - 1 :] = best - curves.mean(named)
    return found


def reached(found: np.ndarray, level: float) -> str:
    """Epochs from which the mean regret of (orders, budget) stays at or below a level."""
    above = np.flatnonzero(found.mean(axis=0) > level)
    last = above[-1] + 1 if len(above) else 0
    return str(last + 1) if last < found.shape[1] else "never"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--orders", type=int, default=100, help="searches for each row")
    parser.add_argument("--budget", type=int, default=160, help="epochs of each search")
    parser.add_argument("--only", nargs="*", help="policies by name; default: all")
    arguments = parser.parse_args()
    curves = curves_of(arguments.table)
    pools = {
        "random": tuple(key for key, origin in curves.origins.items() if origin == "random"),
        "all": tuple(curves.genotypes),
    }
    print(
        "| networks | policy | "
        + " | ".join(f"<= {level}" for level in LEVELS)
        + " | at the end |\n|---|---|---|---|---|---|"
    )
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        for name, keys in pools.items():
            for policy in arguments.only or POLICIES:
                orders = range(arguments.orders)
                fixed = map(repeat, (arguments.table, keys, POLICIES[policy], arguments.budget))
                found = np.stack(list(processes.map(regrets, *fixed, orders)))
                cells = [reached(found, level) for level in LEVELS]
                print(
                    f"| {len(keys)} {name} | {policy} | {' | '.join(cells)} | {found[:, -1].mean():.4f} |", flush=True
                )


if __name__ == "__main__":
    main()
