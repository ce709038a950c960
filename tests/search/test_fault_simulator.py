"""Small simulations of a faulty cluster; `python tests/fault_simulator.py` runs the large one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from crash_matrix import lines_of, not_recomputed, unpaused
from fault_simulator import PAUSING, SMALL, WHOLE, Outcome, configured, simulate

from spinenas.results.record import FailureKind, Status

SHORT = replace(SMALL, num_trials=200)
MEDIUM = replace(SMALL, num_trials=400)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A small simulation, which asserts its invariants after each report."""
    return simulate(MEDIUM, 1, tmp_path_factory.mktemp("simulated"))


def failures(outcome: Outcome) -> set[FailureKind]:
    return {record.failure.kind for record in outcome.state.trials.values() if record.failure is not None}


def test_a_search_finishes_despite_all_simulated_faults(outcome: Outcome) -> None:
    assert outcome.num_sessions == MEDIUM.num_deaths + 1
    assert {record.status for record in outcome.state.trials.values()} == {Status.COMPLETE, Status.FAILED}
    assert {FailureKind.DIVERGED, FailureKind.WORKER_LOST, FailureKind.OUT_OF_MEMORY} <= failures(outcome)
    assert FailureKind.PREEMPTED not in failures(outcome)


def test_an_ordered_search_finishes_despite_all_simulated_faults(tmp_path: Path) -> None:
    assert simulate(replace(SHORT, ordered=True), 1, tmp_path).num_sessions == SHORT.num_deaths + 1


def test_all_kinds_of_bad_reports_are_made_and_most_are_refused(outcome: Outcome) -> None:
    checks = outcome.checks
    assert len(checks.refused) == 10
    assert checks.refused.total() > 800
    assert checks.taken["late"] > 0, "otherwise no result of an abandoned attempt was accepted"


def test_every_proposal_follows_from_the_order_of_the_journal(outcome: Outcome) -> None:
    assert list(not_recomputed(configured(MEDIUM, 1), lines_of(outcome.journal))) == []


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    digests = []
    for number, seed in enumerate((1, 1, 2)):
        folder = tmp_path / str(number)
        folder.mkdir()
        digests.append(simulate(SHORT, seed, folder).digest)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("ordered", [False, True])
def test_a_search_that_pauses_trainings_finishes_despite_all_simulated_faults(ordered: bool, tmp_path: Path) -> None:
    scale = replace(PAUSING, num_trials=40, ordered=ordered)
    digests = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        outcome = simulate(scale, 3, folder)
        digests.append(outcome.digest)
        assert outcome.num_sessions == scale.num_deaths + 1
        assert outcome.checks.num_promoted > 20
        assert {FailureKind.WORKER_LOST, FailureKind.DIVERGED} & failures(outcome)
        assert list(unpaused(lines_of(outcome.journal), num_epochs=200)) == []
        if not ordered:
            assert list(not_recomputed(configured(scale, 3), lines_of(outcome.journal))) == []
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_a_search_with_a_thousand_workers_and_twenty_thousand_trials_finishes(tmp_path: Path) -> None:
    outcome = simulate(WHOLE, 0, tmp_path)
    assert outcome.checks.taken.total() + outcome.checks.refused.total() > 10_000
    assert outcome.resident_growth_bytes / WHOLE.num_trials < 20_000
