"""Print how well the predictor of `predictor-guided` predicts networks of a table that it was not given.

    python benchmarks/predictor_fit.py benchmarks/tables/digits.csv.gz

The predicted value is the mean AP of a network. There are three comparisons: ten folds of the random networks; other
random networks, predicted from a number of them (medians of several draws); and networks of other origins, predicted
from all random networks. R2 is relative to the mean of the predicted networks. The error in standard deviations
includes the spread of trainings. It is 1 if the predictor's uncertainty is right.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spinenas.controller.calibration import Calibration
from spinenas.controller.one_thread import one_blas_thread
from spinenas.controller.predictor.gaussian_process import Predictor
from spinenas.results.foretold import END
from spinenas.results.stats.intervals import pooled_spread
from spinenas.results.stats.rank_correlation import kendall
from spinenas.results.training_table import read_table
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key
from spinenas.space.random_streams import generator
from spinenas.space.search_space import SearchSpace, space_by_name

Network = tuple[Genotype, float, float]
"""Genotype, mean AP, and the standard error of the mean."""

NUM_FOLDS, NUM_DRAWS = 10, 12
TAUGHT = (12, 20, 30, 40, 50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    path = parser.parse_args().table
    table = read_table(path)
    space = space_by_name(table.about["space"])
    by_origin: dict[str, dict[str, list[tuple[Genotype, float]]]] = {}
    for training in table.trainings:
        networks = by_origin.setdefault(training.origin, {})
        networks.setdefault(training.network_key, []).append((Genotype.from_text(training.genotype), training.ap))
    means = {origin: averaged(list(networks.values())) for origin, networks in by_origin.items()}
    if "random" not in means:
        sys.exit(f"{path} has no networks of origin random to learn from")
    random = means.pop("random")
    with one_blas_thread():
        folds = generator(0, "benchmark/folds").permutation(len(random)) % NUM_FOLDS
        parts = [
            predicted(
                space,
                [random[i] for i in np.flatnonzero(folds != fold)],
                [random[i] for i in np.flatnonzero(folds == fold)],
            )
            for fold in range(NUM_FOLDS)
        ]
        print(f"{'taught':>24}  {'asked':>14}  {'R2':>6}  {'tau':>6}  {'error in sd':>11}")
        show(f"{NUM_FOLDS - 1} of {NUM_FOLDS} folds, random", "the other fold", [np.concatenate(parts, axis=1)])
        for count in (count for count in TAUGHT if count < len(random) - 1):
            draws = []
            for draw in range(NUM_DRAWS):
                order = generator(draw, "benchmark/draws").permutation(len(random))
                shuffled = [random[i] for i in order]
                draws.append(predicted(space, shuffled[:count], shuffled[count:]))
            show(f"{count} random", "other random", draws)
        for origin, networks in means.items():
            show(f"{len(random)} random", f"{len(networks)} {origin}", [predicted(space, random, networks)])


def averaged(networks: Sequence[Sequence[tuple[Genotype, float]]]) -> list[Network]:
    """Return each network's mean AP, with a standard error from the spread pooled over all networks."""
    spread = pooled_spread([[ap for _, ap in runs] for runs in networks])
    std = 0.0 if spread is None else spread.std
    return [(runs[0][0], statistics.fmean(ap for _, ap in runs), std / len(runs) ** 0.5) for runs in networks]


def predicted(space: SearchSpace, taught: Sequence[Network], asked: Sequence[Network]) -> np.ndarray:
    """Return (3, number of predictions): predicted AP, standard deviation of its error, measured AP."""
    predictor, calibration = Predictor(space), Calibration()
    for genotype, mean, _ in taught:
        calibration.add(network_key(genotype), 0, {END: mean})
        predictor.learn(genotype, calibration.estimates)
    predicted = predictor.predict([genotype for genotype, _, _ in asked])
    errors = np.array([error for _, _, error in asked])
    return np.stack([predicted.mean, np.hypot(predicted.std, errors), np.array([mean for _, mean, _ in asked])])


def show(taught: str, asked: str, draws: Sequence[np.ndarray]) -> None:
    r2 = [1 - ((mean - truth) ** 2).mean() / truth.var() for mean, _, truth in draws]
    tau = [kendall(mean, truth) for mean, _, truth in draws]
    error = [np.sqrt((((mean - truth) / std) ** 2).mean()) for mean, std, truth in draws]
    print(
        f"{taught:>24}  {asked:>14}  {statistics.median(r2):6.2f}  {statistics.median(tau):6.2f}  "
        f"{statistics.median(error):11.2f}"
    )


if __name__ == "__main__":
    main()
