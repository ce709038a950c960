"""Intervals: of means, by the pooled spread between seeds, and of shares."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy import special

ROUNDING = 1e-12
"""Rounding error of means: smaller differences do not count, even without spread."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Spread of single trainings around the mean of their network, assumed equal for all networks.

    It is pooled, because two or three trainings of one network estimate it poorly. With two, the 95 % interval of the
    mean reaches nine of their own standard deviations to either side.

    Attributes:
        std: standard deviation.
        freedom: degrees of freedom: number of trainings minus one, summed over networks; at least 1.
    """

    std: float
    freedom: int

    def interval(self, mean: float, count: int) -> tuple[float, float]:
        """Return the 95 % interval (Student's t) around a network's mean over `count` trainings.

        A search replicates networks whose first training looked good. If that training counts, both mean and interval
        are slightly too high.
        """
        half = float(special.stdtrit(self.freedom, 0.975)) * self.std / math.sqrt(count)
        return mean - half, mean + half

    def separates(self, better: Sequence[float], worse: Sequence[float]) -> bool:
        """Return whether one network's mean is significantly above another's (Student's t, two-sided 95 %).

        The test is not corrected for multiple comparisons.
        """
        error = self.std * math.sqrt(1 / len(better) + 1 / len(worse))
        ahead = statistics.fmean(better) - statistics.fmean(worse)
        return ahead > float(special.stdtrit(self.freedom, 0.975)) * error + ROUNDING


def pooled_spread(groups: Iterable[Sequence[float]]) -> Spread | None:
    """Return the spread within groups of values, one group per network; None if no group has two values."""
    replicated = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in replicated)
    if not freedom:
        return None
    squares = sum((len(group) - 1) * statistics.variance(group) for group in replicated)
    return Spread(math.sqrt(squares / freedom), freedom)


def variance_ratio(values: Sequence[float], noise: Spread) -> tuple[float, float]:
    """Return two one-sided 95 % limits of the ratio of the variance of some values to that of single trainings (F).

    A lower limit above 1 means that the values differ by more than noise. Infinite if there is no noise.
    """
    if noise.std <= ROUNDING:
        return math.inf, math.inf
    ratio, freedom = statistics.variance(values) / noise.std**2, len(values) - 1
    return (
        ratio / float(special.fdtri(freedom, noise.freedom, 0.95)),
        ratio / float(special.fdtri(freedom, noise.freedom, 0.05)),
    )


def share_interval(count: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Clopper and Pearson, Biometrika 26, 1934); (0, 1) if `of` is 0."""
    from scipy import stats  # slow to load, and the leaderboard does not need it

    if of == 0:
        return 0.0, 1.0
    interval = stats.binomtest(count, of).proportion_ci(method="exact")
    return float(interval.low), float(interval.high)
