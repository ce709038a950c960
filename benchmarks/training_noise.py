"""Compare ways to get less noise out of a training of the same length.

    python benchmarks/training_noise.py benchmarks/tables/digits.csv.gz --data FOLDER --out results.jsonl

From the table alone: scores of a training that use the APs of its last epochs, or its loss, beside the last AP. With
trainings of some mutants: the mean of the weights over an epoch, and one order of images for all networks of a
replicate index. The results are appended to the file, and a later call continues. --figures-only trains nothing.

ICC is the intraclass correlation among the mutants: the share of a score's variance that is due to the network.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from altered_training import append_result, read_results, trained
from numpy.typing import NDArray
from retrain_row import task_of
from scipy import stats
from weight_inheritance import families, mean_of_others

from spinenas.results.stats.intraclass_correlation import intraclass_correlation
from spinenas.results.training_table import Training, TrainingTable, read_table
from spinenas.space import Genotype
from spinenas.space.random_streams import generator, seed_for

Scores = NDArray[np.float64]
"""(N, S): one score of each network and seed."""

RESAMPLES = 1000

ORDERS = ("own", "common")
"""Order of images: drawn by the seed of each training, or the same for all networks of a replicate index."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--data", type=Path, help="folder of the data set; not needed for generated data")
    parser.add_argument("--out", type=Path, required=True, help="file of the results")
    parser.add_argument("--mutants", type=int, default=12, metavar="N", help="train N mutants, of all parents in turn")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="train the first N replicates")
    parser.add_argument("--parents", type=int, default=6, metavar="N", help="the mutants are edits of the best N")
    parser.add_argument("--figures-only", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    table = read_table(arguments.table)
    by_network = trainings_by_network(table)
    print_scores(by_network)
    keys = chosen_mutants(table, num_parents=arguments.parents, count=arguments.mutants)
    if not arguments.figures_only:
        train_all(
            table, [by_network[key][: arguments.seeds] for key in keys], data=arguments.data, results=arguments.out
        )
    print_trainings([by_network[key] for key in keys], list(read_results(arguments.out)))


def trainings_by_network(table: TrainingTable) -> dict[str, list[Training]]:
    """Return the trainings of each mutant, by replicate."""
    found: dict[str, list[Training]] = {}
    for training in table.trainings:
        if training.origin == "mutants":
            found.setdefault(training.network_key, []).append(training)
    return found


def chosen_mutants(table: TrainingTable, *, num_parents: int, count: int) -> list[str]:
    """Return the keys of the first mutants of each parent, in turn."""
    of_parent: dict[str, list[str]] = {}
    for mutant, parent, _ in families(table, num_parents=num_parents):
        of_parent.setdefault(parent.network_key, []).append(mutant.network_key)
    longest = max(map(len, of_parent.values()))
    return [keys[turn] for turn in range(longest) for keys in of_parent.values() if turn < len(keys)][:count]


# --- Scores from the table ---

Score = Callable[[Scores, Scores, Scores], Scores]
"""A score from AP and loss by epoch (N, S, E), and the final AP (N, S) to learn weights from."""


def last_ap(ap: Scores, loss: Scores, final: Scores) -> Scores:
    return ap[:, :, -1]


def last_loss(ap: Scores, loss: Scores, final: Scores) -> Scores:
    return -loss[:, :, -1]


def mean_of_last(count: int, *, scaled: bool) -> Score:
    """Return the score that averages the APs of the last epochs, each scaled to the last one's mean or not."""

    def score(ap: Scores, loss: Scores, final: Scores) -> Scores:
        means = ap.mean(axis=(0, 1))
        factors = means[-1] / means if scaled else np.ones_like(means)
        return np.asarray((ap * factors)[:, :, -count:].mean(axis=2))

    return score


def ap_and_loss(ap: Scores, loss: Scores, final: Scores) -> Scores:
    """Return the last AP and loss, weighted to predict the final AP of the other seeds of all other networks."""
    inputs, others = np.stack([ap[:, :, -1], loss[:, :, -1]], axis=2), mean_of_others(final)
    scores = np.empty_like(final)
    for network in range(len(final)):
        rest = np.arange(len(final)) != network
        centre = inputs[rest].mean(axis=(0, 1))
        x, y = (inputs[rest] - centre).reshape(-1, 2), others[rest].ravel()
        weights, *_ = np.linalg.lstsq(x, y - y.mean(), rcond=None)
        # Without the mean of the others, which is low where this network is high.
        scores[network] = (inputs[network] - centre) @ weights
    return scores


SCORES: dict[str, Score] = {
    "last AP": last_ap,
    "mean of two APs": mean_of_last(2, scaled=False),
    "mean of two APs, scaled": mean_of_last(2, scaled=True),
    "mean of three APs": mean_of_last(3, scaled=False),
    "mean of three APs, scaled": mean_of_last(3, scaled=True),
    "last loss": last_loss,
    "AP and loss": ap_and_loss,
}


def print_scores(by_network: dict[str, list[Training]]) -> None:
    """Print what each score of the recorded trainings tells of a network."""
    trainings = list(by_network.values())
    ap = np.array([[training.ap_by_epoch for training in group] for group in trainings])
    loss = np.array([[training.loss_by_epoch for training in group] for group in trainings])
    print(f"{len(ap)} networks, {ap.shape[1]} seeds, from the table; intervals of 95 %")
    print("| score | until epoch | ICC | gain over the last AP | correlation with the final AP of the other seeds |")
    print("|---|---|---|---|---|")
    for until in sorted({min(3, ap.shape[2]), ap.shape[2]}, reverse=True):
        plain = ap[:, :, until - 1]
        for name, score in SCORES.items():
            scores = score(ap[:, :, :until], loss[:, :, :until], ap[:, :, -1])
            gain = "-" if name == "last AP" else gained(scores, plain)
            print(f"| {name} | {until} | {icc(scores)} | {gain} | {correlation_with_others(scores, ap[:, :, -1])} |")


def icc(scores: Scores) -> str:
    """Return the intraclass correlation and its interval."""
    found = intraclass_correlation(scores.tolist())
    return f"{found.value:.2f} ({found.lower:.2f} to {found.upper:.2f})"


def gained(scores: Scores, plain: Scores) -> str:
    """Return the difference of two intraclass correlations, with an interval from drawing networks."""

    def difference(rows: NDArray[np.int64]) -> float:
        return intraclass_correlation(scores[rows].tolist()).value - intraclass_correlation(plain[rows].tolist()).value

    return drawn(difference, len(scores), signed=True)


def correlation_with_others(scores: Scores, final: Scores) -> str:
    """Return the mean correlation of a score with the mean final AP of the network's other seeds."""
    others = mean_of_others(final)

    def correlation(rows: NDArray[np.int64]) -> float:
        with np.errstate(invalid="ignore"):  # a draw of one network alone has none
            found = [np.corrcoef(scores[rows, seed], others[rows, seed])[0, 1] for seed in range(scores.shape[1])]
        return float(np.mean(found))

    return drawn(correlation, len(scores))


def drawn(figure: Callable[[NDArray[np.int64]], float], count: int, *, signed: bool = False) -> str:
    """Return a figure of all networks, with its percentile interval over networks drawn with replacement."""
    rng = generator(0, "networks")
    values = [figure(rng.integers(count, size=count)) for _ in range(RESAMPLES)]
    lower, upper = np.nanquantile(values, [0.025, 0.975])
    sign = "+" if signed else ""
    return f"{figure(np.arange(count)):{sign}.2f} ({lower:.2f} to {upper:.2f})"


# --- Trainings ---


def train_all(table: TrainingTable, groups: list[list[Training]], *, data: Path | None, results: Path) -> None:
    """Train each seed of the networks with either order of images, as far as there is no result yet."""
    task = task_of(table, data)
    done = {(result["network_key"], result["replicate"], result["order"]) for result in read_results(results)}
    jobs = [
        (order, group[replicate])
        for order in ORDERS
        for replicate in range(max(map(len, groups)))
        for group in groups
        if replicate < len(group)
    ]
    for order, training in jobs:
        names = {"network_key": training.network_key, "replicate": training.replicate, "order": order}
        if tuple(names.values()) in done:
            continue
        common = seed_for(0, "order", training.replicate)
        _, figures = trained(
            task,
            Genotype.from_text(training.genotype),
            seed=training.seed,
            order_seed=common if order == "common" else None,
            measured_after=(3,),
            averages=True,
        )
        append_result(results, {**names, **figures})


def print_trainings(groups: list[list[Training]], results: list[dict[str, Any]]) -> None:
    """Print what averaged weights and a common order bring, from the networks that have a result for each seed."""
    found = {(result["order"], result["network_key"], result["replicate"]): result for result in results}
    for order in ORDERS:
        num_seeds = 0
        while any((order, group[0].network_key, num_seeds) in found for group in groups):
            num_seeds += 1
        complete = [
            group
            for group in groups
            if num_seeds and all((order, group[0].network_key, seed) in found for seed in range(num_seeds))
        ]
        if len(complete) < 2:
            continue
        trainings = [[found[order, group[0].network_key, seed] for seed in range(num_seeds)] for group in complete]
        print(f"\norder of images: {order}; {len(complete)} networks, {num_seeds} seeds")
        for epoch in trainings[0][0]["ap"]:
            plain, averaged = (
                np.array([[training[key][epoch] for training in group] for group in trainings])
                for key in ("ap", "averaged_ap")
            )
            print(
                f"epoch {epoch}: mean AP {plain.mean():.4f}, of averaged weights {averaged.mean():.4f}; "
                f"averaged minus last: {paired_difference(averaged, plain)}"
            )
            recorded = np.array([[training.ap_by_epoch[int(epoch) - 1] for training in group] for group in complete])
            print(f"  difference from the table's trainings: {against_table(plain, recorded)}")
            if num_seeds > 1:
                print(f"  ICC {icc(plain)}, of averaged weights {icc(averaged)}, gain {gained(averaged, plain)}")
                print(f"  sd within networks {within(plain):.4f}, of averaged weights {within(averaged):.4f}")
                print(f"  share of that variance which a replicate's networks have in common: {common_share(plain)}")


def paired_difference(first: Scores, second: Scores) -> str:
    """Return the mean difference of the same trainings, with a 95 % interval of Student's t."""
    difference = (first - second).ravel()
    half = stats.t.ppf(0.975, difference.size - 1) * difference.std(ddof=1) / np.sqrt(difference.size)
    return f"{difference.mean():+.4f} ({difference.mean() - half:+.4f} to {difference.mean() + half:+.4f})"


def within(scores: Scores) -> float:
    """Return the standard deviation between the seeds of a network."""
    return intraclass_correlation(scores.tolist()).within_std


def against_table(scores: Scores, recorded: Scores) -> str:
    """Return the root mean square difference from the table's training of the same seed, and of the other seeds.

    On another processor, the former shows how much of the noise is due to rounding.
    """
    num_seeds = scores.shape[1]
    squares = (scores[:, :, None] - recorded[:, None, :]) ** 2
    same = np.eye(num_seeds, recorded.shape[1], dtype=bool)
    of_same, of_others = squares[:, same].ravel(), squares[:, ~same].reshape(scores.size, -1).mean(axis=1)

    def share(rows: NDArray[np.int64]) -> float:
        return float(1 - of_same[rows].mean() / of_others[rows].mean()) if of_others[rows].any() else 0.0

    return (
        f"{np.sqrt(of_same.mean()):.4f} with the same seed, {np.sqrt(of_others.mean()):.4f} with another; share of the "
        f"variance that the seed explains: {drawn(share, scores.size)}"
    )


def common_share(scores: Scores) -> str:
    """Return the share of the seeds' variance that all networks of a replicate have in common, with its F test."""
    num_networks, num_seeds = scores.shape
    rest = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0, keepdims=True) + scores.mean()
    freedom = (num_seeds - 1, (num_seeds - 1) * (num_networks - 1))
    of_replicates = num_networks * scores.mean(axis=0).var(ddof=1)
    of_rest = float((rest**2).sum()) / freedom[1]
    if of_rest == 0:
        return "-"
    common = max(0.0, (of_replicates - of_rest) / num_networks)
    p_value = stats.f.sf(of_replicates / of_rest, *freedom)
    return f"{common / (common + of_rest):.2f} (p {p_value:.2g})"


if __name__ == "__main__":
    main()
