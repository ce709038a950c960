"""Measures the time that controllers take to propose and to learn with 1,000 and 10,000 known trials.

Run `python benchmarks/controller_speed.py`, optionally with names of controllers. Each controller searches a synthetic
landscape with 20 trials in flight, and the last 200 asks and tells are timed. Optuna's samplers would take hours for
that: they are told recorded trials instead, and the next few asks are timed. With `--max-madds`, every proposal must
keep a limit, given as the share of random architectures that keep it in the detector of SpineNet-49 at 640 px. Times
are processor times of one thread, so that other processes hardly matter.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from datetime import date
from functools import partial

import numpy as np

from spinenas.controller import CONTROLLERS, Controller, Proposal, make_controller
from spinenas.results.record import Evaluation
from spinenas.space import Genotype, SearchSpace
from spinenas.space.limits import CostTarget, Limits
from spinenas.space.sampling import sample_without_dead_blocks

SPACE = SearchSpace.spinenet49()
NUM_IN_FLIGHT, NUM_TIMED, NUM_TIMED_OF_OPTUNA = 20, 200, 10
WEIGHTS = np.random.default_rng(0).normal(size=(2, SPACE.num_nodes, SPACE.num_nodes))

MAKERS: dict[str, Callable[..., Controller]] = {
    **{name: partial(make_controller, name, SPACE) for name in sorted(set(CONTROLLERS) - {"plan"})},
    "ppo, recurrent": partial(make_controller, "ppo", SPACE, policy="recurrent"),
    "reinforce, factorised": partial(make_controller, "reinforce", SPACE, policy="factorised"),
}


def limits_of(share: float) -> Limits:
    """Return limits that this share of a thousand random architectures keeps."""
    target, rng = CostTarget.published("49@640"), np.random.default_rng(0)
    madds = [target.cost(sample_without_dead_blocks(SPACE, rng)).madds for _ in range(1000)]
    return Limits(target, max_madds=float(np.quantile(madds, share)))


def evaluation(genotype: Genotype, rng: np.random.Generator) -> Evaluation:
    """Return a result that is a sum of weights for the level and the parents of each place."""
    total = rng.normal()
    for node, block in enumerate(genotype.blocks, start=len(genotype.stem)):
        total += WEIGHTS[0, node, block.level] + sum(WEIGHTS[1, node, parent] for parent in block.parents)
    return Evaluation(0.2 + 0.004 * total)


def searched(controller: Controller, num_known: int) -> tuple[list[float], list[float]]:
    """Run a search and return the seconds of its last asks and tells."""
    rng, open_proposals = np.random.default_rng(1), []
    asks, tells = [], []
    for _ in range(num_known + NUM_IN_FLIGHT):
        started = time.thread_time()
        proposal = controller.ask()
        asks.append(time.thread_time() - started)
        assert proposal is not None
        open_proposals.append(proposal)
        if len(open_proposals) >= NUM_IN_FLIGHT:
            proposal = open_proposals.pop(rng.integers(NUM_IN_FLIGHT))
            result = evaluation(proposal.genotype, rng)
            started = time.thread_time()
            controller.tell(proposal.number, result)
            tells.append(time.thread_time() - started)
    return asks[-NUM_TIMED:], tells[-NUM_TIMED:]


def tell_recorded(controller: Controller, num_known: int) -> list[float]:
    """Tell recorded trials of random networks and return the seconds of each tell."""
    rng, tells = np.random.default_rng(1), []
    for number in range(num_known):
        genotype = SPACE.sample(rng)
        controller.replay_ask(Proposal(number, genotype))
        started = time.thread_time()
        controller.tell(number, evaluation(genotype, rng))
        tells.append(time.thread_time() - started)
    return tells


def ask_without_results(controller: Controller, count: int) -> tuple[list[Proposal | None], list[float]]:
    """Ask repeatedly without results; return the proposals and the seconds of each ask."""
    asked, asks = [], []
    for _ in range(count):
        started = time.thread_time()
        asked.append(controller.ask())
        asks.append(time.thread_time() - started)
    return asked, asks


def recorded(controller: Controller, num_known: int) -> tuple[list[float], list[float]]:
    """Return the seconds of the asks after recorded trials, and of the last tells of these trials."""
    tells = tell_recorded(controller, num_known)
    return ask_without_results(controller, NUM_TIMED_OF_OPTUNA)[1], tells[-NUM_TIMED:]


def machine() -> str:
    """Describe date, machine and versions."""
    return (
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}, numpy {np.__version__}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MAKERS)}; default: all")
    parser.add_argument("--known", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument(
        "--max-madds", type=float, metavar="SHARE", help="share of random networks within the limit, such as 0.05"
    )
    arguments = parser.parse_args()
    feasible = None if arguments.max_madds is None else limits_of(arguments.max_madds)
    print(machine())
    print(f"{'milliseconds':24} {'known':>6} {'ask p50':>9} {'ask p99':>9} {'tell p50':>9} {'tell p99':>9}")
    for name in arguments.names or MAKERS:
        for num_known in arguments.known:
            asks, tells = (recorded if name == "tpe" else searched)(MAKERS[name](feasible=feasible), num_known)
            figures = [1000 * np.quantile(taken, at) for taken in (asks, tells) for at in (0.5, 0.99)]
            print(f"{name:24} {num_known:6} " + " ".join(f"{figure:9.2f}" for figure in figures), flush=True)


if __name__ == "__main__":
    main()
