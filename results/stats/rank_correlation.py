"""Do two ways of measuring architectures put them in the same order? Rank correlations with intervals."""

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
    """A figure and its 95 % interval; None where it is not defined."""

    value: float | None
    lower: float | None
    upper: float | None

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        return f"{self.value:.2f}" if self.lower is None else f"{self.value:.2f} ({self.lower:.2f} to {self.upper:.2f})"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How alike two orders of the same architectures are.

    Attributes:
        num_architectures: ranked by both.
        kendall: tau-b over all pairs.
        weighted: Kendall's tau in which a pair counts by how high it is ranked (Vigna 2015, hyperbolic).
        top_third: tau-b among the best third by the second, the one to be foretold.
        best_kept: whether its best is in the first's best tenth (at least one).
    """

    num_architectures: int
    kendall: Interval
    weighted: Interval
    top_third: Interval
    best_kept: bool


def agreement(cheap: NDArray[np.float64], dear: NDArray[np.float64]) -> Agreement:
    """Compare the scores of the same architectures by a cheap and by a dear measurement, both (n,), n at least 3."""
    assert cheap.shape == dear.shape
    assert cheap.ndim == 1
    assert len(cheap) >= 3
    best = np.argsort(-dear, kind="stable")[: max(3, round(len(dear) / 3))]
    tenth = np.argsort(-cheap, kind="stable")[: max(1, len(cheap) // 10)]
    return Agreement(
        num_architectures=len(dear),
        kendall=correlation(cheap, dear),
        weighted=_with_interval(_weighted, cheap, dear),
        top_third=correlation(cheap[best], dear[best]),
        best_kept=bool(np.argmax(dear) in tenth),
    )


def correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> Interval:
    """Kendall's tau-b of any two figures of the same architectures, both (n,)."""
    return _with_interval(kendall, first, second)


def kendall(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Kendall's tau-b; not a number where either is constant."""
    return float(stats.kendalltau(first, second).statistic)


def places(figures: Sequence[float]) -> NDArray[np.float64]:
    """Return the place of each figure, 1 for the lowest; equal ones share the mean of theirs. (n,)."""
    return np.asarray(stats.rankdata(figures), dtype=np.float64)


def _weighted(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float(stats.weightedtau(first, second, rank=None).statistic)


def _with_interval(
    measure: Callable[[NDArray[np.float64], NDArray[np.float64]], float],
    first: NDArray[np.float64],
    second: NDArray[np.float64],
) -> Interval:
    """The figure and its percentile bootstrap over architectures.

    An architecture drawn twice is a tie with itself. A resample in which one side is constant has no correlation, and
    is left out.
    """
    value = measure(first, second) if np.ptp(first) and np.ptp(second) else np.nan
    if np.isnan(value):
        return Interval(None, None, None)
    if len(first) < 5:
        return Interval(value, None, None)
    with warnings.catch_warnings(action="ignore", category=stats.DegenerateDataWarning):  # resamples without a figure
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
