"""Tunes the controllers on landscapes that no comparison uses (numbers from 900), with equally many settings for each.

    python benchmarks/tune_controllers.py --out tuning.jsonl

Landscapes learnt from a table are left out, since all of one table are alike. The best setting depends on the budget,
which is therefore that of the comparison. Nine landscapes have each family with each noise. For each setting, the
command prints the median over landscapes of the true value of the chosen network, in standard deviations over random
networks. The first setting of each controller is its defaults. Outcomes are kept, so that a stopped command can
continue.

A controller that counts epochs has a third of the budget, where it is meant to reach the others. Its settings also show
what each of its mechanisms brings: without pauses, with one pause instead of two, without further seeds.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from spinenas.search.controller_bench.cell import Cell
from spinenas.search.controller_bench.comparison import cells, run_cells

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "local": [{}, {"num_parents": 1}, {"num_parents": 2}, {"num_parents": 8}, {"num_parents": 16}],
    "evolution": [
        {},
        {"population_size": 32, "tournament_size": 8},
        {"population_size": 64, "tournament_size": 32},
        {"population_size": 100, "tournament_size": 25},
        {"max_edits": 3},
    ],
    "predictor-guided": [
        {},
        {"num_random": 60},
        {"ucb_coefficient": 0.2},
        {"ucb_coefficient": 1.0},
        {"num_candidates": 400},
    ],
    "freeze-thaw": [
        {},
        {"rungs": ()},
        {"rungs": (3,)},
        {"replicate_chance": 0.0},
        {"num_leaders": 6},
    ],
    "reinforce": [
        {},
        {"policy": "factorised"},
        {"learning_rate": 5e-4},
        {"learning_rate": 5e-3},
        {"entropy_weight": 1e-5},
    ],
    "ppo": [
        {},
        {"policy": "recurrent"},
        {"learning_rate": 0.03},
        {"learning_rate": 0.3},
        {"batch_size": 10},
    ],
}
"""Options by controller. All settings differ in effect: fewer random networks than workers would change nothing."""

FIRST_LANDSCAPE = 900


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--controllers", default=",".join(SETTINGS))
    parser.add_argument("--landscapes", type=int, default=9)
    parser.add_argument("--budget", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    wanted: list[Cell] = []
    for name in arguments.controllers.split(","):
        for plain in cells(
            [name],
            num_landscapes=arguments.landscapes,
            first_landscape=FIRST_LANDSCAPE,
            num_seeds=1,
            workers=arguments.workers,
            budget=arguments.budget,
            budgets=[math.ceil(arguments.budget / 3)],
        ):
            wanted += [replace(plain, options=options) for options in SETTINGS[name]]
    outcomes = run_cells(wanted, arguments.out, processes=arguments.processes, note=lambda text: None)
    by_setting: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell, outcome in zip(wanted, outcomes, strict=True):
        setting = ", ".join(f"{key} {value}" for key, value in cell.options.items()) or "defaults"
        by_setting.setdefault((cell.controller, setting), []).append(outcome)
    families = sorted({outcome["family"] for outcome in outcomes})
    print(f"{'controller':12}{'setting':42}{'all':>7}" + "".join(f"{family:>7}" for family in families))
    for (controller, setting), found in by_setting.items():
        print(
            f"{controller:12}{setting:42}{value(found):7.2f}"
            + "".join(f"{value([o for o in found if o['family'] == family]):7.2f}" for family in families)
        )


def value(outcomes: list[dict[str, Any]]) -> float:
    """Return the median true value of the winners after replicates; 0 for a search without a winner."""
    return statistics.median(list(outcome["replicated"].values())[-1] or 0.0 for outcome in outcomes)


if __name__ == "__main__":
    main()
