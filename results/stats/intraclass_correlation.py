"""Intraclass correlation: the variance between architectures relative to the variance between seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True, slots=True)
class IntraclassCorrelation:
    """Share of the variance of single runs that lies between architectures.

    Attributes:
        value: ICC(1), one-way random effects; 1 if seeds do not matter, about 0 if architectures do not.
        lower, upper: two-sided 95 % interval (F distribution, assuming equal seed variance for all architectures).
        between_std, within_std: estimated standard deviation between architectures and between seeds.
    """

    value: float
    lower: float
    upper: float
    between_std: float
    within_std: float


def intraclass_correlation(runs: Sequence[Sequence[float]]) -> IntraclassCorrelation:
    """Compute ICC(1) of runs: one row per architecture, one column per seed.

    Shrout and Fleiss, Psychological Bulletin 86 (1979), 420-428: case 1, single ratings.

    Raises:
        ValueError: for fewer than two architectures or seeds.
    """
    table = np.asarray(runs, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2:
        raise ValueError(f"runs has shape {table.shape}; at least two architectures with two seeds each are needed")
    num_architectures, num_seeds = table.shape
    means = table.mean(axis=1)
    between = num_seeds * means.var(ddof=1)
    within = float(((table - means[:, None]) ** 2).sum() / (num_architectures * (num_seeds - 1)))
    freedom = (num_architectures - 1, num_architectures * (num_seeds - 1))
    if within == 0:
        value = lower = upper = 1.0 if between > 0 else 0.0
    else:
        ratio = between / within
        value = _icc(ratio, num_seeds)
        lower = _icc(ratio / stats.f.ppf(0.975, *freedom), num_seeds)
        upper = _icc(ratio * stats.f.ppf(0.975, *reversed(freedom)), num_seeds)
    return IntraclassCorrelation(
        value, lower, upper, float(np.sqrt(max(between - within, 0) / num_seeds)), float(np.sqrt(within))
    )


def _icc(variance_ratio: float, num_seeds: int) -> float:
    return float((variance_ratio - 1) / (variance_ratio + num_seeds - 1))
