"""Rank correlations between two measurements of the same architectures, with bootstrap intervals."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from spinenas.space.random_streams import generator

RESAMPLES = 500


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its 95 % interval; None where undefined."""

    value: float | None
    lower: float | None
    upper: float | None

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        return f"{self.value:.2f}" if self.lower is None else f"{self.value:.2f} ({self.lower:.2f} to {self.upper:.2f})"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of low- and high-fidelity scores of the same architectures.

    Attributes:
        num_architectures: number of architectures.
        kendall: Kendall's tau-b over all pairs.
        weighted: Kendall's tau with more weight on top ranks (Vigna 2015, hyperbolic).
        top_third: tau-b among the best third by high-fidelity score.
        best_kept: whether the best by high fidelity is in the best tenth by low fidelity (at least one).
    """

    num_architectures: int
    kendall: Interval
    weighted: Interval
    top_third: Interval
    best_kept: bool


def agreement(low: NDArray[np.float64], high: NDArray[np.float64]) -> Agreement:
    """Compare low- and high-fidelity scores of the same architectures, both (n,) with n at least 3."""
    assert low.shape == high.shape
    assert low.ndim == 1
    assert len(low) >= 3
    best = np.argsort(-high, kind="stable")[: max(3, round(len(high) / 3))]
    tenth = np.argsort(-low, kind="stable")[: max(1, len(low) // 10)]
    return Agreement(
        num_architectures=len(high),
        kendall=correlation(low, high),
        weighted=_with_interval(_weighted, low, high),
        top_third=correlation(low[best], high[best]),
        best_kept=bool(np.argmax(high) in tenth),
    )


def correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> Interval:
    """Return Kendall's tau-b of two scores of the same architectures, both (n,), with its interval."""
    return _with_interval(kendall, first, second)


def kendall(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return Kendall's tau-b; NaN if either side is constant."""
    return float(stats.kendalltau(first, second).statistic)


def places(figures: Sequence[float]) -> NDArray[np.float64]:
    """Return the ascending rank of each value, starting at 1; ties share their mean rank. (n,)."""
    return np.asarray(stats.rankdata(figures), dtype=np.float64)


def _weighted(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float(stats.weightedtau(first, second, rank=None).statistic)


def _with_interval(
    measure: Callable[[NDArray[np.float64], NDArray[np.float64]], float],
    first: NDArray[np.float64],
    second: NDArray[np.float64],
) -> Interval:
    """Return a correlation with its percentile bootstrap interval over architectures.

    An architecture drawn twice is a tie with itself. Resamples in which one side is constant have no correlation and
    are left out.
    """
    value = measure(first, second) if np.ptp(first) and np.ptp(second) else np.nan
    if np.isnan(value):
        return Interval(None, None, None)
    if len(first) < 5:
        return Interval(value, None, None)
    with warnings.catch_warnings(action="ignore", category=stats.DegenerateDataWarning):  # constant resamples
        found = stats.bootstrap(
            (first, second),
            measure,
            paired=True,
            vectorized=False,
            n_resamples=RESAMPLES,
            method="percentile",
            rng=generator(0, "ranks"),
        )
    lower, upper = np.nanquantile(found.bootstrap_distribution, [0.025, 0.975])
    return Interval(value, float(lower), float(upper))
