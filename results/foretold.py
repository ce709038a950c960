"""Foretells what a training that was paused or stopped would have at the end of its schedule.

After few epochs of a schedule AP is much lower than at its end, and noisier. Trainings that have reached both an epoch
and the end show how the two relate: a line, and a spread about it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from spinenas.results.record import Evaluation

END = 0
"""Stands for the end of the schedule, whose number of epochs need not be known."""

MIN_PAIRS = 3
"""Number of trainings that must have reached two epochs before one is foretold from the other."""

SLOPE_PRIOR = 0.5
"""Weight of the slope through the origin, in variances of the earlier objective."""

FINALISTS_SLOPE_PRIOR = 5.0
"""The same for a report, where few trainings are complete and all of them are of the best networks."""

Progress = Mapping[int, float]
"""Objectives of one training by epoch, with that of its end as END."""


class Line(NamedTuple):
    """How the objective at a reference epoch depends on that at an earlier epoch.

    Attributes:
        variance: of trainings about the line.
        num, mean, scatter: number of trainings that it was fitted to, and mean and scatter of their earlier objectives.
    """

    intercept: float
    slope: float
    variance: float
    num: int
    mean: float
    scatter: float

    def at(self, objective: float) -> float:
        """Return the value that is expected at the reference epoch."""
        return self.intercept + self.slope * objective

    def variance_at(self, objective: float) -> float:
        """Return the variance of one training about the expected value; it grows with the distance from the mean."""
        return self.variance * (1 + 1 / self.num + (objective - self.mean) ** 2 / self.scatter)


class Foretold(NamedTuple):
    """What is expected of a network at the end of its schedule.

    Attributes:
        value: objective.
        std: standard deviation of one complete training about it.
    """

    value: float
    std: float


def progress_of(evaluation: Evaluation) -> dict[int, float]:
    """Return the objectives of a training by epoch."""
    last = END if evaluation.stopped_after is None else evaluation.stopped_after
    measured = dict(evaluation.by_epoch)
    if last == END and measured:
        measured.pop(max(measured))  # the end itself
    return {**measured, last: evaluation.objective}


def last_epoch(progress: Progress) -> int:
    """Return the last epoch of a training, END if it is complete."""
    return max(progress, key=epoch_order)


def epoch_order(epoch: int) -> float:
    """Sort key of epochs: END is the last one."""
    return math.inf if epoch == END else epoch


def line_between(
    trainings: Iterable[Progress], epoch: int, reference: int = END, *, slope_prior: float = SLOPE_PRIOR
) -> Line | None:
    """Fit the line between an epoch and a reference; None with too few trainings that reached both."""
    pairs = [(progress[epoch], progress[reference]) for progress in trainings if {epoch, reference} <= progress.keys()]
    if len(pairs) < MIN_PAIRS:
        return None
    x, y = np.array(pairs).T
    prior = slope_prior * x.var() + 1e-12
    through_origin = y.mean() / max(x.mean(), 1e-9)
    from_mean = x - x.mean()
    slope = float((from_mean @ (y - y.mean()) + prior * through_origin) / (from_mean @ from_mean + prior))
    intercept = float(y.mean() - slope * x.mean())
    errors = y - intercept - slope * x
    variance = float(errors @ errors) / max(len(pairs) - 2, 1) + 1e-12
    return Line(intercept, slope, variance, len(pairs), float(x.mean()), float(from_mean @ from_mean + prior))


def foretold(networks: Sequence[Sequence[Progress]]) -> list[Foretold | None]:
    """Return what is expected of each network without a complete training; None for the others.

    It is None for all while fewer than MIN_PAIRS trainings are complete. From one pause to the next, each step is
    foretold by all trainings that made it. Several trainings of a network count in proportion to their certainty.

    Args:
        networks: the trainings of each network.
    """
    trainings = [progress for network in networks for progress in network]
    pauses = sorted({last_epoch(progress) for progress in trainings} | {END}, key=epoch_order)
    lines = {
        pause: line_between(trainings, pause, following, slope_prior=FINALISTS_SLOPE_PRIOR)
        for pause, following in itertools.pairwise(pauses)
    }
    found: list[Foretold | None] = []
    for network in networks:
        lasts = [last_epoch(progress) for progress in network]
        expected = [
            _at_end(progress[last], [lines[pause] for pause in pauses[pauses.index(last) : -1]])
            for last, progress in zip(lasts, network, strict=True)
        ]
        known = [each for each in expected if each is not None]
        if not known or END in lasts:
            found.append(None)
            continue
        weights = [1 / each.std**2 for each in known]
        value = sum(weight * each.value for weight, each in zip(weights, known, strict=True)) / sum(weights)
        found.append(Foretold(value, min(each.std for each in known)))
    return found


def _at_end(objective: float, lines: Sequence[Line | None]) -> Foretold | None:
    """Follow the lines from pause to pause; None if one is missing."""
    variance = 0.0
    for line in lines:
        if line is None:
            return None
        variance = line.slope**2 * variance + line.variance_at(objective)
        objective = line.at(objective)
    return Foretold(objective, math.sqrt(variance)) if lines else None
