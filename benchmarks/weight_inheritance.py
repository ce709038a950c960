"""Compare edits of trained networks that inherit weights with the same edits trained from scratch.

    python benchmarks/weight_inheritance.py benchmarks/tables/digits.csv.gz --data FOLDER --out FOLDER

The table has `mutants`, edits of the best `random` networks, with several trainings from scratch each. The parent of a
mutant is the nearest of these networks. Each parent is trained once. A mutant then starts with the weights of its
parent where blocks and connections match, and is trained for one epoch. The results are appended to `results.jsonl`,
and a later call continues. --figures-only trains nothing and prints what is there.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from altered_training import append_result, read_results, trained
from inherited_weights import inheritance, inherited_tensors
from numpy.typing import NDArray
from retrain_row import task_of
from safetensors.torch import load_file, save_file

from spinenas.results.training_table import Training, TrainingTable, read_table
from spinenas.space import Genotype
from spinenas.space.random_streams import generator, seed_for

RATES = (1.0, 1 / 3)
"""Peak learning rates of the one epoch, relative to that of the task."""

RESAMPLES = 1000


class Family(NamedTuple):
    """A mutant and its parent: each a training from scratch; the parent is the nearest of the best networks."""

    mutant: Training
    parent: Training
    distance: int


def families(table: TrainingTable, *, num_parents: int) -> list[Family]:
    """Return all mutants of a table with their parents."""
    first: dict[str, Training] = {}
    for training in table.trainings:
        first.setdefault(training.network_key, training)
    aps = scratch_aps(table)
    random = [training for training in first.values() if training.origin == "random"]
    parents = sorted(random, key=lambda training: -statistics.fmean(aps[training.network_key]))[:num_parents]
    found = []
    for training in first.values():
        if training.origin == "mutants":
            child = Genotype.from_text(training.genotype)
            distances = [inheritance(child, Genotype.from_text(parent.genotype)).distance for parent in parents]
            found.append(Family(training, parents[int(np.argmin(distances))], min(distances)))
    return found


def scratch_aps(table: TrainingTable) -> dict[str, list[float]]:
    """Return the final APs of each network of a table."""
    aps: dict[str, list[float]] = {}
    for training in table.trainings:
        aps.setdefault(training.network_key, []).append(training.ap)
    return aps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--data", type=Path, help="folder of the data set; not needed for generated data")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results and the parents' weights")
    parser.add_argument("--parents", type=int, default=6, metavar="N", help="the mutants are edits of the best N")
    parser.add_argument("--mutants", type=int, metavar="N", help="the first N mutants alone; default: all")
    parser.add_argument("--figures-only", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    table = read_table(arguments.table)
    chosen = families(table, num_parents=arguments.parents)[: arguments.mutants]
    print(
        f"{len(chosen)} mutants of {len({family.parent.network_key for family in chosen})} parents; differences to "
        f"the parent: median {statistics.median(family.distance for family in chosen):g}"
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = arguments.out / "results.jsonl"
    if not arguments.figures_only:
        train_all(table, chosen, data=arguments.data, out=arguments.out, results=results)
    print_figures(table, chosen, list(read_results(results)))


def train_all(table: TrainingTable, chosen: list[Family], *, data: Path | None, out: Path, results: Path) -> None:
    """Train the parents, and then the mutants at each rate, as far as they have no result yet."""
    task = task_of(table, data)
    done = {(result["network_key"], result["rate"]) for result in read_results(results)}
    for key, parent in {family.parent.network_key: family.parent for family in chosen}.items():
        if (key, None) not in done:
            network, figures = trained(task, Genotype.from_text(parent.genotype), seed=parent.seed)
            save_file(
                {name: tensor.contiguous() for name, tensor in network.state_dict().items()}, out / f"{key}.safetensors"
            )
            append_result(results, {"network_key": key, "rate": None, **figures})
    for rate in RATES:
        for mutant, parent, _ in chosen:
            if (mutant.network_key, rate) in done:
                continue
            child = Genotype.from_text(mutant.genotype)
            seed = seed_for(mutant.seed, "inheritance")  # other initial weights and order than from scratch
            weights = load_file(out / f"{parent.network_key}.safetensors")
            inherit = partial(inherited_tensors, child, Genotype.from_text(parent.genotype), weights)
            _, figures = trained(
                task,
                child,
                seed=seed,
                epochs=1,
                learning_rate=rate * task.config.train.learning_rate,
                inherit=inherit,
                measured_after=(0,) if rate == RATES[0] else (),
            )
            names = {"network_key": mutant.network_key, "parent": parent.network_key, "rate": rate}
            append_result(results, {**names, **figures})


def print_figures(table: TrainingTable, chosen: list[Family], results: list[dict[str, Any]]) -> None:
    """Print for each rate how well APs after few epochs agree with trainings from scratch."""
    aps = {(result["network_key"], result["rate"]): result["ap"] for result in results}
    shares = [result["inherited_share"] for result in results if "inherited_share" in result]
    if shares:
        print(f"a child inherits {statistics.median(shares):.1%} of its tensors (median; least {min(shares):.1%})")
    for rate in RATES:
        trained_ones = [family for family in chosen if (family.mutant.network_key, rate) in aps]
        if len(trained_ones) < 3:
            print(f"fewer than three mutants were trained with the learning rate times {rate:.2f}")
            continue
        children = [aps[family.mutant.network_key, rate] for family in trained_ones]
        columns = {
            f"inherited, {epoch} epochs": np.array([child[epoch] for child in children]) for epoch in children[0]
        }
        columns["the parent, from scratch"] = np.array(
            [max(aps[family.parent.network_key, None].items())[1] for family in trained_ones]
        )
        print(f"\nlearning rate times {rate:.2f}")
        print_agreement(table, trained_ones, columns)
    print_deviations(table, chosen, aps)


def print_deviations(
    table: TrainingTable, chosen: list[Family], aps: dict[tuple[str, float | None], dict[str, float]]
) -> None:
    """Print how siblings differ: correlations of the deviations from the mean of a parent's children."""
    complete = [family for family in chosen if all((family.mutant.network_key, rate) in aps for rate in RATES)]
    if len(complete) < 3:
        return
    keys = [family.mutant.network_key for family in complete]
    names = ["mean from scratch", *(f"inherited, rate times {rate:.2f}" for rate in RATES)]
    final = [[training.ap for training in group] for group in trainings_of(table, keys)]
    values = np.array([np.mean(final, axis=1), *([aps[key, rate]["1"] for key in keys] for rate in RATES)])
    parents = np.array([family.parent.network_key for family in complete])
    for parent in set(parents):
        values[:, parents == parent] -= values[:, parents == parent].mean(axis=1, keepdims=True)
    print(f"\ndeviations of {len(keys)} mutants from the mean of their parent's children")
    for (i, first), (j, second) in itertools.combinations(enumerate(names), 2):
        if values[i].any() and values[j].any():
            print(f"{first} and {second}: correlation {np.corrcoef(values[i], values[j])[0, 1]:.2f}")
    print(", ".join(f"{name}: sd {row.std():.4f}" for name, row in zip(names, values, strict=True)))


def print_agreement(table: TrainingTable, chosen: list[Family], inherited: dict[str, NDArray[np.float64]]) -> None:
    """Print the agreement of scores (N,) and of trainings stopped early with the final APs from scratch."""
    keys = [family.mutant.network_key for family in chosen]
    parents = [family.parent.network_key for family in chosen]
    recorded = trainings_of(table, keys)
    scratch = np.array([[training.ap_by_epoch for training in group] for group in recorded])
    _, num_seeds, num_epochs = scratch.shape
    final = scratch[:, :, -1]
    scores = {f"from scratch, {epoch} epochs": scratch[:, :, epoch - 1] for epoch in (1, 2, 3, num_epochs)}
    scores |= {name: np.repeat(values[:, None], num_seeds, axis=1) for name, values in inherited.items()}
    print(
        f"{len(keys)} mutants, {num_seeds} trainings from scratch each; intervals of 95 %, from drawing mutants; the "
        f"parents took {num_epochs * len(set(parents)) / len(keys):.2f} epochs a mutant"
    )
    print("| training | mean AP | tau with others | minus that of 3 epochs | within parents | minus that of 3 epochs |")
    print("|---|---|---|---|---|---|")
    three = scores["from scratch, 3 epochs"]
    for name, values in scores.items():
        cells = [f"{values.mean():.4f}"]
        for groups in (["all"] * len(keys), parents):
            cells.append(tau_with_interval(values, mean_of_others(final), groups))
            cells.append(tau_with_interval(values, mean_of_others(final), groups, minus=three))
        print(f"| {name} | {' | '.join(cells)} |")
    for name, single in inherited.items():
        print(f"{name}: tau with the mean of all {num_seeds} is {tau(single, final.mean(axis=1)):.2f}")


def trainings_of(table: TrainingTable, keys: list[str]) -> list[list[Training]]:
    """Return the trainings of some networks, by replicate."""
    found: dict[str, list[Training]] = {key: [] for key in keys}
    for training in table.trainings:
        if training.network_key in found:
            found[training.network_key].append(training)
    return list(found.values())


def mean_of_others(final: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each network and seed (N, S) the mean of the network's other seeds."""
    return np.asarray((final.sum(axis=1, keepdims=True) - final) / (final.shape[1] - 1))


def tau_with_interval(
    values: NDArray[np.float64],
    others: NDArray[np.float64],
    groups: Sequence[str],
    *,
    minus: NDArray[np.float64] | None = None,
) -> str:
    """Return the mean tau within groups and over seeds, with its percentile interval over networks of each group.

    Args:
        values, others: (N, S) the score of each training, and the mean of the network's other trainings.
        groups: the group of each network.
        minus: other scores, whose tau is subtracted.
    """
    rows_of = [np.flatnonzero(np.array(groups) == group) for group in dict.fromkeys(groups)]
    rows_of = [rows for rows in rows_of if len(rows) >= 3]
    seeds = range(values.shape[1])

    def figure(rows_of: list[NDArray[np.int64]]) -> float:
        taus = [tau(values[rows, seed], others[rows, seed]) for rows in rows_of for seed in seeds]
        if minus is not None:
            taus += [-tau(minus[rows, seed], others[rows, seed]) for rows in rows_of for seed in seeds]
        return sum(taus) / max(1, len(rows_of) * len(seeds))

    rng = generator(0, "networks")
    drawn = [figure([rng.choice(rows, len(rows)) for rows in rows_of]) for _ in range(RESAMPLES)]
    lower, upper = np.quantile(drawn, [0.025, 0.975])
    sign = "" if minus is None else "+"
    return f"{figure(rows_of):{sign}.2f} ({lower:{sign}.2f} to {upper:{sign}.2f})"


def tau(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return Kendall's tau-b; 0 if either side is constant. For few values it is much faster than SciPy's."""
    a, b = (np.sign(values[:, None] - values) for values in (first, second))
    return float((a * b).sum() / np.sqrt(max(1.0, (a * a).sum() * (b * b).sum())))


if __name__ == "__main__":
    main()
