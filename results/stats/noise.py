"""Noise of a task: how reliably single runs rank architectures, and how many replicates a search needs.

The model is normal. Each architecture has a true score; a run adds seed noise. Both standard deviations are estimated
from a study, so the conclusions hold for architectures like those of the study.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import integrate, stats

from spinenas.results.stats.intraclass_correlation import IntraclassCorrelation, intraclass_correlation
from spinenas.space.errors import UserError
from spinenas.space.random_streams import generator

POOL = 100
"""Number of simulated architectures, of which the best tenth is sought."""

WANTED_SHARE = 0.8
"""Share of the true best tenth that must be found."""

MOST_REPLICATES = 50

GOOD, GOOD_LOWER = 0.8, 0.6
"""Intraclass correlation, and lower end of its interval, from which single runs suffice for a search."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Result of a noise study.

    Attributes:
        num_architectures, num_seeds: size of the study.
        mean: mean AP of all runs.
        correlation: intraclass correlation of single runs, with both standard deviations.
        top_within_std: standard deviation between seeds for the best third by mean AP.
    """

    num_architectures: int
    num_seeds: int
    mean: float
    correlation: IntraclassCorrelation
    top_within_std: float

    def share_found(self, replicates: int) -> float:
        """Return the share of the true best tenth of POOL architectures that is also the best tenth by mean score."""
        between, within = self.correlation.between_std, self.correlation.within_std
        if between == 0:
            return 0.1  # chance: there is no order to find
        rng = generator(0, "noise")
        truth = rng.normal(size=(2000, POOL)) * between
        seen = truth + rng.normal(size=truth.shape) * within / math.sqrt(replicates)
        tenth = POOL // 10
        best, chosen = (np.argsort(-values, axis=1, kind="stable")[:, :tenth] for values in (truth, seen))
        return float((best[:, :, None] == chosen[:, None, :]).any(axis=2).mean())

    def replicates_needed(self) -> int | None:
        """Return the runs per architecture that find WANTED_SHARE of the best tenth; None above MOST_REPLICATES."""
        counts = range(1, MOST_REPLICATES + 1)
        return next((count for count in counts if self.share_found(count) >= WANTED_SHARE), None)

    def overstatement(self, num_runs: int) -> float:
        """Return the expected upward bias of the best of many architectures with one run each, in AP."""
        between, within = self.correlation.between_std, self.correlation.within_std
        total = math.hypot(between, within)
        return 0.0 if total == 0 else within**2 / total * expected_maximum(num_runs)

    def advice(self) -> str:
        """Return a recommendation in one sentence."""
        icc, needed = self.correlation, self.replicates_needed()
        if icc.value >= GOOD and icc.lower >= GOOD_LOWER:
            opening = "One run per architecture ranks well enough for a search"
        elif icc.value >= 0.5:
            opening = "A search can use single runs, but no single run is a result"
        else:
            opening = "Single runs rank poorly here: train longer, on more images, or with a wider network"
        if icc.lower < GOOD_LOWER <= icc.value:
            opening += f" (the interval reaches down to {icc.lower:.2f}; add architectures or seeds to narrow it)"
        if needed is None:
            rest = f"{MOST_REPLICATES} runs per architecture do not separate the best tenth"
        elif needed == 1:
            rest = "one run per architecture separates the best tenth"
        else:
            rest = f"{needed} runs per architecture separate the best tenth"
        return f"{opening}; {rest}."

    def rows(self) -> list[dict[str, Any]]:
        """Return the figures as rows of a table."""
        icc = self.correlation
        needed = self.replicates_needed()
        figures = {
            "architectures, seeds per architecture": f"{self.num_architectures}, {self.num_seeds}",
            "mean AP": f"{self.mean:.4f}",
            "sd between architectures": f"{icc.between_std:.4f}",
            "sd between seeds": f"{icc.within_std:.4f}",
            "sd between seeds, best third": f"{self.top_within_std:.4f}",
            "intraclass correlation": f"{icc.value:.3f} (95 %: {icc.lower:.3f} to {icc.upper:.3f})",
            "best tenth found by 1 run": f"{self.share_found(1):.0%}",
            "best tenth found by 3 runs": f"{self.share_found(3):.0%}",
            f"runs to find {WANTED_SHARE:.0%} of the best tenth": str(needed or f"more than {MOST_REPLICATES}"),
        }
        for count in (10, 100, 1000):
            figures[f"upward bias of the best of {count} single runs"] = f"{self.overstatement(count):.4f}"
        return [{"what": what, "value": value} for what, value in figures.items()]

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON data in full precision."""
        icc = self.correlation
        return {
            "num_architectures": self.num_architectures,
            "num_seeds": self.num_seeds,
            "mean": self.mean,
            "between_std": icc.between_std,
            "within_std": icc.within_std,
            "top_within_std": self.top_within_std,
            "icc": icc.value,
            "icc_lower": icc.lower,
            "icc_upper": icc.upper,
            "share_found_by_one_run": self.share_found(1),
            "replicates_needed": self.replicates_needed(),
            "overstatement_of_best_of": {str(count): self.overstatement(count) for count in (10, 100, 1000)},
            "advice": self.advice(),
        }


def noise_of(runs: Sequence[Sequence[float]]) -> Noise:
    """Estimate the noise of a task from APs: one row per architecture, one column per seed. Raises UserError."""
    if len(runs) < 2 or min(map(len, runs)) < 2:
        raise UserError(
            f"{len(runs)} architectures have results for every seed; a noise study needs two or more architectures, "
            "each with two or more seeds"
        )
    table = np.asarray(runs, dtype=np.float64)
    best = table[np.argsort(-table.mean(axis=1), kind="stable")[: max(1, len(table) // 3)]]
    return Noise(
        num_architectures=table.shape[0],
        num_seeds=table.shape[1],
        mean=float(table.mean()),
        correlation=intraclass_correlation(table.tolist()),
        top_within_std=float(np.sqrt(best.var(axis=1, ddof=1).mean())),
    )


def expected_maximum(count: int) -> float:
    """Return the expected maximum of independent standard normal numbers."""

    def density(x: float) -> float:
        return float(x * count * stats.norm.pdf(x) * stats.norm.cdf(x) ** (count - 1))

    return float(integrate.quad(density, -10, 10, limit=200)[0])
