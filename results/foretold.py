"""Foretells what a training that was paused or stopped would have at the end of its schedule.

After few epochs of a schedule AP is much lower than at its end, and noisier. Trainings that have reached both an epoch
and the end show how the two relate: a line, and a spread about it.
"""

from __future__ import annotations

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

Progress = Mapping[int, float]
"""Objectives of one training by epoch, with that of its end as END."""


class Line(NamedTuple):
    """How the objective at a reference epoch depends on that at an earlier epoch.

    Attributes:
        variance: of trainings about the line.
    """

    intercept: float
    slope: float
    variance: float

    def at(self, objective: float) -> float:
        """Return the value that is expected at the reference epoch."""
        return self.intercept + self.slope * objective


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


def line_between(trainings: Iterable[Progress], epoch: int, reference: int = END) -> Line | None:
    """Fit the line between an epoch and a reference; None with too few trainings that reached both."""
    pairs = [(progress[epoch], progress[reference]) for progress in trainings if {epoch, reference} <= progress.keys()]
    if len(pairs) < MIN_PAIRS:
        return None
    x, y = np.array(pairs).T
    prior = SLOPE_PRIOR * x.var() + 1e-12
    through_origin = y.mean() / max(x.mean(), 1e-9)
    from_mean = x - x.mean()
    slope = float((from_mean @ (y - y.mean()) + prior * through_origin) / (from_mean @ from_mean + prior))
    intercept = float(y.mean() - slope * x.mean())
    errors = y - intercept - slope * x
    return Line(intercept, slope, float(errors @ errors) / max(len(pairs) - 2, 1) + 1e-12)


def foretold(networks: Sequence[Sequence[Progress]]) -> list[Foretold | None]:
    """Return what is expected of each network without a complete training; None for the others.

    It is None for all while fewer than MIN_PAIRS trainings are complete. Several trainings of a network count in
    proportion to how well their last epochs foretell the end.

    Args:
        networks: the trainings of each network.
    """
    trainings = [progress for network in networks for progress in network]
    lines = {epoch: line_between(trainings, epoch) for epoch in {last_epoch(each) for each in trainings} - {END}}
    found: list[Foretold | None] = []
    for network in networks:
        lasts = [last_epoch(progress) for progress in network]
        known = [
            (line, progress[last]) for last, progress in zip(lasts, network, strict=True) if (line := lines.get(last))
        ]
        if not known or END in lasts:
            found.append(None)
            continue
        weights = [1 / line.variance for line, _ in known]
        value = sum(weight * line.at(ap) for weight, (line, ap) in zip(weights, known, strict=True)) / sum(weights)
        found.append(Foretold(value, math.sqrt(min(line.variance for line, _ in known))))
    return found
