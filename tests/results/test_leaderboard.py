from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace

import pytest
from trials import trial

from spinenas.results.leaderboard import COLUMNS, leaderboard, leaderboard_rows, winner, winner_words
from spinenas.results.record import Failure, FailureKind, Fidelity, Status
from spinenas.space.baseline import Baseline
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.limits import CostTarget
from spinenas.space.published import R0_SP53, SPINENET_49
from spinenas.space.scaling import SCALINGS

EXAMPLE = [
    trial(0, "a", 0.30, train_seconds=10.0, origin="random"),
    trial(1, "b", 0.25, train_seconds=8.0),
    trial(2, "c", status=Status.FAILED, failure=Failure(FailureKind.BUG, "")),
    trial(3, "d", 0.40, status=Status.PRUNED),
    trial(4, "b", 0.31, train_seconds=10.0, replicate=1, origin="replicate"),
    trial(5, "a", 0.22, train_seconds=20.0, replicate=1, origin="replicate"),
    trial(6, "e", 0.29),
    trial(7, "a", status=Status.RUNNING, replicate=2),
]


def test_the_example_is_ranked_as_by_hand():
    rows = leaderboard_rows(EXAMPLE)
    # e: 0.29; b: mean of 0.25 and 0.31 is 0.28; a: mean of 0.30 and 0.22 is 0.26, std 0.08 / sqrt 2
    assert [row["network_key"] for row in rows] == ["e", "b", "a", "c", "d"]
    assert [row["objective"] for row in rows] == pytest.approx([0.29, 0.28, 0.26, None, None])
    assert [row["std"] for row in rows] == pytest.approx([None, 0.06 / 2**0.5, 0.08 / 2**0.5, None, None])
    assert [row["n"] for row in rows] == [1, 2, 2, 0, 0]
    # pooled over b and a: sqrt((0.06^2 + 0.08^2) / 4) = 0.05; t with 2 degrees of freedom 4.3027, of two runs each
    half = 4.302653 * 0.05 / 2**0.5
    assert [row["lower"] for row in rows] == pytest.approx([None, 0.28 - half, 0.26 - half, None, None])
    assert [row["upper"] for row in rows] == pytest.approx([None, 0.28 + half, 0.26 + half, None, None])
    assert [row["number"] for row in rows] == [6, 1, 0, 2, 3]
    assert [row["numbers"] for row in rows] == [[6], [1, 4], [0, 5, 7], [2], [3]]
    assert [row["status"] for row in rows] == ["complete", "complete", "complete", "failed", "pruned"]
    assert [row["train_seconds"] for row in rows] == [None, 9.0, 15.0, None, None]
    assert [row["params"] for row in rows] == [16, 11, 10, None, None]
    assert [row["origin"] for row in rows] == ["", "", "random", "", ""]
    assert all(row["key"] == SPINENET_49.key for row in rows)


def test_costs_are_counted_in_another_detector_for_baselines_too():
    target = CostTarget.published("49@640")
    baseline = replace(trial(1, "b", 0.25), genotype=None, architecture="r50-fpn")
    rows = leaderboard_rows([trial(0, "a", 0.3), baseline, trial(2, "c")], target=target)
    for row, architecture in zip(rows, (SPINENET_49, Baseline(50)), strict=False):
        cost = target.cost(architecture)
        assert (row["params"], row["madds"]) == (cost.params, cost.madds)
    assert rows[2]["madds"] is None


def test_the_winner_is_the_best_mean_among_replicated_networks():
    row = winner(EXAMPLE)
    assert row is not None
    assert row["network_key"] == "b"


def test_the_line_about_the_winner_states_its_uncertainty():
    first, second = winner_words(EXAMPLE)
    assert first.startswith("winner: trial 1, mean AP 0.2800 over 2 runs (sd 0.0424, 95 %: ")
    assert "single runs" in second
    (alone,) = winner_words([EXAMPLE[0], EXAMPLE[6]])
    assert alone.startswith("winner, unconfirmed: trial 0 has the best single run of 2;")
    assert winner_words(EXAMPLE[2:3]) == ()
    assert len(winner_words(EXAMPLE[:2] + EXAMPLE[4:6])) == 1


def test_a_soft_objective_changes_the_winner_everywhere():
    cheap = [replace(record, genotype=R0_SP53) if record.network_key == "a" else record for record in EXAMPLE]

    def scalarize(genotype: Genotype, ap: float) -> float:
        return ap if genotype == R0_SP53 else ap / 2

    row = winner(cheap, scalarize)
    assert row is not None
    assert row["network_key"] == "a"
    assert winner_words(cheap, scalarize)[0].startswith("winner: trial 0, mean AP 0.2600")


def test_without_replicates_the_winner_is_the_best_run():
    row = winner([trial(0, "a", 0.1), trial(1, "b", 0.2), trial(2, "c")])
    assert row is not None
    assert row["network_key"] == "b"


def test_without_a_complete_trial_there_is_no_winner():
    assert winner([]) is None
    assert winner([trial(0, "a"), trial(1, "b", 0.3, status=Status.PRUNED)]) is None


def test_a_network_at_another_fidelity_has_its_own_row():
    full = Fidelity(50, 640, 64, 1000, SCALINGS["49"])
    rows = leaderboard_rows([trial(0, "a", 0.2), trial(1, "a", 0.4, fidelity=full)])
    assert [(row["objective"], row["n"], row["epochs"]) for row in rows] == [(0.4, 1, 50), (0.2, 1, None)]


def test_the_spread_of_another_fidelity_gives_no_interval():
    full = Fidelity(50, 640, 64, 1000, SCALINGS["49"])
    records = [trial(number, "a", objective) for number, objective in enumerate((0.2, 0.3, 0.4))]
    records += [trial(3, "a", 0.5, fidelity=full), trial(4, "b", 0.9, fidelity=full), trial(5, "b", 0.9, fidelity=full)]
    rows = {(row["network_key"], row["epochs"]): row for row in leaderboard_rows(records)}
    assert rows["b", 50]["lower"] == rows["b", 50]["upper"] == 0.9
    assert rows["a", None]["upper"] == pytest.approx(0.3 + 4.302653 * 0.1 / 3**0.5)
    assert rows["a", 50]["lower"] is None


def test_intervals_of_means_have_their_nominal_coverage():
    rng = random.Random(0)
    held = []
    for _ in range(300):
        records = [trial(n, f"{n // 2}", rng.gauss(n // 2 / 10, 0.02)) for n in range(8)]
        held += [row["lower"] <= int(row["network_key"]) / 10 <= row["upper"] for row in leaderboard_rows(records)]
    assert 0.93 < sum(held) / len(held) < 0.97


def test_results_of_different_tasks_are_never_ranked_together():
    with pytest.raises(UserError, match="trials 0 and 2 belong to different tasks, 't' and 'u'"):
        leaderboard_rows([trial(0, "a", 0.2), trial(1, "b", 0.2), trial(2, "a", 0.2, task_key="u")])


def test_equal_means_rank_by_age_and_top_limits_the_rows():
    records = [trial(number, f"network {number}", 0.5) for number in range(5)]
    assert [row["number"] for row in leaderboard_rows(records, top=3)] == [0, 1, 2]


def test_the_table_has_the_rows():
    table = leaderboard(EXAMPLE, top=2)
    assert tuple(table.columns) == COLUMNS == tuple(leaderboard_rows(EXAMPLE)[0])
    assert table["network_key"].tolist() == ["e", "b"]
    assert leaderboard([]).empty


def test_ranking_agrees_with_a_plain_recount_on_random_records():
    draw = random.Random(0)
    records = [trial(number, draw.choice("abcdefgh"), draw.random()) for number in range(60)]
    means = {}
    for name in "abcdefgh":
        values = [record.evaluation.objective for record in records if record.network_key == name]
        means[name] = sum(values) / len(values)
    rows = leaderboard_rows(records)
    assert [row["network_key"] for row in rows] == sorted(means, key=means.__getitem__, reverse=True)


def test_rows_are_computed_without_pandas():
    program = "import sys; from spinenas.results import leaderboard as l; l.leaderboard_rows([]); "
    program += "print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
