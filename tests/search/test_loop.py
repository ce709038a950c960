"""Start and resumption of searches with a task that trains nothing: journals, killed runs and refusals."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from fake_task import FakeTask
from searches import NUM_TRIALS, configured, cut, events_of, outcome, timeless
from shuffled_executor import ShuffledExecutor

import spinenas.search.run.identity as run_identity
import spinenas.search.run.lifecycle as loop
from spinenas.controller import ReinforceOptions
from spinenas.results.record import Failure, FailureKind, Status
from spinenas.results.storage.events import Finished
from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.parts import BudgetConfig, SpaceConfig
from spinenas.search.executors.base import WorkerEvent
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.space import UserError

pytestmark = pytest.mark.usefixtures("no_fsync")


def test_a_search_spends_its_budget_and_ranks_its_networks(tmp_path: Path) -> None:
    run = run_search(configured(), out=tmp_path / "run", task=FakeTask())
    records = run.records()
    assert [record.number for record in records] == list(range(NUM_TRIALS))
    assert {record.status for record in records} == {Status.COMPLETE}
    assert records[-1].replicate > 0, "the last tenth trains leaders again"
    table = run.leaderboard(top=3)
    assert len(table) == 3
    assert table["objective"].is_monotonic_decreasing
    winner = run.winner()
    assert winner is not None
    assert winner.number in set(table["number"])


def test_a_value_without_effect_causes_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_search(configured(1, gpus_per_worker=1), out=tmp_path / "run", task=FakeTask())
    assert [record.getMessage().split()[0] for record in caplog.records] == ["executor.gpus_per_worker"]


def test_every_step_of_a_trial_is_in_the_journal_in_order(tmp_path: Path) -> None:
    events = events_of(run_search(configured(2), out=tmp_path / "run", task=FakeTask()))
    assert [event["event"] for event in events] == [
        "run_started", *(["asked", "started", "epoch", "epoch", "told"] * 2)
    ]  # fmt: skip
    assert "curve" not in events[-1]["evaluation"]


def test_the_curve_is_kept_beside_the_journal(tmp_path: Path) -> None:
    run = run_search(configured(1), out=tmp_path / "run", task=FakeTask(num_epochs=3))
    assert [entry["epoch"] for entry in run.folder.read_curve(0)] == [1, 2, 3]


def test_replicates_have_the_network_of_their_first_trial_and_another_seed(tmp_path: Path) -> None:
    records = run_search(configured(), out=tmp_path / "run", task=FakeTask()).records()
    seeds = {(record.network_key, record.seed) for record in records}
    assert len(seeds) == NUM_TRIALS
    assert len({network for network, _ in seeds}) < NUM_TRIALS


def test_the_seed_of_a_trial_depends_on_network_and_replicate_not_on_its_number(tmp_path: Path) -> None:
    config = replace(configured(), space=SpaceConfig("tiny"), budget=BudgetConfig(150, 0.0))
    other = replace(config, controller=replace(config.controller, name="random"))
    numbers: dict[str, list[int]] = {}
    seeds: dict[str, set[int]] = {}
    for name, each in (("evolution", config), ("random", other)):
        for record in run_search(each, out=tmp_path / name, task=FakeTask()).records():
            numbers.setdefault(record.network_key, []).append(record.number)
            seeds.setdefault(record.network_key, set()).add(record.seed)
    assert any(len(set(found)) > 1 for found in numbers.values()), (
        "some network is in both runs, under different numbers"
    )
    assert all(len(found) == 1 for found in seeds.values())


def test_a_failed_trial_does_not_stop_the_search(tmp_path: Path) -> None:
    task = FakeTask(fail={1: "diverged", 2: "raise", 3: "out_of_memory"})
    records = run_search(configured(), out=tmp_path / "run", task=task).records()
    kinds = [record.failure.kind if record.failure else None for record in records[:5]]
    assert kinds == [None, FailureKind.DIVERGED, FailureKind.BUG, FailureKind.OUT_OF_MEMORY, None]
    bug = records[2].failure
    assert bug is not None
    assert "ZeroDivisionError" in bug.traceback
    assert len(records) == NUM_TRIALS


def test_a_space_that_is_exhausted_ends_the_search_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spinenas.controller.base import SpaceExhausted
    from spinenas.controller.random_search import RandomSearch

    propose = RandomSearch.ask

    def ask(controller: RandomSearch) -> Any:
        proposal = propose(controller)
        if proposal is not None and proposal.number >= 4:
            raise SpaceExhausted("the space has four networks")
        return proposal

    monkeypatch.setattr(RandomSearch, "ask", ask)
    config = configured()
    config = replace(config, controller=replace(config.controller, name="random"), budget=BudgetConfig(NUM_TRIALS, 0.0))
    assert len(run_search(config, out=tmp_path / "run", task=FakeTask()).records()) == 4


@pytest.mark.parametrize("kind", ["serial", "ordered"])
def test_a_run_cut_after_any_event_becomes_the_uninterrupted_one(
    kind: str, tmp_path: Path, shuffled: Callable[..., None]
) -> None:
    task = FakeTask(num_epochs=1, fail={4: "diverged"})
    if kind == "ordered":
        shuffled(seed=0)
    config = configured(ordered=kind == "ordered")
    whole = run_search(config, out=tmp_path / "whole", task=task)
    for num_events in range(1, len(events_of(whole))):
        if kind == "ordered":
            shuffled(seed=num_events)  # the order of arrival changes
        resumed = resume(cut(whole, num_events, tmp_path / f"cut{num_events}"), task=task)
        assert outcome(resumed) == outcome(whole), f"cut after event {num_events}"
        told = [event["number"] for event in events_of(resumed) if event["event"] == "told"]
        assert sorted(told) == list(range(NUM_TRIALS)), "no finished trial is repeated"
        if kind == "serial":
            assert timeless(events_of(resumed), "asked", "told") == timeless(events_of(whole), "asked", "told")


def test_an_ordered_run_does_not_depend_on_the_order_of_arrival(tmp_path: Path, shuffled: Callable[..., None]) -> None:
    outcomes = []
    for seed in range(4):
        shuffled(seed)
        outcomes.append(outcome(run_search(configured(ordered=True), out=tmp_path / f"{seed}", task=FakeTask())))
    assert all(other == outcomes[0] for other in outcomes)
    free = []
    for seed in range(4):
        shuffled(seed)
        free.append(outcome(run_search(configured(), out=tmp_path / f"free{seed}", task=FakeTask())))
    assert any(other != free[0] for other in free), "otherwise the test could not fail"


def test_an_ordered_run_keeps_its_window_when_resumed_with_other_workers(
    tmp_path: Path, shuffled: Callable[..., None]
) -> None:
    shuffled(0)
    whole = run_search(configured(ordered=True), out=tmp_path / "whole", task=FakeTask())
    resumed = resume(cut(whole, 10, tmp_path / "cut"), workers=7, task=FakeTask())
    assert outcome(resumed) == outcome(whole)


def test_a_free_running_run_cut_after_any_event_finishes_and_repeats_nothing(
    tmp_path: Path, shuffled: Callable[..., None]
) -> None:
    shuffled(1)
    whole = run_search(configured(), out=tmp_path / "whole", task=FakeTask(num_epochs=1))
    before = events_of(whole)
    for num_events in range(1, len(before)):
        resumed = resume(cut(whole, num_events, tmp_path / f"cut{num_events}"), task=FakeTask(num_epochs=1))
        events = events_of(resumed)
        assert timeless(events[:num_events], "asked", "told") == timeless(before[:num_events], "asked", "told")
        told = [event["number"] for event in events if event["event"] == "told"]
        assert sorted(told) == list(range(NUM_TRIALS))
        requeued = [event["number"] for event in events if event["event"] == "requeued"]
        started = {event["number"] for event in before[:num_events] if event["event"] == "started"}
        finished = {event["number"] for event in before[:num_events] if event["event"] == "told"}
        assert sorted(requeued) == sorted(started - finished), "each running trial once"


def test_a_resumed_run_can_be_killed_and_resumed_again(tmp_path: Path) -> None:
    task = FakeTask(num_epochs=1)
    whole = run_search(configured(), out=tmp_path / "whole", task=task)
    once = resume(cut(whole, 12, tmp_path / "once"), task=task)
    twice = resume(cut(once, 20, tmp_path / "twice"), task=task)
    assert outcome(twice) == outcome(whole)


def test_an_interrupted_search_can_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_search(configured(), out=tmp_path / "run", task=FakeTask(interrupt_at=5))
    resumed = resume(tmp_path / "run", task=FakeTask())
    whole = run_search(configured(), out=tmp_path / "whole", task=FakeTask())
    assert outcome(resumed) == outcome(whole)
    assert resumed.records()[5].attempt == 1


def test_a_larger_budget_extends_the_search_and_is_kept(tmp_path: Path) -> None:
    run_search(configured(), out=tmp_path / "run", task=FakeTask())
    extended = resume(tmp_path / "run", num_trials=20, task=FakeTask())
    assert len(extended.records()) == 20
    again = resume(cut(extended, len(events_of(extended)) - 12, tmp_path / "cut"), task=FakeTask())
    assert outcome(again) == outcome(extended)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    run = run_search(configured(), out=tmp_path / "run", task=FakeTask())
    before = run.folder.journal_path.read_bytes()
    task = FakeTask()
    resume(tmp_path / "run", task=task)
    assert run.folder.journal_path.read_bytes() == before
    assert task.num_prepared == 0


def test_a_budget_cannot_be_reduced(tmp_path: Path) -> None:
    run_search(configured(3), out=tmp_path / "run", task=FakeTask())
    with pytest.raises(UserError, match="budget of 3 trials"):
        resume(tmp_path / "run", num_trials=2, task=FakeTask())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (FakeTask(key="other-task"), ["the task changed", "fake-task", "other-task"]),
        (FakeTask(fingerprint={"train": "xyz", "num_train_images": 10}), ["the data changed", "'abc'", "'xyz'"]),
    ],
)
def test_another_task_or_other_data_is_refused_and_changes_nothing(
    changed: FakeTask, words: list[str], tmp_path: Path
) -> None:
    whole = run_search(configured(), out=tmp_path / "whole", task=FakeTask())
    folder = cut(whole, 12, tmp_path / "cut")
    before = (folder / "journal.jsonl").read_bytes()
    with pytest.raises(UserError) as caught:
        resume(folder, task=changed)
    assert all(word in str(caught.value) for word in words)
    assert "num_train_images" not in str(caught.value), "only what changed is named"
    assert (folder / "journal.jsonl").read_bytes() == before


def test_another_code_protocol_or_space_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_search(configured(), out=tmp_path / "whole", task=FakeTask())
    folder = cut(whole, 12, tmp_path / "cut")
    config = json.loads((folder / "config.json").read_text())
    config["space"]["name"] = "tiny"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="search space changed"):
        resume(folder, task=FakeTask())
    config["space"]["name"] = "spinenet49"
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(run_identity, "SEARCH_PROTOCOL", 99)
    with pytest.raises(UserError, match="searches differently"):
        resume(folder, task=FakeTask())


def test_a_run_of_an_earlier_recurrent_policy_is_refused_and_other_runs_do_not_record_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(configured(), controller=ControllerConfig(name="reinforce"))
    with monkeypatch.context() as earlier:
        earlier.setattr(ReinforceOptions, "protocol", 1)
        whole = run_search(config, out=tmp_path / "whole", task=FakeTask())
    assert "controller_protocol" not in (whole.folder.path / "journal.jsonl").read_text()
    folder = cut(whole, 12, tmp_path / "cut")
    with pytest.raises(UserError, match="cannot be resumed, its controller proposes other networks in this version"):
        resume(folder, task=FakeTask())
    present = run_search(config, out=tmp_path / "present", task=FakeTask())
    assert '"controller_protocol":2,' in (present.folder.path / "journal.jsonl").read_text()
    resume(cut(present, 12, tmp_path / "again"), task=FakeTask())


def test_a_lost_worker_costs_an_attempt_but_not_the_trial(tmp_path: Path, shuffled: Callable[..., None]) -> None:
    shuffled(0, lost={(2, 0): FailureKind.WORKER_LOST, (2, 1): FailureKind.WORKER_LOST})
    run = run_search(configured(), out=tmp_path / "run", task=FakeTask())
    record = run.records()[2]
    assert (record.status, record.attempt) == (Status.COMPLETE, 2)
    reasons = [event["reason"] for event in events_of(run) if event["event"] == "requeued"]
    assert reasons == [f"lost on purpose; that was attempt {attempt} of 4" for attempt in (1, 2)]


def test_a_trial_that_keeps_killing_its_worker_fails_in_the_end(tmp_path: Path, shuffled: Callable[..., None]) -> None:
    shuffled(0, lost={(2, attempt): FailureKind.WORKER_LOST for attempt in range(9)})
    record = run_search(configured(), out=tmp_path / "run", task=FakeTask()).records()[2]
    assert record.failure is not None
    assert (record.failure.kind, record.attempt) == (FailureKind.WORKER_LOST, 3)


def test_attempts_before_a_crash_count_after_it(tmp_path: Path, shuffled: Callable[..., None]) -> None:
    shuffled(0, lost={(2, attempt): FailureKind.WORKER_LOST for attempt in range(9)})
    whole = run_search(configured(), out=tmp_path / "whole", task=FakeTask())
    events = events_of(whole)
    requeued = [index for index, event in enumerate(events) if event["event"] == "requeued"]
    assert len(requeued) == 3
    # Trial 2 does not run at that moment, so that the crash itself costs no attempt.
    resumed = resume(cut(whole, requeued[1] + 1, tmp_path / "cut"), task=FakeTask())
    record = resumed.records()[2]
    assert record.failure is not None
    assert (record.failure.kind, record.attempt) == (FailureKind.WORKER_LOST, 3)


def test_lost_machines_do_not_count_against_a_trial(
    tmp_path: Path, shuffled: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spinenas.search.run.driver.pause_seconds", lambda num_losses: 0.0)
    shuffled(0, lost={(2, attempt): FailureKind.PREEMPTED for attempt in range(9)})
    record = run_search(configured(), out=tmp_path / "run", task=FakeTask()).records()[2]
    assert (record.status, record.attempt) == (Status.COMPLETE, 9)


def test_late_and_repeated_reports_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Noisy(ShuffledExecutor):
        """Reports everything twice, and finished trials once more."""

        def wait(self, on_event: Callable[[WorkerEvent], None], timeout_seconds: float | None) -> None:
            said: list[WorkerEvent] = []
            super().wait(said.append, timeout_seconds)
            for event in said:
                on_event(Finished(event.number, event.attempt + 1, Failure(FailureKind.BUG, "of another attempt")))
                on_event(event)
                on_event(event)
                if isinstance(event, Finished):
                    on_event(Finished(event.number - 1, event.attempt, event.result))

    monkeypatch.setattr(loop, "make_executor", lambda task, config, folder, note: Noisy(task, 1, 0, {}))
    run = run_search(configured(), out=tmp_path / "run", task=FakeTask())
    told = [event["number"] for event in events_of(run) if event["event"] == "told"]
    assert told == list(range(NUM_TRIALS))
    epochs = [(event["number"], event["epoch"]) for event in events_of(run) if event["event"] == "epoch"]
    assert epochs == sorted(set(epochs))
    assert {record.status for record in run.records()} == {Status.COMPLETE}


@pytest.mark.parametrize("ordered", [False, True])
def test_a_replayed_controller_is_told_the_same_in_the_same_order(
    ordered: bool, tmp_path: Path, shuffled: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Spy:
        """Records the calls of a controller; asking and replaying an ask are recorded alike."""

        def __init__(self, controller: Any):
            self.controller, self.calls = controller, []

        def ask(self) -> Any:
            proposal = self.controller.ask()
            if proposal is not None:
                self.calls.append(("asked", proposal))
            return proposal

        def replay_ask(self, proposal: Any) -> None:
            self.controller.replay_ask(proposal)
            self.calls.append(("asked", proposal))

        def tell(self, number: int, result: Any) -> bool:
            self.calls.append(("told", number, result))
            return bool(self.controller.tell(number, result))

    spies: list[Spy] = []
    make = loop.search_controller

    def spied(*given: Any) -> Any:
        spies.append(Spy(make(*given)))
        return spies[-1]

    monkeypatch.setattr(loop, "search_controller", spied)
    shuffled(3)
    whole = run_search(configured(ordered=ordered), out=tmp_path / "whole", task=FakeTask())
    live = spies[0].calls
    resume(cut(whole, len(events_of(whole)) - 1, tmp_path / "cut"), task=FakeTask())
    replayed = spies[1].calls
    assert len(live) > NUM_TRIALS
    assert replayed[: len(live) - 2] == live[: len(live) - 2]


def test_a_folder_with_a_run_is_refused_before_the_data_is_touched(tmp_path: Path) -> None:
    run_search(configured(1), out=tmp_path / "run", task=FakeTask())
    task = FakeTask()
    with pytest.raises(UserError, match="already holds a run"):
        run_search(configured(1), out=tmp_path / "run", task=task)
    assert task.num_prepared == 0


class Unstartable(ShuffledExecutor):
    """An executor whose workers do not fit on the cluster."""

    def __enter__(self) -> Self:
        raise UserError("no worker can start")


def test_a_search_whose_workers_cannot_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loop, "make_executor", lambda task, config, run, note: Unstartable(task, 1, 0, {}))
        with pytest.raises(UserError, match="no worker"):
            run_search(configured(1), out=tmp_path / "run", task=FakeTask())
    assert list(tmp_path.iterdir()) == []
    run_search(configured(1), out=tmp_path / "run", task=FakeTask())


def test_a_resumption_whose_workers_cannot_start_adds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_search(configured(), out=tmp_path / "whole", task=FakeTask(num_epochs=1))
    assert events_of(whole)[11]["event"] != "told"
    folder = cut(whole, 12, tmp_path / "cut")
    before = files_of(folder)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "make_executor", lambda task, config, run, note: Unstartable(task, 1, 0, {}))
        with pytest.raises(UserError, match="no worker"):
            resume(folder, task=FakeTask(num_epochs=1))
    assert files_of(folder) == before
    assert outcome(resume(folder, task=FakeTask(num_epochs=1))) == outcome(whole)


def files_of(folder: Path) -> dict[Path, bytes]:
    """Return the content of a run without its leases."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.parent.name != "lease"}


def test_a_run_can_be_resumed_at_another_address_with_other_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_search(configured(address="10.0.0.1:6379"), out=tmp_path / "whole", task=FakeTask())
    used: list[tuple[str | None, int]] = []

    def make(task: Any, config: ExecutorConfig, run: Path, note: Any) -> ShuffledExecutor:
        used.append((config.address, config.workers))
        return ShuffledExecutor(task, config.workers, 0, {})

    monkeypatch.setattr(loop, "make_executor", make)
    resume(cut(whole, 12, tmp_path / "a"), task=FakeTask())
    resume(cut(whole, 12, tmp_path / "b"), address="local", workers=2, task=FakeTask())
    assert used == [("10.0.0.1:6379", 3), ("local", 2)]


def test_two_drivers_cannot_run_one_run_at_a_time(tmp_path: Path) -> None:
    from spinenas.results.storage.journal import Journal

    whole = run_search(configured(), out=tmp_path / "whole", task=FakeTask())
    folder = cut(whole, 12, tmp_path / "cut")
    with Journal.open(folder / "journal.jsonl"), pytest.raises(UserError, match=f"process {os.getpid()} on host"):
        resume(folder, task=FakeTask())
