"""What halving would have made of trainings that were all trained to their end: is it worth its risk, and which rungs?

Trainings are taken one after the other, in many random orders. Of searches with several workers it says about the
same, and of how a controller would have gone on from other results it says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spinenas.search.run.halving import continues
from spinenas.space.errors import UserError
from spinenas.space.random_streams import generator

Curve = Mapping[int, float]
"""AP by epoch, for the epochs after which it was measured; the last one is the end of the training."""


@dataclass(frozen=True, slots=True)
class HalvingReplay:
    """What comes out, over random orders of the trainings.

    Attributes:
        num_trials, num_orders: of how many trainings and orders.
        saved_epochs: share of all epochs that is not trained, the mean.
        num_whole: trainings that go to their end, the mean.
        best_stopped: share of the orders in which the training that is best in the end is stopped, with all its equals.
        loss, largest_loss: by how much AP the best of those that go to their end is worse than that: the mean, and in
            the worst order.
    """

    num_trials: int
    num_orders: int
    saved_epochs: float
    num_whole: float
    best_stopped: float
    loss: float
    largest_loss: float


def replay_halving(
    curves: Sequence[Curve],
    rungs: Sequence[int],
    *,
    reduction: float = 3.0,
    min_results: int = 4,
    num_orders: int = 200,
    seed: int = 0,
) -> HalvingReplay:
    """Judge the trainings as `Halving` does, the next one beginning when the one before has ended. Raises UserError.

    Args:
        curves: one for each training, all of the same length.
        rungs, reduction, min_results: as in `Halving`.
        num_orders: random orders.
        seed: of the orders.
    """
    num_trials, num_epochs = len(curves), max((max(curve, default=0) for curve in curves), default=0)
    for index, curve in enumerate(curves):
        missing = [epoch for epoch in (*rungs, num_epochs) if epoch not in curve]
        if missing:
            raise UserError(
                f"training {index} has no AP after epoch {missing[0]}; take whole trainings, and rungs after which AP "
                "was measured"
            )
    if not curves or list(rungs) != sorted(set(rungs)) or (rungs and rungs[-1] >= num_epochs):
        raise UserError(
            f"{num_trials} trainings of {num_epochs} epochs cannot be judged at the rungs {list(rungs)}; it takes one "
            "or more trainings, and ascending rungs below their last epoch"
        )
    rng = generator(seed, "halving-replay")
    orders = np.array([rng.permutation(num_trials) for _ in range(num_orders)])
    final = np.array([curve[num_epochs] for curve in curves])
    is_whole = np.ones(orders.shape, dtype=bool)
    num_trained = np.full(orders.shape, num_epochs)
    for rung in rungs:
        goes_on = _verdicts(np.array([curve[rung] for curve in curves])[orders], is_whole, reduction, min_results)
        num_trained[is_whole & ~goes_on] = rung
        is_whole &= goes_on
    best = final.max()
    losses = best - np.where(is_whole, final[orders], -np.inf).max(axis=1)
    return HalvingReplay(
        num_trials=num_trials,
        num_orders=num_orders,
        saved_epochs=float(1 - num_trained.mean() / num_epochs),
        num_whole=float(is_whole.sum(axis=1).mean()),
        best_stopped=float((losses > 0).mean()),
        loss=float(losses.mean()),
        largest_loss=float(losses.max()),
    )


def _verdicts(
    aps: NDArray[np.float64], is_there: NDArray[np.bool_], reduction: float, min_results: int
) -> NDArray[np.bool_]:
    """Say of each training whether it goes on, from those that came to the rung before it.

    Args:
        aps: (num_orders, num_trials) at the rung, in the order of their coming.
        is_there: which of them came to it.
    """
    verdicts = np.zeros_like(is_there)
    for place in range(aps.shape[1]):
        came = is_there[:, : place + 1]
        num_results = came.sum(axis=1)
        num_better = (came & (aps[:, : place + 1] > aps[:, place : place + 1])).sum(axis=1)
        verdicts[:, place] = continues(num_better, num_results, reduction=reduction, min_results=min_results)
    return verdicts
