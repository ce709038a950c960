"""What a training that has seen some epochs says of its network's objective at a reference epoch.

After few epochs of a schedule an objective is much lower than at its end, and noisier. Trainings that have reached both
an epoch and the reference show how the two relate: a line, and a spread about it. A training that has only reached the
earlier epoch then counts with the value on the line, and with less weight, the larger the spread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from spinenas.results.foretold import END, Line, Progress, epoch_order, last_epoch, line_between

SEED_SHARE, SEED_PRIOR = 0.15, 3
"""Before replicates tell, the spread of seeds is this share of the spread of networks, with this many degrees of
freedom."""


def robust_spread(values: np.ndarray) -> float:
    """Return the standard deviation that the median distance from the median stands for; 0 for equal values."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values)))) or float(values.std())


class Estimate(NamedTuple):
    """What is known of a network.

    Attributes:
        value: objective at the reference epoch, foretold if no training has reached it.
        weight: in trainings that have reached it.
    """

    value: float
    weight: float


@dataclass(slots=True)
class Calibration:
    """The trainings of a search, and the estimates that follow from them.

    Attributes:
        reference: the epoch that estimates are for; END for the end of the schedule.
    """

    reference: int = END
    _trainings: dict[tuple[str, int], Progress] = field(default_factory=dict)
    _replicates: dict[str, list[int]] = field(default_factory=dict)  # by network
    _num_short: int = 0  # trainings that have not reached the reference
    _estimates: dict[str, Estimate] | None = None

    def add(self, network: str, replicate: int, progress: Progress) -> None:
        """Add a training, or what it has reached since it was added last."""
        before = self._trainings.get((network, replicate))
        self._trainings[network, replicate] = progress
        if before is None:
            self._replicates.setdefault(network, []).append(replicate)
            was_short = False
        else:
            was_short = self.reference not in before
        self._num_short += (self.reference not in progress) - was_short
        if self._estimates is None or self._num_short or was_short:
            self._estimates = None
        else:  # no other estimate depends on this training
            values = [self._trainings[network, each][self.reference] for each in self._replicates[network]]
            self._estimates[network] = Estimate(sum(values) / len(values), len(values))

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
        lines = {epoch: self._line(epoch) for epoch in {last_epoch(progress) for progress in self._trainings.values()}}
        sums: dict[str, list[float]] = {}
        for (network, _), progress in self._trainings.items():
            value, weight = progress.get(reference), 1.0
            if value is None:
                last = last_epoch(progress)
                line = lines[last]
                if line is None:
                    continue
                value = line.at(progress[last])
                weight = seed_variance / (seed_variance + line.variance)
            total = sums.setdefault(network, [0.0, 0.0])
            total[0] += weight * value
            total[1] += weight
        return {network: Estimate(total / weight, weight) for network, (total, weight) in sums.items()}

    def _of_furthest(self) -> dict[str, Estimate]:
        furthest = max(map(last_epoch, self._trainings.values()), key=epoch_order, default=END)
        found: dict[str, list[float]] = {}
        for (network, _), progress in self._trainings.items():
            if furthest in progress:
                found.setdefault(network, []).append(progress[furthest])
        return {network: Estimate(float(np.mean(values)), len(values)) for network, values in found.items()}

    def _line(self, epoch: int) -> Line | None:
        return line_between(self._trainings.values(), epoch, self.reference)

    def seed_variance(self) -> float:
        """Variance of a training at the reference about its network's mean; 0 while none has reached it."""
        by_network: dict[str, list[float]] = {}
        for (network, _), progress in self._trainings.items():
            if self.reference in progress:
                by_network.setdefault(network, []).append(progress[self.reference])
        known = np.array([value for values in by_network.values() for value in values])
        if not len(known):
            return 0.0
        spread = robust_spread(known) or 1e-6
        means = [sum(values) / len(values) for values in by_network.values()]
        squares = sum(
            (value - mean) ** 2 for mean, values in zip(means, by_network.values(), strict=True) for value in values
        )
        freedom = len(known) - len(by_network)
        return (squares + SEED_PRIOR * (SEED_SHARE * spread) ** 2) / (freedom + SEED_PRIOR)
