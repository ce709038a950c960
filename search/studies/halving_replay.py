"""Simulates halving on complete trainings, to measure its savings and losses.

Trainings arrive one after the other, in many random orders. Searches with several workers behave about the same. The
reaction of a controller to the changed results is not simulated.
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
"""AP by epoch, for epochs with a measurement; the last epoch is the end of the training."""


@dataclass(frozen=True, slots=True)
class HalvingReplay:
    """Result of halving over random orders of the trainings.

    Attributes:
        num_trials: number of trainings.
        saved_epochs: mean share of epochs that are not trained.
        best_stopped: share of orders in which the best training, and every training equal to it, is stopped.
        loss, largest_loss: AP of the best training minus that of the best one that continues to its end: mean and
            maximum over the orders.
    """

    num_trials: int
    saved_epochs: float
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
    """Apply the rule of `Halving` to trainings that run one after the other. Raises UserError.

    Args:
        curves: one for each training, all of the same length.
        rungs, reduction, min_results: as in `Halving`.
        num_orders: number of random orders.
        seed: seed of the orders.
    """
    num_trials, num_epochs = len(curves), max((max(curve, default=0) for curve in curves), default=0)
    for index, curve in enumerate(curves):
        missing = [epoch for epoch in (*rungs, num_epochs) if epoch not in curve]
        if missing:
            raise UserError(
                f"training {index} has no AP after epoch {missing[0]}; give whole trainings, and rungs after which AP "
                "was measured"
            )
    if not curves or list(rungs) != sorted(set(rungs)) or (rungs and rungs[-1] >= num_epochs):
        raise UserError(
            f"{num_trials} trainings of {num_epochs} epochs cannot be judged at the rungs {list(rungs)}; give one "
            "or more trainings, and ascending rungs below their last epoch"
        )
    rng = generator(seed, "halving-replay")
    orders = np.array([rng.permutation(num_trials) for _ in range(num_orders)])
    final = np.array([curve[num_epochs] for curve in curves])
    is_whole = np.ones(orders.shape, dtype=bool)
    num_trained = np.full(orders.shape, num_epochs)
    for rung in rungs:
        continues = _verdicts(np.array([curve[rung] for curve in curves])[orders], is_whole, reduction, min_results)
        num_trained[is_whole & ~continues] = rung
        is_whole &= continues
    best = final.max()
    losses = best - np.where(is_whole, final[orders], -np.inf).max(axis=1)
    return HalvingReplay(
        num_trials=num_trials,
        saved_epochs=float(1 - num_trained.mean() / num_epochs),
        best_stopped=float((losses > 0).mean()),
        loss=float(losses.mean()),
        largest_loss=float(losses.max()),
    )


def _verdicts(
    aps: NDArray[np.float64], has_reached: NDArray[np.bool_], reduction: float, min_results: int
) -> NDArray[np.bool_]:
    """Return which trainings continue, each compared with those that reached the rung before it.

    Args:
        aps: (num_orders, num_trials) AP at the rung, in order of arrival.
        has_reached: (num_orders, num_trials) whether the training reached the rung.
    """
    verdicts = np.zeros_like(has_reached)
    for place in range(aps.shape[1]):
        arrived = has_reached[:, : place + 1]
        num_results = arrived.sum(axis=1)
        num_better = (arrived & (aps[:, : place + 1] > aps[:, place : place + 1])).sum(axis=1)
        verdicts[:, place] = continues(num_better, num_results, reduction=reduction, min_results=min_results)
    return verdicts
