"""Simulated learning curves: the AP of a training after each of its epochs, given its end.

The constants are measured on `benchmarks/tables/digits.csv.gz`: 96 networks, three trainings of five epochs each.
`tests/controller/test_curves.py` compares simulated curves with that table.

A network has a median curve, which depends on its final AP. A few networks start slowly and catch up. The noise of an
epoch has a part that the whole training shares, and one of the epoch alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from spinenas.results.record import Evaluation

NUM_EPOCHS = 5
"""Length of a simulated training."""

GOOD_AP = 0.19
"""Final AP of a good network: 1.8 standard deviations above the mean of random networks, as 0.114 in the
table, whose random networks have a mean of 0.051 and a standard deviation of 0.036."""

SHARES = (0.09, 0.37, 0.68, 0.94)
"""Share of the final AP that a good network has after each epoch before the last. Table: 0.010, 0.042, 0.078 and 0.107
of 0.114, medians of the trainings that end above 0.09."""

GROWTH = (0.28, 0.28, 0.15, 0.04)
"""Exponents by which these shares grow with the final AP. Table: networks that end at 0.025 have shares of 0.06, 0.25,
0.54 and 0.88."""

NOISES = (0.25, 0.7, 0.85, 1.0)
"""Standard deviation of a training after each epoch, in that of its end. Table: 0.21 to 0.39, 0.7 to 1.0, 0.8 to 1.1
and 1.0. The values within are those with which single trainings correlate with final means as in the table."""

COMMON = (0.4, 0.6, 0.72, 0.95)
"""Correlation of this noise with that of the end of the same training. Table: 0.29 to 0.52, 0.47 to 0.64, 0.68 to 0.75
and 0.95."""

SLOW_SHARE = 0.04
"""Share of the networks that start slowly. This is an assumption: the table has no clear one among its networks."""

SLOW_START = (0.5, 0.7, 1.0, 1.0)
"""Share of their median curve that these networks have."""

CROSSING = (1.4, 1.4, 1.4, 0.7)
"""Where curves cross, standard deviation of what a network seems to be worth after each epoch, about its true value, in
standard deviations over random networks. Kendall's tau of the order after epoch 3 with the final one is then 0.4."""


def early_aps(
    final: float, *, noise: float, common: float, shift: float, is_slow: bool, rng: np.random.Generator
) -> list[float]:
    """Return the AP of a training after each epoch but the last.

    Args:
        final: true final AP of the network.
        noise: standard deviation of a training's final AP.
        common: what is drawn for this training's final AP, in such standard deviations.
        shift: deviation of what the network seems to be worth from `final`, in AP, before the factors of CROSSING.
        is_slow: whether the network starts slowly.
        rng: draws the noise of each epoch alone.
    """
    aps = []
    own = rng.normal(size=len(SHARES))
    for epoch, share in enumerate(SHARES):
        seeming = max(0.0, final + CROSSING[epoch] * shift)
        median = min(share * (seeming / GOOD_AP) ** GROWTH[epoch], 1.0) * seeming
        if is_slow:
            median *= SLOW_START[epoch]
        correlation = COMMON[epoch]
        deviation = correlation * common + math.sqrt(1 - correlation**2) * float(own[epoch])
        aps.append(max(0.0, median + noise * NOISES[epoch] * deviation))
    return aps


def evaluation_up_to(until: int | None, aps: Sequence[float]) -> Evaluation:
    """Return the result of a training that pauses after an epoch, or of the whole one for None.

    Args:
        until: the epoch.
        aps: AP after each epoch of the whole training.
    """
    by_epoch = tuple(enumerate(aps, start=1))[:until]
    return Evaluation(by_epoch[-1][1], stopped_after=until if until != len(aps) else None, by_epoch=by_epoch)
