"""What is foretold of trainings that have seen part of their schedule."""

from __future__ import annotations

import numpy as np
import pytest
from trials import trial

from spinenas.results.foretold import END, foretold, last_epoch, line_between, progress_of
from spinenas.results.leaderboard import leaderboard_rows, winner_words
from spinenas.results.record import Evaluation, Status, TrialRecord


def part(number: int, network: str, *objectives: float) -> TrialRecord:
    """Return the record of a training that was stopped after as many epochs as it has objectives."""
    measured = tuple(enumerate(objectives, start=1))
    evaluation = Evaluation(objectives[-1], stopped_after=len(objectives), by_epoch=measured)
    return trial(number, network, evaluation=evaluation, status=Status.PRUNED, until=1)


def whole(number: int, network: str, *objectives: float) -> TrialRecord:
    measured = tuple(enumerate(objectives, start=1))
    evaluation = Evaluation(objectives[-1], by_epoch=measured)
    return trial(number, network, evaluation=evaluation, status=Status.COMPLETE, until=1)


def test_a_line_gives_back_an_exact_relation_and_needs_three_pairs() -> None:
    trainings = [{1: x, END: 2 * x} for x in (0.1, 0.2, 0.4)]
    line = line_between(trainings, 1)
    assert line is not None
    assert line.at(0.3) == pytest.approx(0.6)
    assert line_between(trainings[:2], 1) is None
    assert line_between(trainings, 3) is None


def test_progress_has_the_end_under_its_own_name() -> None:
    assert progress_of(Evaluation(0.3, by_epoch=((1, 0.1), (2, 0.3)))) == {1: 0.1, END: 0.3}
    assert progress_of(Evaluation(0.1, stopped_after=1)) == {1: 0.1}
    assert last_epoch({1: 0.1, END: 0.3, 2: 0.2}) == END


def test_predictions_are_made_from_pause_to_pause_and_hold_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(300):
        third = rng.uniform(0.1, 0.4, size=12)
        first = 0.4 * third + rng.normal(0, 0.01, size=12)
        end = 1.3 * third + rng.normal(0, 0.01, size=12)
        rest = [[{1: a, 3: b}] for a, b in zip(first[:6], third[:6], strict=True)]
        complete = [[{1: a, 3: b, END: c}] for a, b, c in zip(first[6:11], third[6:11], end[6:11], strict=True)]
        *others, only_first = foretold([*rest, *complete, [{1: first[11]}]])
        assert others[6:] == [None] * 5
        assert only_first is not None
        assert only_first.std > max(each.std for each in others[:6] if each), "it is two steps away"
        inside += [abs(each.value - value) < 2 * each.std for each, value in zip(others[:6], end, strict=False) if each]
        inside.append(abs(only_first.value - end[11]) < 2 * only_first.std)
    assert 0.85 < np.mean(inside) < 0.99


def test_nothing_is_foretold_before_three_trainings_are_complete() -> None:
    assert foretold([[{1: 0.1}], [{1: 0.2, END: 0.4}], [{1: 0.3, END: 0.5}]]) == [None, None, None]
    assert foretold([]) == []


def test_networks_without_a_complete_training_follow_by_prediction_then_by_epochs() -> None:
    records = [
        part(0, "low", 0.1, 0.2, 0.3),
        part(1, "high", 0.1, 0.3, 0.5),
        part(2, "early", 0.4),
        trial(3, "nothing"),
    ]
    rows = leaderboard_rows(records)
    assert [row["network_key"] for row in rows] == ["high", "low", "early", "nothing"]
    assert [(row["epochs_seen"], row["predicted"]) for row in rows] == [(3, None), (3, None), (1, None), (None, None)]
    (words,) = winner_words(records, whole=5)
    assert words == "no winner yet, as no training is complete; trial 1 leads with AP 0.5000 after 3 of 5 epochs"
    complete = [whole(4 + n, f"w{n}", 0.1 + 0.1 * n, 0.2, 0.3, 0.5 + 0.1 * n) for n in range(3)]
    rows = leaderboard_rows([*records, *complete])
    assert [row["network_key"] for row in rows[:3]] == ["w2", "w1", "w0"]
    predicted = [row["predicted"] for row in rows[3:]]
    assert predicted[:3] == sorted(predicted[:3], reverse=True)
    assert predicted[3] is None
    assert all(row["objective"] is None for row in rows[3:])


def test_finalists_are_not_called_alike_if_all_networks_were_not() -> None:
    """Only the best networks are trained to the end, and these may differ by noise alone."""
    noise = (0.004, -0.004, 0.003, -0.003)
    rest = [part(n, f"n{n}", 0.02 * n, 0.04 * n) for n in range(10)]
    finalists = [whole(10 + n, f"n{9 - n // 2}", 0.18, 0.36 + 0.1 * noise[n], 0.5 + noise[n]) for n in range(4)]
    assert winner_words([*rest, *finalists])[0].startswith("winner: ")
    alike = [part(n, f"n{n}", 0.18, 0.36 + 0.0001 * n) for n in range(8)]
    assert winner_words([*alike, *finalists])[0].startswith("no winner: ")
