"""What single runs of a task are worth: seeds against architectures, and what follows for a search; a normal model.

A true score is drawn for each architecture with the standard deviation between architectures, a run adds that between
seeds. Both are estimated from a study, so that what is said holds for architectures such as those of the study.
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
"""Architectures among which the best tenth is looked for."""

WANTED_SHARE = 0.8
"""Share of the true best tenth that has to be found for it to count as separated."""

MOST_REPLICATES = 50

GOOD, GOOD_LOWER = 0.8, 0.6
"""An intraclass correlation, and the lower end of its interval, above which single runs rank well enough to search."""


@dataclass(frozen=True, slots=True)
class Noise:
    """The answer of a noise study.

    Attributes:
        num_architectures, num_seeds: of the study.
        mean: AP over all runs.
        correlation: of single runs, with its interval and both standard deviations.
        top_within_std: standard deviation between the seeds of the third with the best means.
    """

    num_architectures: int
    num_seeds: int
    mean: float
    correlation: IntraclassCorrelation
    top_within_std: float

    def share_found(self, replicates: int) -> float:
        """Share of the true best tenth of POOL architectures that are in the best tenth by the mean of some runs."""
        between, within = self.correlation.between_std, self.correlation.within_std
        if between == 0:
            return 0.1  # no order to find: chance
        rng = generator(0, "noise")
        truth = rng.normal(size=(2000, POOL)) * between
        seen = truth + rng.normal(size=truth.shape) * within / math.sqrt(replicates)
        tenth = POOL // 10
        best, chosen = (np.argsort(-values, axis=1, kind="stable")[:, :tenth] for values in (truth, seen))
        return float((best[:, :, None] == chosen[:, None, :]).any(axis=2).mean())

    def replicates_needed(self) -> int | None:
        """Runs of each architecture that find WANTED_SHARE of the best tenth; None for more than MOST_REPLICATES."""
        counts = range(1, MOST_REPLICATES + 1)
        return next((count for count in counts if self.share_found(count) >= WANTED_SHARE), None)

    def overstatement(self, num_runs: int) -> float:
        """AP by which the best of so many architectures, one run each, is above its true score in the mean."""
        between, within = self.correlation.between_std, self.correlation.within_std
        total = math.hypot(between, within)
        return 0.0 if total == 0 else within**2 / total * expected_maximum(num_runs)

    def advice(self) -> str:
        """What to do, in a sentence or two."""
        icc, needed = self.correlation, self.replicates_needed()
        if icc.value >= GOOD and icc.lower >= GOOD_LOWER:
            opening = "One run of each architecture ranks well enough to search with"
        elif icc.value >= 0.5:
            opening = "A search can use single runs, but none of them is a result"
        else:
            opening = "Single runs say little here: train longer, on more images, or with a wider network"
        if icc.lower < GOOD_LOWER <= icc.value:
            opening += f" (the interval reaches down to {icc.lower:.2f}: more architectures or seeds would tell)"
        if needed is None:
            rest = f"more than {MOST_REPLICATES} runs of each would not separate the best tenth"
        elif needed == 1:
            rest = "the best tenth is separated by one run of each"
        else:
            rest = f"to separate the best tenth, give it {needed} runs each"
        return f"{opening}; {rest}."

    def rows(self) -> list[dict[str, Any]]:
        """For a table."""
        icc = self.correlation
        needed = self.replicates_needed()
        return [
            {"what": "architectures, seeds each", "value": f"{self.num_architectures}, {self.num_seeds}"},
            {"what": "mean AP", "value": f"{self.mean:.4f}"},
            {"what": "sd between architectures", "value": f"{icc.between_std:.4f}"},
            {"what": "sd between seeds", "value": f"{icc.within_std:.4f}"},
            {"what": "sd between seeds, best third", "value": f"{self.top_within_std:.4f}"},
            {"what": "intraclass correlation", "value": f"{icc.value:.3f} (95 %: {icc.lower:.3f} to {icc.upper:.3f})"},
            {"what": "best tenth found by 1 run", "value": f"{self.share_found(1):.0%}"},
            {"what": "best tenth found by 3 runs", "value": f"{self.share_found(3):.0%}"},
            {
                "what": f"runs to find {WANTED_SHARE:.0%} of the best tenth",
                "value": f"more than {MOST_REPLICATES}" if needed is None else str(needed),
            },
            *(
                {"what": f"best of {count} single runs, overstated by", "value": f"{self.overstatement(count):.4f}"}
                for count in (10, 100, 1000)
            ),
        ]  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain data, every figure in full."""
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
    """Estimate the noise of a task from runs, one row of APs per architecture, a column per seed. Raises UserError."""
    if len(runs) < 2 or min(map(len, runs)) < 2:
        raise UserError(
            f"{len(runs)} architectures have results for every seed; a noise study needs two or more, with two or more "
            "seeds each"
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
    """Mean of the largest of so many independent standard normal numbers."""

    def density(x: float) -> float:
        return float(x * count * stats.norm.pdf(x) * stats.norm.cdf(x) ** (count - 1))

    return float(integrate.quad(density, -10, 10, limit=200)[0])
