"""Prior of the predictor: what trainings of another task say of a network before this task has any result.

The lessons are networks with their mean APs, from a table of trainings, from a run, or from a file of the package. A
Gaussian process learns them once. Its mean, in standard deviations over random networks, is what the predictor of a
search expects (`gaussian_process.Expectation`). A run keeps its lessons and does not need their file again.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spinenas.controller.calibration import Estimate
from spinenas.controller.one_thread import one_blas_thread
from spinenas.controller.predictor.features import Floats
from spinenas.controller.predictor.gaussian_process import FIRST_FIT, Predictor
from spinenas.results.record import Status
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key
from spinenas.space.random_streams import generator
from spinenas.space.sampling import sample_without_dead_blocks
from spinenas.space.search_space import SearchSpace

if TYPE_CHECKING:
    from spinenas.results.training_table import TrainingTable

SHIPPED = ("digits",)
"""Names of the priors of the package, made by `python benchmarks/prior.py TABLE --write FILE`."""

RANDOM = "random"
"""Origin of the networks of a table that represent the space."""

NUM_REFERENCE = 64
"""Random networks whose expectations have mean 0 and standard deviation 1."""

Lessons = Sequence[tuple[str, float]]
"""Genotypes as text, each with its mean AP; plain data, which a journal can hold."""


def absolute_prior(prior: str | None) -> str | None:
    """Return the option `prior` with an absolute path, so that it means the same in every folder."""
    if prior is None or prior in SHIPPED:
        return prior
    return str(Path(prior).expanduser().absolute())


def read_lessons(prior: str | None, space: SearchSpace) -> list[tuple[str, float]]:
    """Return what a prior teaches of networks of this space; nothing for None. Raises UserError.

    Args:
        prior: one of SHIPPED, or the path of a training table or of a run.
        space: search space. Networks outside it are left out.
    """
    if prior is None:
        return []
    path = Path(prior)
    if prior in SHIPPED:
        found: Iterable[tuple[str, float]] = _shipped(prior)
    elif path.is_dir():
        found = _of_run(path)
    elif path.exists():
        from spinenas.results.training_table import read_table  # few searches have a prior

        found = of_table(read_table(path))
    else:
        raise UserError(
            f"prior is {prior!r}, and no such file exists; give none, {', '.join(SHIPPED)}, or the path of a training "
            "table or of a run"
        )
    lessons = mean_by_network(found, space.contains)
    if len(lessons) < FIRST_FIT:
        raise UserError(
            f"the prior {prior} has {len(lessons)} networks of the search space {space.name}, and needs {FIRST_FIT}; "
            "give one of the same space with more networks, or none"
        )
    if not all(math.isfinite(ap) for _, ap in lessons):
        raise UserError(f"the prior {prior} has an AP that is not finite; remove the line, or give another prior")
    return lessons


def of_table(table: TrainingTable) -> list[tuple[str, float]]:
    """Return the trainings that a table teaches with: those of random networks, or all if these are too few.

    Many near the best networks of a table would make a Gaussian process that predicts others worse.
    """
    random = [(each.genotype, each.ap) for each in table.trainings if each.origin == RANDOM]
    if len({genotype for genotype, _ in random}) >= FIRST_FIT:
        return random
    return [(each.genotype, each.ap) for each in table.trainings]


def mean_by_network(
    results: Iterable[tuple[str, float]], admits: Callable[[Genotype], bool] = lambda genotype: True
) -> list[tuple[str, float]]:
    """Return the networks in the order of their first results, each with its mean."""
    by_network: dict[str, list[tuple[str, float]]] = {}
    for text, ap in results:
        genotype = Genotype.from_text(text)
        if admits(genotype):
            by_network.setdefault(network_key(genotype), []).append((text, ap))
    return [(each[0][0], statistics.fmean(ap for _, ap in each)) for each in by_network.values()]


def expectation_of(lessons: Lessons, space: SearchSpace) -> Callable[[Floats], Floats]:
    """Return what the lessons make one expect of features (C, D): (C,), in standard deviations over random networks."""
    teacher = Predictor(space)
    rng = generator(0, "controller/prior")
    reference = [sample_without_dead_blocks(space, rng) for _ in range(NUM_REFERENCE)]
    with one_blas_thread():
        teacher.learn_at_once({Genotype.from_text(text): Estimate(ap, 1.0) for text, ap in lessons})
        over_random = teacher.predict(reference).mean
    centre, scale = float(np.mean(over_random)), float(np.std(over_random)) or 1.0

    def expectation(features: Floats) -> Floats:
        expected: Floats = (teacher.predict_features(features).mean - centre) / scale
        return expected

    return expectation


def _shipped(name: str) -> list[tuple[str, float]]:
    text = resources.files("spinenas.controller.predictor").joinpath("priors", f"{name}.csv").read_text("utf-8")
    return [(genotype, float(ap)) for genotype, ap in list(csv.reader(text.splitlines()))[1:]]


def _of_run(path: Path) -> Iterable[tuple[str, float]]:
    from spinenas.results.storage.journal import read_events  # few searches have a prior
    from spinenas.results.storage.run_folder import RunFolder
    from spinenas.results.storage.run_state import fold

    for record in fold(read_events(RunFolder.open(path).journal_path, epochs=False)).trials.values():
        genotype, evaluation = record.genotype, record.evaluation
        if genotype is None or evaluation is None or record.status is not Status.COMPLETE:
            continue
        if record.fidelity is None and evaluation.stopped_after is None:
            yield genotype.text, evaluation.objective
