"""The driver's reactions to failures and to late, repeated or invalid reports."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_task import FakeTask, objective_of
from journal_lines import json_events
from scripted_driver import Play, kinds, lost, notes, started
from searches import configured

import spinenas.search.run.driver as driver_module
from spinenas.results.record import Evaluation, Failure, FailureKind, Fidelity, Status
from spinenas.results.storage.events import EpochDone, Finished
from spinenas.search.executors.base import WorkerEvent
from spinenas.search.executors.failure_rules import RULES, pause_seconds
from spinenas.space import UserError

pytestmark = pytest.mark.usefixtures("no_fsync")


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., Play]:
    notes.clear()

    def make(*script: list[WorkerEvent], num_trials: int = 1, num_slots: int = 1, **executor: Any) -> Play:
        config = configured(num_trials, **executor)
        return Play(tmp_path, list(script), num_slots=num_slots, config=config)

    return make


GOOD = Evaluation(0.5)


def test_every_kind_of_failure_has_a_rule() -> None:
    assert set(RULES) == set(FailureKind)
    assert {kind for kind, rule in RULES.items() if rule.stops_run} == {FailureKind.BUG, FailureKind.INVALID_DATA}
    assert {kind for kind, rule in RULES.items() if rule.again == "always"} == {FailureKind.PREEMPTED}


@pytest.mark.parametrize(
    ("kind", "options", "num_attempts"),
    [
        (FailureKind.DIVERGED, {}, 1),
        (FailureKind.INVALID_GENOTYPE, {}, 1),
        (FailureKind.TIMEOUT, {}, 1),
        (FailureKind.OUT_OF_MEMORY, {}, 1),
        (FailureKind.OUT_OF_MEMORY, {"out_of_memory_retries": 1}, 2),
        (FailureKind.WORKER_LOST, {}, 4),
        (FailureKind.WORKER_LOST, {"max_attempts": 2}, 2),
        (FailureKind.INVALID_DATA, {}, 1),
        (FailureKind.BUG, {}, 1),
    ],
)
def test_a_trial_is_retried_by_the_rule_of_its_failure(
    kind: FailureKind, options: dict[str, Any], num_attempts: int, play: Callable[..., Play]
) -> None:
    script = [[started(0, attempt), lost(0, attempt, kind)] for attempt in range(num_attempts)]
    events = play(*script, **options).run()
    assert kinds(events)[-1] == "told"
    assert events[-1]["failure"]["kind"] == kind
    assert kinds(events).count("requeued") == num_attempts - 1


def test_a_lost_machine_never_counts_against_a_trial_and_the_pauses_grow(play: Callable[..., Play]) -> None:
    script: list[list[WorkerEvent]] = []
    for attempt in range(20):
        script += [[started(0, attempt), lost(0, attempt, FailureKind.PREEMPTED)], []]
    played = play(*script, [started(0, 20), Finished(0, 20, GOOD)], max_attempts=1)
    executor = played.executor
    wait = executor.wait

    def later(on_event: Any, timeout_seconds: float | None) -> None:
        wait(on_event, timeout_seconds)
        played.clock += timeout_seconds or 0.0

    executor.wait = later  # type: ignore[method-assign]
    events = played.run()
    assert kinds(events)[-1] == "told"
    assert events[-1]["status"] == Status.COMPLETE
    pauses = [timeout for timeout in executor.timeouts if timeout is not None]
    assert pauses[:8] == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60])
    assert pauses == pytest.approx([pause_seconds(n) for n in range(1, 21)])


def test_other_trials_continue_while_one_pauses(play: Callable[..., Play]) -> None:
    played = play(
        [started(0), lost(0, 0, FailureKind.PREEMPTED)], [started(1), Finished(1, 0, GOOD)], num_trials=2, num_slots=1
    )
    played.run()
    assert [(job.number, job.attempt) for job in played.executor.jobs] == [(0, 0), (1, 0)]


def test_a_trial_out_of_memory_is_retried_with_half_the_batch_and_recorded(play: Callable[..., Play]) -> None:
    script = [[started(0, attempt), lost(0, attempt, FailureKind.OUT_OF_MEMORY)] for attempt in range(2)]
    played = play(*script, out_of_memory_retries=5)
    events = played.run()
    assert FakeTask().fidelity.batch_size == 2
    assert [job.fidelity and job.fidelity.batch_size for job in played.executor.jobs] == [None, 1]
    (requeued,) = [event for event in events if event["event"] == "requeued"]
    assert "next with batches of 1" in requeued["reason"]
    assert Fidelity.from_json(requeued["fidelity"]).batch_size == 1
    assert events[-1]["failure"]["kind"] == "out_of_memory", "a batch of one cannot be halved"


def test_several_bugs_stop_the_run_with_their_traceback_in_the_journal(play: Callable[..., Play]) -> None:
    def bug(number: int) -> list[WorkerEvent]:
        return [started(number), Finished(number, 0, Failure(FailureKind.BUG, "division by zero", "Traceback ..."))]

    played = play(*(bug(number) for number in range(3)), num_trials=9, max_errors=2)
    with pytest.raises(
        UserError,
        match=r"2 trials failed .* the last one, 1, because of a bug: division by zero; fix .*: spinenas show ",
    ):
        played.run()
    events = json_events(played.folder.journal_path)
    assert [event["failure"]["traceback"] for event in events if event["event"] == "told"] == ["Traceback ..."] * 2


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (Finished(7, 0, GOOD), "no such trial was asked"),
        (Finished(-1, 0, GOOD), "no such trial was asked"),
        (Finished(0, 0, GOOD), "the trial has its result already"),
        (Finished(1, 1, GOOD), "attempt 1 was never begun"),
        (Finished(1, -1, GOOD), "attempt -1 was never begun"),
    ],
)
def test_a_stale_or_invalid_result_is_refused_with_a_reason(
    report: Finished, reason: str, play: Callable[..., Play]
) -> None:
    played = play([started(0), Finished(0, 0, GOOD)], [started(1), report], [Finished(1, 0, GOOD)], num_trials=2)
    events = played.run()
    (refused,) = [event for event in events if event["event"] == "refused"]
    assert (refused["number"], refused["attempt"], refused["reason"]) == (report.number, report.attempt, reason)
    assert kinds(events).count("told") == 2


@pytest.mark.parametrize("event", [started(0), EpochDone(0, 0, 1, {}), EpochDone(1, 0, 1, {}), started(5)])
def test_a_stale_or_invalid_report_changes_nothing(event: WorkerEvent, play: Callable[..., Play]) -> None:
    played = play([started(0), Finished(0, 0, GOOD)], [event], [started(1), Finished(1, 0, GOOD)], num_trials=2)
    assert kinds(played.run()) == ["asked", "started", "told", "asked", "started", "told"]


@pytest.mark.parametrize("again", ["running", "waiting"])
def test_a_result_of_an_abandoned_attempt_is_accepted_once(again: str, play: Callable[..., Play]) -> None:
    """The machine was considered lost, but was only slow."""
    kind = FailureKind.WORKER_LOST if again == "running" else FailureKind.PREEMPTED  # after which it pauses
    script = [[started(0), lost(0, 0, kind)], [Finished(0, 0, GOOD), Finished(0, 0, GOOD)]]
    played = play(*script)
    events = played.run()
    assert kinds(events)[-2:] == ["told", "refused"]
    assert (events[-2]["attempt"], events[-2]["evaluation"]["objective"]) == (0, 0.5)
    assert len(played.executor.jobs) == (2 if again == "running" else 1)


def test_a_late_result_ends_the_current_attempt(play: Callable[..., Play]) -> None:
    script = [[started(0), lost(0, 0, FailureKind.WORKER_LOST)], [started(0, 1)], [Finished(0, 0, GOOD)]]
    played = play(*script)
    assert kinds(played.run())[-1] == "told"
    assert played.executor.cancelled == [0]


@pytest.mark.parametrize("kind", [FailureKind.WORKER_LOST, FailureKind.PREEMPTED, FailureKind.OUT_OF_MEMORY])
def test_a_late_report_of_a_lost_attempt_is_ignored(kind: FailureKind, play: Callable[..., Play]) -> None:
    script = [[started(0), lost(0, 0, FailureKind.WORKER_LOST)], [started(0, 1), lost(0, 0, kind)]]
    events = play(*script, [Finished(0, 1, GOOD)]).run()
    assert kinds(events)[-2:] == ["refused", "told"]


def test_a_late_result_of_a_larger_batch_is_refused(play: Callable[..., Play]) -> None:
    script = [[started(0), lost(0, 0, FailureKind.OUT_OF_MEMORY)], [started(0, 1), Finished(0, 0, GOOD)]]
    events = play(*script, [Finished(0, 1, GOOD)], out_of_memory_retries=1).run()
    assert [event["reason"] for event in events if event["event"] == "refused"] == [
        "the attempt was given up for one with a smaller batch"
    ]
    assert events[-1]["attempt"] == 1


def test_a_result_that_comes_before_its_start_counts(play: Callable[..., Play]) -> None:
    events = play([Finished(0, 0, GOOD), started(0)]).run()
    assert kinds(events) == ["asked", "told"]


def test_accelerator_hours_end_a_search_in_order_and_leave_a_share_for_replicates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials take six minutes on half an accelerator, so that two hours suffice for forty."""
    from datetime import UTC, datetime, timedelta

    from spinenas.search.run.lifecycle import resume, run_search
    from spinenas.search.run.or_resume import search_or_resume

    moment = datetime(2026, 1, 1, tzinfo=UTC)

    class Slow(FakeTask):
        def evaluate(self, *args: Any, **named: Any) -> Any:
            nonlocal moment
            moment += timedelta(minutes=6)
            return super().evaluate(*args, **named)

    monkeypatch.setattr(driver_module, "now", lambda: moment.isoformat(timespec="milliseconds"))
    config = configured(1000)
    config = replace(config, budget=replace(config.budget, max_accelerator_hours=2.0))
    run = run_search(config, out=tmp_path / "run", task=Slow())
    records = run.records()
    assert {record.status for record in records} == {Status.COMPLETE}
    assert len(records) == 20
    assert [record.replicate > 0 for record in records].count(True) in (1, 2)
    longer = resume(tmp_path / "run", max_accelerator_hours=3.0, task=Slow())
    assert len(longer.records()) == 30
    assert resume(tmp_path / "run", task=Slow()).records() == longer.records(), "the limit is kept"
    with pytest.raises(KeyboardInterrupt):
        run_search(configured(1000), out=tmp_path / "unlimited", task=Slow(interrupt_at=3))
    limited = replace(config, budget=replace(config.budget, max_accelerator_hours=1.0))
    assert len(search_or_resume(limited, out=tmp_path / "unlimited", task=Slow()).records()) == 9, (
        "and the lost attempt"
    )
    again = search_or_resume(configured(1000), out=tmp_path / "unlimited", task=Slow())
    assert len(again.records()) == 9, "the limit of an earlier resumption is kept"


def test_a_folder_that_is_removed_or_cannot_be_written_ends_the_run_with_one_sentence(tmp_path: Path) -> None:
    from spinenas.search.run.lifecycle import resume, run_search

    class Removes(FakeTask):
        def evaluate(self, genotype: Any, *, seed: int, folder: Path, **named: Any) -> Any:
            if int(folder.name) == 4:
                os.rename(folder.parent.parent, tmp_path / "elsewhere")
            return Evaluation(objective_of(genotype, seed), params=1000, madds=10**6, train_seconds=0.1)

    with pytest.raises(UserError, match=r"cannot write .*resume the search"):
        run_search(configured(), out=tmp_path / "run", task=Removes())
    assert not (tmp_path / "run").exists(), "the folder is not created again"
    os.rename(tmp_path / "elsewhere", tmp_path / "run")
    resumed = resume(tmp_path / "run", task=FakeTask())
    assert {record.status for record in resumed.records()} == {Status.COMPLETE}


def test_hours_count_trials_that_wait_for_their_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight trials of an hour at a time within nine and a half hours: no second eight may start."""
    from datetime import UTC, datetime, timedelta

    moment = datetime(2026, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(driver_module, "now", lambda: moment.isoformat(timespec="milliseconds"))
    config = configured(100)
    config = replace(config, budget=replace(config.budget, max_accelerator_hours=9.5, replicate_share=0.0))
    played = Play(tmp_path, [[started(n) for n in range(8)]], num_slots=8, config=config)
    wait = played.executor.wait

    def wait_an_hour(on_event: Any, timeout_seconds: float | None) -> None:
        nonlocal moment
        wait(on_event, timeout_seconds)
        if len(played.executor.jobs) == 8 and not played.executor._script:
            moment += timedelta(hours=1)
            played.executor._script.append([Finished(n, 0, GOOD) for n in range(8)])

    played.executor.wait = wait_an_hour  # type: ignore[method-assign]
    played.run()
    assert len(played.executor.jobs) == 9


def test_retries_for_memory_are_counted_over_a_crash(tmp_path: Path) -> None:
    from spinenas.search.run.lifecycle import resume, run_search

    class Large(FakeTask):
        """Needs a batch of 2, and is killed before its last failure for lack of memory."""

        killed = False

        @property
        def fidelity(self) -> Fidelity:
            return replace(super().fidelity, batch_size=16)

        def evaluate(self, *args: Any, fidelity: Fidelity | None, **named: Any) -> Any:
            batches.append((fidelity or self.fidelity).batch_size)
            if batches == [16, 8] and not self.killed:
                raise KeyboardInterrupt
            return Failure(FailureKind.OUT_OF_MEMORY, "too large")

    batches: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run_search(configured(1, out_of_memory_retries=2), out=tmp_path / "run", task=Large())
    second = Large()
    second.killed = True
    records = resume(tmp_path / "run", task=second).records()
    assert batches == [16, 8, 8, 4]
    assert records[0].failure is not None


def test_a_checkpoint_whose_driver_died_as_it_removed_it_is_removed(tmp_path: Path) -> None:
    from spinenas.results.storage.run_folder import CHECKPOINT
    from spinenas.search.run.lifecycle import resume, run_search

    run = run_search(configured(3), out=tmp_path / "run", task=FakeTask())
    left = run.folder.trial_folder(1) / CHECKPOINT
    left.write_bytes(b"of a finished trial")
    resume(tmp_path / "run", num_trials=4, task=FakeTask())
    assert not left.exists()
