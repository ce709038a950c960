"""Whether results are evidence enough to name a winner."""

from __future__ import annotations

import random

import pytest
from report_pages import Page, facts_of
from trials import trial

from spinenas.results.leaderboard import winner, winner_words
from spinenas.results.learnt import LEARNT_AP, why_no_winner
from spinenas.results.report.page import report_page


def drawn(between: float, within: float, *, num_networks: int, num_replicated: int, seed: int) -> list[list[float]]:
    """Return APs of networks around 0.3, some of them trained three times."""
    rng = random.Random(seed)
    means = [rng.gauss(0.3, between) for _ in range(num_networks)]
    return [
        [rng.gauss(mean, within) for _ in range(3 if number < num_replicated else 1)]
        for number, mean in enumerate(means)
    ]


@pytest.mark.parametrize("aps", [[[0.0]], [[0.0], [0.0]], [[0.0004, 0.0002], [0.0]], [[0.0]] * 20])
def test_networks_that_detect_nothing_have_no_winner(aps: list[list[float]]) -> None:
    why = why_no_winner(aps)
    assert why is not None
    assert why.startswith("no winner: ")
    assert "task.train.epochs" in why
    assert why_no_winner([*aps, [LEARNT_AP]]) is None, "one network has learnt, and noise is unknown or small"


def test_single_runs_alone_cannot_show_that_networks_are_alike() -> None:
    assert why_no_winner([[0.30], [0.31], [0.29]]) is None
    assert why_no_winner([]) is None


def test_networks_that_differ_by_noise_alone_have_no_winner() -> None:
    found = [
        why_no_winner(drawn(0.0, 0.02, num_networks=20, num_replicated=8, seed=seed)) is not None for seed in range(40)
    ]
    assert sum(found) > 30


@pytest.mark.parametrize(("num_networks", "num_replicated"), [(12, 1), (20, 3), (60, 6)])
def test_networks_whose_spread_is_twice_the_noise_keep_their_winner(num_networks: int, num_replicated: int) -> None:
    total = [
        why_no_winner(drawn(3**0.5 * 0.02, 0.02, num_networks=num_networks, num_replicated=num_replicated, seed=seed))
        for seed in range(200)
    ]
    assert sum(why is not None for why in total) <= 20, "5 % by construction"


def test_cheaper_networks_of_equal_ap_can_win() -> None:
    alike = drawn(0.0, 0.02, num_networks=20, num_replicated=8, seed=0)
    assert why_no_winner(alike) is not None
    assert why_no_winner(alike, only_ap=False) is None
    assert why_no_winner([[0.0], [0.0]], only_ap=False) is not None


def test_neither_leaderboard_nor_report_names_a_winner_of_a_search_that_learnt_nothing() -> None:
    records = [trial(number, f"network {number}", 0.0) for number in range(4)]
    assert winner(records) is None
    (words,) = winner_words(records)
    assert words.startswith("no winner: none of the 4 complete trainings has learnt")
    page = Page(report_page(facts_of(*records)))
    assert "No winner: none of the 4 complete trainings" in page.text
    assert "unconfirmed: trial" not in page.text
    assert "The best architectures" not in page.text
