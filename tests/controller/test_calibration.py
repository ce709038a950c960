"""Trainings of different lengths become one statement about each network."""

from __future__ import annotations

import numpy as np
import pytest

from spinenas.controller.calibration import Calibration
from spinenas.results.foretold import END, progress_of
from spinenas.results.record import Evaluation


def test_the_progress_of_a_training_names_its_end_apart_from_its_epochs() -> None:
    whole = Evaluation(0.3, by_epoch=((1, 0.1), (3, 0.2), (5, 0.3)))
    stopped = Evaluation(0.2, stopped_after=3, by_epoch=((1, 0.1), (3, 0.2)))
    assert progress_of(whole) == {1: 0.1, 3: 0.2, END: 0.3}
    assert progress_of(stopped) == {1: 0.1, 3: 0.2}
    assert progress_of(Evaluation(0.3)) == {END: 0.3}, "the curve of an older run is not known"
    assert progress_of(Evaluation(0.2, stopped_after=3)) == {3: 0.2}


def test_whole_trainings_count_by_their_mean() -> None:
    calibration = Calibration()
    for replicate, objective in enumerate((0.1, 0.2, 0.6)):
        calibration.add("a", replicate, {END: objective})
    calibration.add("b", 0, {END: 0.4})
    assert calibration.estimates["a"] == pytest.approx((0.3, 3.0))
    assert calibration.estimates["b"] == pytest.approx((0.4, 1.0))


def test_a_stopped_training_is_foretold_by_those_that_went_on() -> None:
    calibration = Calibration()
    for number, early in enumerate((0.05, 0.10, 0.15, 0.20)):
        calibration.add(f"whole {number}", 0, {1: early, END: 2 * early + 0.01})
    calibration.add("stopped", 0, {1: 0.12})
    value, weight = calibration.estimates["stopped"]
    assert value == pytest.approx(0.25, abs=0.01)
    assert 0.5 < weight < 1, "nearly as good as a whole one, since all lie on one line"


def test_a_noisy_epoch_counts_less() -> None:
    rng = np.random.default_rng(0)
    weights = {}
    for noise in (0.001, 0.02):
        calibration = Calibration()
        for number in range(30):
            final = rng.uniform(0.1, 0.2)
            calibration.add(f"whole {number}", 0, {1: 0.5 * final + noise * rng.normal(), END: final})
        calibration.add("stopped", 0, {1: 0.08})
        weights[noise] = calibration.estimates["stopped"].weight
    assert weights[0.02] < 0.5 * weights[0.001]


def test_estimates_are_for_the_reference_epoch() -> None:
    calibration = Calibration(3)
    for number in range(4):
        calibration.add(f"{number}", 0, {1: 0.1 * number, 3: 0.2 * number, END: 0.3 * number})
    assert calibration.estimates["2"] == pytest.approx((0.4, 1.0))
    calibration.add("whole", 0, {END: 0.3})
    assert calibration.estimates["whole"].value == pytest.approx(0.2, abs=0.01), "a line leads back from the end too"


def test_nothing_is_foretold_from_too_few_pairs() -> None:
    calibration = Calibration()
    for number in range(2):
        calibration.add(f"{number}", 0, {1: 0.1, END: 0.3})
    calibration.add("stopped", 0, {1: 0.2})
    assert "stopped" not in calibration.estimates
    calibration.add("2", 0, {1: 0.1, END: 0.3})
    assert calibration.estimates["stopped"].value > 0.3


def test_before_any_training_reaches_the_reference_those_that_went_furthest_count_as_they_are() -> None:
    calibration = Calibration(3)
    calibration.add("a", 0, {1: 0.1})
    calibration.add("b", 0, {1: 0.2, 2: 0.3})
    assert calibration.estimates == {"b": (0.3, 1)}


def test_what_a_training_reaches_later_replaces_what_it_had_reached() -> None:
    calibration = Calibration(3)
    calibration.add("a", 0, {1: 0.1})
    calibration.add("a", 0, {1: 0.1, 3: 0.2})
    assert calibration.estimates == {"a": (pytest.approx(0.2), 1.0)}


def test_estimates_do_not_depend_on_when_they_are_read() -> None:
    rng = np.random.default_rng(0)
    reached = [3] * 20 + [int(rng.integers(1, 4)) for _ in range(30)]
    trainings = [
        (f"{rng.integers(12)}", number, {reached: float(rng.normal())}) for number, reached in enumerate(reached)
    ]
    continued = [(name, number, {3: 0.5}) for name, number, progress in trainings if 3 not in progress]
    assert continued
    read = Calibration(3)
    added: list[tuple[str, int, dict[int, float]]] = []
    for training in [("first", 100, {2: 0.1}), *trainings, *continued, ("first", 100, {3: 0.2}), ("0", 101, {3: 0.3})]:
        added.append(training)
        read.add(*training)
        unread = Calibration(3)
        for each in added:
            unread.add(*each)
        assert list(read.estimates.items()) == list(unread.estimates.items())
