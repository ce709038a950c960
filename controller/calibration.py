"""What a training that has seen some epochs says of its network's objective at a reference epoch.

After few epochs of a schedule an objective is much lower than at its end, and noisier. Trainings that have reached both
an epoch and the reference show how the two relate: a line, and a spread about it. A training that has only reached the
earlier epoch then counts with the value on the line, and with less weight, the larger the spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from spinenas.results.record import Evaluation

END = 0
"""Stands for the end of the schedule, whose number of epochs need not be known."""

MIN_PAIRS = 3
"""Number of trainings that must have reached two epochs before one is foretold from the other."""

SLOPE_PRIOR = 0.5
"""Weight of the slope through the origin, in variances of the earlier objective."""

SEED_SHARE, SEED_PRIOR = 0.15, 3
"""Before replicates tell, the spread of seeds is this share of the spread of networks, with this many degrees of
freedom."""


class Estimate(NamedTuple):
    """What is known of a network.

    Attributes:
        value: objective at the reference epoch, foretold if no training has reached it.
        weight: in trainings that have reached it.
    """

    value: float
    weight: float


class _Line(NamedTuple):
    intercept: float
    slope: float
    variance: float


Progress = Mapping[int, float]
"""Objectives of one training by epoch, with that of its end as END."""


def progress_of(evaluation: Evaluation) -> dict[int, float]:
    """Return the objectives of a training by epoch."""
    last = END if evaluation.stopped_after is None else evaluation.stopped_after
    measured = dict(evaluation.by_epoch)
    if last == END and measured:
        measured.pop(max(measured))  # the end itself
    return {**measured, last: evaluation.objective}


@dataclass(slots=True)
class Calibration:
    """The trainings of a search, and the estimates that follow from them.

    Attributes:
        reference: the epoch that estimates are for; END for the end of the schedule.
    """

    reference: int = END
    _trainings: dict[tuple[str, int], Progress] = field(default_factory=dict)
    _estimates: dict[str, Estimate] | None = None

    def add(self, network: str, replicate: int, progress: Progress) -> None:
        """Add a training, or what it has reached since it was added last."""
        self._trainings[network, replicate] = progress
        self._estimates = None

    @property
    def estimates(self) -> dict[str, Estimate]:
        """Estimates by network, in the order in which networks were added.

        A network is left out while too few trainings have reached both its epoch and the reference. Only if that is so
        for all networks, those that went furthest count as they are.
        """
        if self._estimates is None:
            self._estimates = self._estimated()
        return self._estimates

    def _estimated(self) -> dict[str, Estimate]:
        reference = self.reference
        if not any(reference in progress for progress in self._trainings.values()):
            return self._of_furthest()
        seed_variance = self.seed_variance()
        lines = {epoch: self._line(epoch) for epoch in {_last(progress) for progress in self._trainings.values()}}
        sums: dict[str, list[float]] = {}
        for (network, _), progress in self._trainings.items():
            value, weight = progress.get(reference), 1.0
            if value is None:
                last = _last(progress)
                line = lines[last]
                if line is None:
                    continue
                value = line.intercept + line.slope * progress[last]
                weight = seed_variance / (seed_variance + line.variance)
            total = sums.setdefault(network, [0.0, 0.0])
            total[0] += weight * value
            total[1] += weight
        return {network: Estimate(total / weight, weight) for network, (total, weight) in sums.items()}

    def _of_furthest(self) -> dict[str, Estimate]:
        furthest = max(map(_last, self._trainings.values()), key=_order, default=END)
        found: dict[str, list[float]] = {}
        for (network, _), progress in self._trainings.items():
            if furthest in progress:
                found.setdefault(network, []).append(progress[furthest])
        return {network: Estimate(float(np.mean(values)), len(values)) for network, values in found.items()}

    def _line(self, epoch: int) -> _Line | None:
        """Return the relation between an epoch and the reference; None with too few trainings that reached both."""
        pairs = [
            (progress[epoch], progress[self.reference])
            for progress in self._trainings.values()
            if epoch in progress and self.reference in progress
        ]
        if len(pairs) < MIN_PAIRS:
            return None
        x, y = np.array(pairs).T
        prior = SLOPE_PRIOR * x.var() + 1e-12
        through_origin = y.mean() / max(x.mean(), 1e-9)
        from_mean = x - x.mean()
        slope = float((from_mean @ (y - y.mean()) + prior * through_origin) / (from_mean @ from_mean + prior))
        intercept = float(y.mean() - slope * x.mean())
        errors = y - intercept - slope * x
        return _Line(intercept, slope, float(errors @ errors) / max(len(pairs) - 2, 1) + 1e-12)

    def seed_variance(self) -> float:
        """Variance of a training at the reference about its network's mean; 0 while none has reached it."""
        by_network: dict[str, list[float]] = {}
        for (network, _), progress in self._trainings.items():
            if self.reference in progress:
                by_network.setdefault(network, []).append(progress[self.reference])
        known = np.array([value for values in by_network.values() for value in values])
        if not len(known):
            return 0.0
        spread = 1.4826 * float(np.median(np.abs(known - np.median(known)))) or float(known.std()) or 1e-6
        means = [sum(values) / len(values) for values in by_network.values()]
        squares = sum(
            (value - mean) ** 2 for mean, values in zip(means, by_network.values(), strict=True) for value in values
        )
        freedom = len(known) - len(by_network)
        return (squares + SEED_PRIOR * (SEED_SHARE * spread) ** 2) / (freedom + SEED_PRIOR)


def _order(epoch: int) -> float:
    return np.inf if epoch == END else epoch


def _last(progress: Progress) -> int:
    return max(progress, key=_order)
