"""How far trainings of the same network are apart, pooled over the networks that were trained more than once."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy import special

ROUNDING = 1e-12
"""Means of equal figures may be this far apart, and are not different where there is no spread."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The spread of single trainings about the mean of their network, taken to be the same for all of them.

    Two or three trainings of one network say next to nothing of it: of two, the interval of the mean by their own
    standard deviation is nine of these wide on either side. Hence it is pooled.

    Attributes:
        std: standard deviation.
        freedom: degrees of freedom: for each network its trainings but one; at least 1.
    """

    std: float
    freedom: int

    def interval(self, mean: float, count: int) -> tuple[float, float]:
        """Return the 95 % interval (Student's t) of what a network's mean over so many trainings estimates.

        The first training of a leader is one that looked good: where it is counted in, as a search does, both the mean
        and the interval are still a little too high.
        """
        half = float(special.stdtrit(self.freedom, 0.975)) * self.std / math.sqrt(count)
        return mean - half, mean + half

    def separates(self, better: Sequence[float], worse: Sequence[float]) -> bool:
        """Whether the mean of one network's trainings is above another's (Student's t, two-sided 95 %).

        This pair by itself: of many that are asked after, and asked after again, more than one in twenty errs.
        """
        error = self.std * math.sqrt(1 / len(better) + 1 / len(worse))
        ahead = statistics.fmean(better) - statistics.fmean(worse)
        return ahead > float(special.stdtrit(self.freedom, 0.975)) * error + ROUNDING


def pooled_spread(groups: Iterable[Sequence[float]]) -> Spread | None:
    """Return the spread within groups of figures, one group per network; None where no group has two."""
    replicated = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in replicated)
    if not freedom:
        return None
    squares = sum((len(group) - 1) * statistics.variance(group) for group in replicated)
    return Spread(math.sqrt(squares / freedom), freedom)


def share_interval(count: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Clopper and Pearson, Biometrika 26, 1934); all there is for none of none."""
    from scipy import stats  # a second to load, and the leaderboard does not need it

    if of == 0:
        return 0.0, 1.0
    interval = stats.binomtest(count, of).proportion_ci(method="exact")
    return float(interval.low), float(interval.high)
