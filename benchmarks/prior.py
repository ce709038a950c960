"""Print what a prior of the predictor brings when few trainings have a result; or write the file of a prior.

    python benchmarks/prior.py benchmarks/tables/digits.csv.gz
    python benchmarks/prior.py benchmarks/tables/digits.csv.gz --data benchmarks/tables/digits-20-epochs.csv.gz
    python benchmarks/prior.py benchmarks/tables/digits.csv.gz --write controller/predictor/priors/digits.csv

The predictor gets results in a random order, without a prior, with the prior, and with a scrambled one, whose APs are
exchanged among its networks. After some results it predicts the mean APs of all other networks. The figures are
medians over the orders: Kendall's tau and, in brackets, R2.

Results are those of a table, or of a run, named by --data; the prior then has no network of it. Without --data, the
prior is one half of the random networks, and the results are the other half. That is the same task, so it says how much
could be gained at best.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from spinenas.controller.calibration import END, Calibration
from spinenas.controller.one_thread import one_blas_thread
from spinenas.controller.predictor.features import Floats
from spinenas.controller.predictor.gaussian_process import Predictor
from spinenas.controller.predictor.prior import Lessons, expectation_of, mean_by_network, of_table, read_lessons
from spinenas.results.stats.rank_correlation import kendall
from spinenas.results.storage.atomic_write import write_text_atomically
from spinenas.results.training_table import read_table
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key
from spinenas.space.random_streams import generator
from spinenas.space.search_space import SearchSpace, space_by_name

COUNTS = (0, 3, 5, 10, 12, 20, 40)
NUM_SCRAMBLED = 10

Figures = dict[int, tuple[float, float]]
"""Kendall's tau and R2 by number of results."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="table that the prior is taught with")
    parser.add_argument("--data", type=Path, help="table or run with the results of the search")
    parser.add_argument("--orders", type=int, default=50)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the prior, and measure nothing")
    arguments = parser.parse_args()
    table = read_table(arguments.table)
    space = space_by_name(table.about["space"])
    if arguments.write is not None:
        lessons = mean_by_network(of_table(table))
        write_text_atomically(arguments.write, as_csv(lessons))
        return
    if arguments.data is None:
        random = mean_by_network(of_table(table))
        order = generator(0, "benchmark/halves").permutation(len(random))
        lessons = [random[i] for i in order[: len(random) // 2]]
        results = [random[i] for i in order[len(random) // 2 :]]
    else:
        results = read_lessons(str(arguments.data), space)
        known = {network_key(Genotype.from_text(text)) for text, _ in results}
        every = read_lessons(str(arguments.table), space)
        lessons = [lesson for lesson in every if network_key(Genotype.from_text(lesson[0])) not in known]
    counts = [count for count in COUNTS if count <= len(results) - 5]
    print(f"{len(lessons)} networks of the prior, {len(results)} with results, {arguments.orders} orders")
    print(f"{'':>10}" + "".join(f"{count:>15}" for count in counts))
    with one_blas_thread():
        arms: dict[str, list[Callable[[Floats], Floats] | None]] = {
            "no prior": [None],
            "prior": [expectation_of(lessons, space)],
            "scrambled": [
                expectation_of(scrambled(lessons, seed), space) for seed in range(min(NUM_SCRAMBLED, arguments.orders))
            ],
        }
        for name, expectations in arms.items():
            found = [
                figures(space, expectations[order % len(expectations)], shuffled(results, order), counts)
                for order in range(arguments.orders)
            ]
            medians = [np.median([each[count] for each in found], axis=0) for count in counts]
            cells = [
                "-" if np.isnan(tau) else f"{tau:.2f}" + ("" if np.isnan(r2) else f" ({r2:.2f})") for tau, r2 in medians
            ]
            print(f"{name:>10}" + "".join(f"{cell:>15}" for cell in cells), flush=True)


def as_csv(lessons: Lessons) -> str:
    """Return lessons as the package has them."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("genotype", "ap"), *lessons])
    return text.getvalue()


def shuffled(lessons: Lessons, seed: int) -> list[tuple[str, float]]:
    return [lessons[i] for i in generator(seed, "benchmark/order").permutation(len(lessons))]


def scrambled(lessons: Lessons, seed: int) -> list[tuple[str, float]]:
    """Exchange the APs among the networks."""
    aps = generator(seed, "benchmark/scrambled").permutation([ap for _, ap in lessons])
    return [(text, float(ap)) for (text, _), ap in zip(lessons, aps, strict=True)]


def figures(
    space: SearchSpace, expectation: Callable[[Floats], Floats] | None, results: Lessons, counts: list[int]
) -> Figures:
    """Return tau and R2 on the networks without a result, after so many results each. R2 is nan before the first."""
    predictor, calibration = Predictor(space, expectation), Calibration()
    networks = [(Genotype.from_text(text), ap) for text, ap in results]
    found: Figures = {}
    for count in range(counts[-1] + 1):
        if count:
            genotype, ap = networks[count - 1]
            calibration.add(network_key(genotype), 0, {END: ap})
            predictor.learn(genotype, calibration.estimates)
        if count in counts:
            held_out = [genotype for genotype, _ in networks[count:]]
            truth = np.array([ap for _, ap in networks[count:]])
            mean = predictor.predict(held_out).mean if count else predictor.expected(held_out)
            r2 = 1 - float(((mean - truth) ** 2).mean() / truth.var()) if count else float("nan")
            found[count] = (kendall(mean, truth), r2)
    return found


if __name__ == "__main__":
    main()
