"""Print the microseconds to draw, check, encode, cost, key and edit one genotype.

Run `python benchmarks/space_speed.py`. The last rows draw the same decisions through Optuna's ask and suggest,
which is the straightforward way to define this space in Optuna.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable

import numpy as np
import optuna

from spinenas.space import SCALINGS, SearchSpace, network_key, random_edit, retinanet_cost

TARGET_MICROSECONDS = 500.0
"""Target for drawing, checking, encoding and costing one genotype together."""


def microseconds(action: Callable[[], object], repetitions: int) -> np.ndarray:
    """Time an action repeatedly, and return one figure per repetition."""
    taken = []
    for _ in range(repetitions):
        started = time.perf_counter_ns()
        action()
        taken.append((time.perf_counter_ns() - started) / 1000)
    return np.array(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000)
    repetitions = parser.parse_args().repetitions
    space, scaling = SearchSpace.spinenet49(), SCALINGS["49"]
    rng = np.random.default_rng(0)
    genotypes = iter([space.sample(rng) for _ in range(6 * repetitions)])
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))

    def together() -> None:
        genotype = space.sample(rng)
        space.check(genotype)
        space.encode(genotype)
        retinanet_cost(genotype, scaling, 640)

    def draw_with_optuna() -> None:
        trial = study.ask()
        space.decode([trial.suggest_int(d.name, 0, d.num_options - 1) for d in space.decisions])

    actions: dict[str, Callable[[], object]] = {
        "draw": lambda: space.sample(rng),
        "check": lambda: space.check(next(genotypes)),
        "encode (checks too)": lambda: space.encode(next(genotypes)),
        "cost of the detector": lambda: retinanet_cost(next(genotypes), scaling, 640),
        "network key": lambda: network_key(next(genotypes)),
        "random edit": lambda: random_edit(space, next(genotypes), rng),
        "draw, check, encode and cost": together,
    }
    print(f"Python {platform.python_version()}, numpy {np.__version__}, optuna {optuna.__version__}, {space.name}")
    print(f"{'microseconds':32} {'median':>9} {'95 %':>9}   {repetitions} repetitions")
    medians = {}
    for name, action in actions.items():
        taken = microseconds(action, repetitions)
        medians[name] = float(np.median(taken))
        print(f"{name:32} {medians[name]:9.1f} {np.quantile(taken, 0.95):9.1f}")
    num_trials = min(repetitions, 200)
    taken = microseconds(draw_with_optuna, num_trials)
    print(f"{'draw with Optuna':32} {np.median(taken):9.1f} {np.quantile(taken, 0.95):9.1f}   {num_trials} trials")
    print(f"Optuna's draw takes {np.median(taken) / medians['draw']:.0f} times as long as ours")
    reached = medians["draw, check, encode and cost"]
    print(f"target {TARGET_MICROSECONDS:.0f}: {'met' if reached <= TARGET_MICROSECONDS else 'MISSED'}")


if __name__ == "__main__":
    main()
