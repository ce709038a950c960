"""Halving simulated on recorded curves gives the verdicts of a search, and correct figures."""

from __future__ import annotations

import numpy as np
import pytest

from spinenas.search.config.parts import HalvingConfig
from spinenas.search.run.halving import Halving
from spinenas.search.studies.halving_replay import HalvingReplay, replay_halving
from spinenas.space import UserError
from spinenas.space.random_streams import generator


def random_curves(num_trials: int, num_epochs: int, *, noise: float, seed: int = 0) -> list[dict[int, float]]:
    rng = np.random.default_rng(seed)
    curves = []
    for quality in rng.uniform(size=num_trials):
        shares = np.arange(1, num_epochs + 1) / num_epochs
        aps = quality * shares + noise * (1 - shares) * rng.uniform(size=num_epochs)
        curves.append({epoch: float(ap) for epoch, ap in enumerate(aps, start=1)})
    return curves


def replayed_one_by_one(
    curves: list[dict[int, float]], rungs: list[int], num_orders: int, seed: int, **rule: float
) -> HalvingReplay:
    """Compute the same with the class that a search uses, one training at a time."""
    rng = generator(seed, "halving-replay")
    num_epochs = max(curves[0])
    best = max(curve[num_epochs] for curve in curves)
    trained, losses = [], []
    for _ in range(num_orders):
        halving = Halving(HalvingConfig(tuple(rungs), **rule))  # type: ignore[arg-type]
        kept = []
        for number in rng.permutation(len(curves)).tolist():
            epoch = 0
            while (rung := halving.next_rung(after=epoch, below=num_epochs)) is not None:
                epoch = rung
                halving.add(number, rung, curves[number][rung])
                if not halving.should_continue(number, rung):
                    break
            else:
                epoch = num_epochs
                kept.append(curves[number][num_epochs])
            trained.append(epoch)
        losses.append(best - max(kept))
    return HalvingReplay(
        num_trials=len(curves),
        saved_epochs=1 - float(np.mean(trained)) / num_epochs,
        best_stopped=float(np.mean([loss > 0 for loss in losses])),
        loss=float(np.mean(losses)),
        largest_loss=max(losses),
    )


@pytest.mark.parametrize("rungs", [[], [1], [2, 5], [1, 2, 3, 4, 5, 6, 7]], ids=str)
@pytest.mark.parametrize(("reduction", "min_results"), [(3.0, 4), (1.5, 1), (4.0, 9)])
def test_a_simulation_equals_the_rule_that_a_search_uses(rungs: list[int], reduction: float, min_results: int) -> None:
    curves = random_curves(25, 8, noise=0.8)
    rule = {"reduction": reduction, "min_results": min_results}
    replay = replay_halving(curves, rungs, num_orders=10, seed=3, **rule)  # type: ignore[arg-type]
    expected = replayed_one_by_one(curves, rungs, 10, 3, **rule)
    for name in HalvingReplay.__dataclass_fields__:
        assert getattr(replay, name) == pytest.approx(getattr(expected, name)), name


def test_without_rungs_nothing_is_saved_or_lost() -> None:
    assert replay_halving(random_curves(10, 4, noise=1.0), [], num_orders=5) == HalvingReplay(10, 0, 0, 0, 0)


def test_curves_that_do_not_cross_lose_nothing_and_save_epochs() -> None:
    replay = replay_halving(random_curves(100, 9, noise=0.0), [1, 3])
    assert (replay.best_stopped, replay.largest_loss) == (0, 0)
    assert replay.saved_epochs > 0.5


def test_curves_whose_start_is_random_lose_the_best_two_times_in_three() -> None:
    rng = np.random.default_rng(1)
    replays = [
        replay_halving([{1: rng.uniform(), 2: rng.uniform()} for _ in range(60)], [1], num_orders=20)
        for _ in range(100)
    ]
    assert np.mean([replay.best_stopped for replay in replays]) == pytest.approx(2 / 3, abs=0.1)
    assert all(0 <= replay.loss <= replay.largest_loss for replay in replays)


def test_orders_come_from_the_seed() -> None:
    curves = random_curves(40, 4, noise=1.0)
    assert replay_halving(curves, [1, 2], seed=1) == replay_halving(curves, [1, 2], seed=1)
    assert replay_halving(curves, [1, 2], seed=1) != replay_halving(curves, [1, 2], seed=2)


@pytest.mark.parametrize(
    ("curves", "rungs", "words"),
    [
        ([{1: 0.1, 2: 0.2}, {2: 0.3}], [1], "training 1 has no AP after epoch 1"),
        ([{1: 0.1, 2: 0.2}, {1: 0.3}], [1], "training 1 has no AP after epoch 2"),
        ([{1: 0.1, 2: 0.2}], [2], "below their last epoch"),
        ([{1: 0.1, 2: 0.2, 3: 0.2}], [2, 1], "ascending rungs"),
        ([], [], "one or more trainings"),
    ],
)
def test_unusable_curves_are_refused(curves: list[dict[int, float]], rungs: list[int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        replay_halving(curves, rungs)
