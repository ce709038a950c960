"""Searches whose controller pauses, continues and repeats trainings: the journal, resumption at any event, and ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_task import FakeTask
from scripted_driver import Play, kinds, lost, started
from searches import cut, events_of, fake, outcome, paused, timeless

import spinenas.search.run.lifecycle as loop
from spinenas.controller.base import BudgetSpent, Continuation, Proposal, Step
from spinenas.controller.predictor.freeze_thaw import FreezeThaw, FreezeThawOptions
from spinenas.controller.random_search import RandomSearch
from spinenas.results.record import Evaluation, Failure, FailureKind, Status
from spinenas.results.storage.accelerator_time import AcceleratorTime
from spinenas.results.storage.events import Asked, EpochDone, Event, Finished, Paused, Promoted, Started
from spinenas.results.storage.run_folder import CHECKPOINT
from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.config.parts import BudgetConfig, StorageConfig
from spinenas.search.executors.base import WorkerEvent
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.search.run.or_resume import search_or_resume
from spinenas.search.run.proposals import Proposals
from spinenas.search.run.run import Run
from spinenas.space import UserError
from spinenas.space.search_space import space_by_name

pytestmark = pytest.mark.usefixtures("no_fsync", "cached_features")


def task() -> FakeTask:
    return fake(5)


def steps_of(run: Run) -> list[dict[str, Any]]:
    """Return what the controller asked for and was told, without times and attempts."""
    return timeless(events_of(run), "asked", "promoted", "paused", "told")


def num_epochs_trained(events: list[dict[str, Any]]) -> int:
    """Return how many epochs the trials of a finished run have reached in all."""
    reached = {e["number"]: (e["evaluation"]["stopped_after"] or 5) for e in events if e["event"] == "told"}
    return sum(reached.values())


# A search


def test_trainings_pause_go_on_and_are_repeated_within_the_budget_of_epochs(tmp_path: Path) -> None:
    run = run_search(paused(), out=tmp_path / "run", task=task())
    events, records = events_of(run), run.records()
    assert len(records) > 6, "pausing leaves epochs for more trials than the budget has whole trainings"
    assert {record.status for record in records} == {Status.COMPLETE, Status.PRUNED}
    assert any(record.replicate for record in records)
    promoted = [event for event in events if event["event"] == "promoted"]
    assert {event["until"] for event in promoted} == {3, None}
    assert 25 < num_epochs_trained(events) <= 30
    for record in records:
        assert record.evaluation is not None
        length = record.evaluation.stopped_after or 5
        curve = run.folder.read_curve(record.number)
        assert [(entry["epoch"], entry["AP"]) for entry in curve] == list(record.evaluation.by_epoch)
        assert len(curve) == length
        assert record.evaluation.objective == curve[-1]["AP"]


def test_paused_trainings_end_last_with_the_results_of_their_pauses(tmp_path: Path) -> None:
    events = events_of(run_search(paused(), out=tmp_path / "run", task=task()))
    ends = [event for event in events if event.get("status") == "pruned"]
    assert ends == events[-len(ends) :]
    assert [event["number"] for event in ends] == sorted(event["number"] for event in ends)
    last = {event["number"]: event["evaluation"] for event in events if event["event"] == "paused"}
    assert all(event["evaluation"] == last[event["number"]] for event in ends)


def test_a_failed_continuation_fails_its_trial_alone(tmp_path: Path, shuffled: Callable[..., None]) -> None:
    shuffled(0, lost={(0, attempt): FailureKind.WORKER_LOST for attempt in range(1, 9)})
    run = run_search(paused(), out=tmp_path / "run", task=task())
    first, *others = run.records()
    assert first.failure is not None
    assert (first.failure.kind, first.attempt) == (FailureKind.WORKER_LOST, 4)
    assert all(record.failure is None for record in others)


# Resumption


@pytest.mark.parametrize("kind", ["serial", "ordered", "free"])
def test_a_run_cut_after_any_event_becomes_the_uninterrupted_one(
    kind: str, tmp_path: Path, shuffled: Callable[..., None]
) -> None:
    failing = replace(task(), fail={4: "diverged"})
    config = paused(ordered=kind == "ordered")
    if kind != "serial":
        shuffled(seed=1)
    whole = run_search(config, out=tmp_path / "whole", task=failing)
    before = events_of(whole)
    assert {"paused", "promoted", "asked", "told"} <= set(kinds(before))
    for num_events in range(1, len(before)):
        if before[num_events - 1]["event"] == "epoch":
            continue
        if kind != "serial":
            shuffled(seed=num_events)  # the order of arrival changes
        resumed = resume(cut(whole, num_events, tmp_path / f"cut{num_events}"), task=failing)
        events = events_of(resumed)
        told = [event["number"] for event in events if event["event"] == "told"]
        assert sorted(told) == list(range(len(resumed.records()))), "each trial has one result"
        pauses = [(e["number"], e["evaluation"]["stopped_after"]) for e in events if e["event"] == "paused"]
        assert len(pauses) == len(set(pauses)), "no rung is trained again"
        if kind == "free":
            assert steps_of(resumed)[: len(timeless(before[:num_events], "asked", "promoted", "paused", "told"))] == (
                timeless(before[:num_events], "asked", "promoted", "paused", "told")
            )
            continue
        assert outcome(resumed) == outcome(whole), f"cut after event {num_events}"
        if kind == "serial":
            assert steps_of(resumed) == steps_of(whole)


def test_an_ordered_run_does_not_depend_on_the_order_of_arrival(tmp_path: Path, shuffled: Callable[..., None]) -> None:
    outcomes = []
    for seed in range(4):
        shuffled(seed)
        outcomes.append(outcome(run_search(paused(ordered=True), out=tmp_path / f"{seed}", task=task())))
    assert all(other == outcomes[0] for other in outcomes)
    shuffled(0)
    assert outcome(run_search(paused(), out=tmp_path / "free", task=task())) != outcomes[0]


class Spy:
    """Records the calls of a controller; asking and replaying an ask are recorded alike."""

    def __init__(self, controller: Any):
        self.controller, self.calls = controller, []
        self.num_epochs = 0

    def ask(self) -> Step | None:
        step: Step | None = self.controller.ask()
        if step is not None:
            self.calls.append(("asked", step))
        return step

    def replay_ask(self, step: Step) -> None:
        self.controller.replay_ask(step)
        self.calls.append(("asked", step))

    def tell(self, number: int, result: Any) -> bool:
        self.calls.append(("told", number, result))
        return bool(self.controller.tell(number, result))


@pytest.fixture
def spies(monkeypatch: pytest.MonkeyPatch) -> list[Spy]:
    """Record the calls of each controller that a search makes."""
    made: list[Spy] = []
    make = loop.search_controller

    def spied(*given: Any) -> Any:
        made.append(Spy(make(*given)))
        return made[-1]

    monkeypatch.setattr(loop, "search_controller", spied)
    return made


@pytest.mark.parametrize("ordered", [False, True])
def test_a_replayed_controller_is_told_the_same_in_the_same_order(
    ordered: bool, tmp_path: Path, shuffled: Callable[..., None], spies: list[Spy]
) -> None:
    shuffled(3)
    whole = run_search(paused(ordered=ordered), out=tmp_path / "whole", task=task())
    resume(cut(whole, len(events_of(whole)) - 3, tmp_path / "cut"), task=task())
    live, replayed = spies[0].calls, spies[1].calls
    assert sum(isinstance(call[1], Continuation) for call in live) > 3
    assert replayed == live


@pytest.mark.parametrize("rungs", [None, (), (2,)])
def test_a_finished_run_is_left_as_it_is(rungs: tuple[int, ...] | None, tmp_path: Path) -> None:
    config = paused()
    options = replace(config.controller.chosen, rungs=rungs)
    config = replace(config, controller=ControllerConfig("freeze-thaw", freeze_thaw=options))
    run = run_search(config, out=tmp_path / "run", task=task())
    before = run.folder.journal_path.read_bytes()
    again = task()
    resume(tmp_path / "run", task=again)
    search_or_resume(config, out=tmp_path / "run", task=again)
    assert run.folder.journal_path.read_bytes() == before
    assert again.num_prepared == 0
    assert run.unfinished(run.state()) is None


def test_a_run_without_paused_trials_is_not_finished_before_its_epochs_are_spent(tmp_path: Path) -> None:
    config = paused()
    options = FreezeThawOptions(num_random=3, num_candidates=4, rungs=())
    config = replace(config, controller=ControllerConfig("freeze-thaw", freeze_thaw=options))
    whole = run_search(config, out=tmp_path / "whole", task=task())
    events = events_of(whole)
    third = [index for index, event in enumerate(events) if event["event"] == "told"][2]
    resumed = resume(cut(whole, third + 1, tmp_path / "cut"), task=task())
    assert outcome(resumed) == outcome(whole)
    assert len(resumed.records()) == 6


@pytest.mark.parametrize("ordered", [False, True])
def test_a_larger_budget_extends_a_finished_run_and_continues_no_ended_trial(
    ordered: bool, tmp_path: Path, shuffled: Callable[..., None]
) -> None:
    shuffled(2)
    run_search(paused(ordered=ordered), out=tmp_path / "run", task=task())
    before = events_of(Run.open(tmp_path / "run"))
    extended = resume(tmp_path / "run", num_trials=9, task=task())
    events = events_of(extended)
    assert events[: len(before)] == before
    assert not {e["number"] for e in before if e["event"] == "told"} & {e.get("number") for e in events[len(before) :]}
    assert num_epochs_trained(before) < num_epochs_trained(events) <= 45
    for num_events in (len(before) + 1, len(before) + 2, len(events) - 20, len(events) - 2):
        again = resume(cut(extended, num_events, tmp_path / f"cut{num_events}"), num_trials=9, task=task())
        assert num_epochs_trained(events_of(again)) <= 45
        if ordered:
            assert outcome(again) == outcome(extended)


def test_a_run_that_was_killed_while_its_trials_ended_can_be_extended(tmp_path: Path) -> None:
    whole = run_search(paused(), out=tmp_path / "whole", task=task())
    folder = cut(whole, len(events_of(whole)) - 2, tmp_path / "cut")
    left = {record.number for record in Run.open(folder).state().unfinished}
    assert len(left) == 2
    extended = resume(folder, num_trials=9, task=task())
    assert sorted(event["number"] for event in events_of(extended) if event["event"] == "told") == list(
        range(len(extended.records()))
    )
    assert 30 < num_epochs_trained(events_of(extended)) <= 45


def test_a_run_that_was_killed_while_its_trials_ended_asks_for_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_search(paused(), out=tmp_path / "whole", task=task())
    folder = cut(whole, len(events_of(whole)) - 2, tmp_path / "cut")

    def ask(controller: FreezeThaw) -> Step | None:
        raise AssertionError("its budget was spent before the trials ended")

    monkeypatch.setattr(FreezeThaw, "ask", ask)
    assert outcome(resume(folder, task=task())) == outcome(whole)


def test_a_budget_in_epochs_is_kept_extended_and_never_reduced(tmp_path: Path) -> None:
    config = replace(paused(), budget=BudgetConfig(replicate_share=0.2, epochs=26))
    run = run_search(config, out=tmp_path / "run", task=task())
    assert 20 < num_epochs_trained(events_of(run)) <= 26
    before = run.folder.journal_path.read_bytes()
    search_or_resume(config, out=tmp_path / "run", task=task())
    assert run.folder.journal_path.read_bytes() == before, "100 trials are the default, and were not asked for"
    with pytest.raises(UserError, match="a budget of 26 epochs; it can be extended, but not reduced to 20"):
        resume(tmp_path / "run", num_epochs=20, task=task())
    larger = replace(config, budget=replace(config.budget, epochs=34))
    assert 26 < num_epochs_trained(events_of(search_or_resume(larger, out=tmp_path / "run", task=task()))) <= 34
    assert 34 < num_epochs_trained(events_of(resume(tmp_path / "run", num_trials=9, task=task()))) <= 45


def test_an_interrupted_run_says_how_many_epochs_it_has_asked_for(tmp_path: Path) -> None:
    whole = run_search(paused(), out=tmp_path / "whole", task=task())
    folder = cut(whole, 5, tmp_path / "cut")
    assert kinds(events_of(Run.open(folder))) == ["run_started", "asked", "started", "epoch", "paused"]
    run = Run.open(folder)
    words = run.unfinished(run.state())
    assert words is not None
    assert words.startswith("0.2 of 6 trainings' worth of epochs are used; continue the search with: spinenas resume")


# Checkpoints


class Checkpointing(FakeTask):
    """A fake task whose attempts continue from a checkpoint, and that lists the epochs that it trains."""

    trained: list[tuple[int, int]]

    def evaluate(self, genotype: Any, **how: Any) -> Evaluation | Failure:
        path, report = how["folder"] / CHECKPOINT, how.pop("report")
        begun = int(path.read_text()) if path.exists() else 0

        def kept(epoch: int, figures: dict[str, float]) -> None:
            if epoch > begun:
                self.trained.append((int(how["folder"].name), epoch))
                path.write_text(str(epoch))
                report(epoch, figures)

        return super().evaluate(genotype, report=kept, **how)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_paused_trial_keeps_its_checkpoint_until_it_ends(mirrored: bool, tmp_path: Path) -> None:
    checkpointing = Checkpointing(num_epochs=5, measures_ap=True)
    checkpointing.trained = []
    mirror = (tmp_path / "mirror").as_uri() if mirrored else None
    config = replace(paused(), storage=StorageConfig(mirror=mirror))
    run = run_search(config, out=tmp_path / "run", task=checkpointing)
    assert len(set(checkpointing.trained)) == len(checkpointing.trained) == 30, "no epoch is trained twice"
    assert not list(tmp_path.rglob(CHECKPOINT))
    assert any(record.attempt for record in run.records())


# The driver, event by event


class Scripted(RandomSearch):
    """Proposes random networks up to epoch 1, then continues the first of them to the end."""

    num_epochs = 0

    def ask(self) -> Step | None:
        if self._ledger.next_number < 2:
            proposal = super().ask()
            assert isinstance(proposal, Proposal)
            return replace(proposal, until=1)
        if 0 in self.told and not self.continued:
            self.continued = True
            return Continuation(0)
        if len(self.told) < 3:
            return None
        raise BudgetSpent("three steps")

    def tell(self, number: int, result: Any) -> bool:
        self.told.append(number)
        return True


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Play]:
    """Return a function that makes a driver with a script, whose controller asks for three steps."""

    def make(space: Any, seed: int) -> Scripted:
        controller = Scripted(space_by_name("tiny"), seed=seed)
        controller.told, controller.continued = [], False
        return controller

    monkeypatch.setattr("scripted_driver.RandomSearch", make)
    config = replace(paused(), budget=BudgetConfig(2))
    return lambda *script, **options: Play(tmp_path, [list(events) for events in script], config=config, **options)


AT_RUNG, AT_END = Evaluation(0.2, stopped_after=1), Evaluation(0.4)


def rung(number: int, attempt: int = 0) -> list[WorkerEvent]:
    return [started(number, attempt), EpochDone(number, attempt, 1, {}), Paused(number, attempt, AT_RUNG)]


def test_a_paused_trial_refuses_every_further_report(play: Callable[..., Play]) -> None:
    late: list[WorkerEvent] = [
        Paused(0, 0, AT_RUNG),
        Finished(0, 0, AT_END),
        EpochDone(0, 0, 2, {}),
        lost(0, 0, FailureKind.WORKER_LOST),
        Finished(0, 1, AT_END),
    ]
    played = play([*rung(0), *late], num_slots=1)
    events = played.run()
    assert kinds(events) == ["asked", "started", "epoch", "paused", *["refused"] * 4, "asked"]
    reasons = [event["reason"] for event in events if event["event"] == "refused"]
    assert reasons == [*["the attempt is paused already"] * 3, "attempt 1 was never begun"]


def test_late_reports_of_an_abandoned_attempt_change_nothing_while_the_trial_is_paused(
    play: Callable[..., Play],
) -> None:
    late: list[WorkerEvent] = [Finished(0, 0, Failure(FailureKind.DIVERGED, "late")), Paused(0, 0, AT_RUNG)]
    played = play([started(0), lost(0, 0, FailureKind.WORKER_LOST)], [*rung(0, 1), *late], num_slots=1)
    events = played.run()
    assert kinds(events)[-4:] == ["paused", "refused", "refused", "asked"]
    assert {event["reason"] for event in events if event["event"] == "refused"} == {"the trial is paused already"}


def test_a_worker_that_is_lost_in_a_continued_attempt_costs_that_attempt_alone(play: Callable[..., Play]) -> None:
    script = [
        rung(0),
        rung(1),
        [started(0, 1), lost(0, 1, FailureKind.WORKER_LOST)],
        [Paused(0, 0, AT_RUNG), started(0, 2), Finished(0, 2, AT_END)],
    ]
    played = play(*script, num_slots=1)
    events = played.run()
    assert [(job.number, job.attempt, job.until) for job in played.executor.jobs] == [
        (0, 0, 1), (1, 0, 1), (0, 1, None), (0, 2, None)
    ]  # fmt: skip
    assert [(event["number"], event["status"]) for event in events[-2:]] == [(0, "complete"), (1, "pruned")]
    assert events[-1]["evaluation"]["stopped_after"] == 1
    assert events[-2]["evaluation"]["objective"] == 0.4


# Proposals


class Recorder:
    """A controller that proposes trials with pauses and continues the trials of a list; it notes its calls."""

    def __init__(self, steps: list[Step | None]) -> None:
        self._steps, self.calls = steps, []
        self.num_epochs = 0

    def ask(self) -> Step | None:
        self.calls.append("ask")
        if not self._steps:
            raise BudgetSpent("no step is left")
        return self._steps.pop(0)

    def tell(self, number: int, result: Evaluation | Failure) -> bool:
        assert isinstance(result, Evaluation)
        self.calls.append((number, result.objective))
        return True

    def end_search(self) -> None:
        self.calls.append("end_search")


GENOTYPE = space_by_name("tiny").sample(np.random.default_rng(0))


def proposal(number: int) -> Proposal:
    return Proposal(number, GENOTYPE, until=1)


def exchange(steps: list[Step | None], *, window: int | None, budget: BudgetConfig | None = None) -> Any:
    controller = Recorder(steps)
    proposals = Proposals(controller, budget or BudgetConfig(1), window=window, note=lambda text: None)  # type: ignore[arg-type]

    def ask() -> Step | None:
        return proposals.ask(AcceleratorTime(), now="2030-01-01T00:00:00+00:00", num_open=0)

    return proposals, controller, ask


def test_results_of_steps_are_told_as_they_arrive() -> None:
    proposals, controller, ask = exchange([proposal(0), proposal(1), Continuation(1), None], window=None)
    ask(), ask()
    proposals.finish(1, Evaluation(0.1))
    assert ask() == Continuation(1)
    proposals.finish(1, Evaluation(0.2))
    proposals.finish(0, Evaluation(0.3))
    assert controller.calls == ["ask", "ask", (1, 0.1), "ask", (1, 0.2), (0, 0.3)]
    assert (proposals.num_asked, proposals.num_told) == (2, 3)


def test_an_ordered_run_tells_results_in_the_order_of_the_steps() -> None:
    steps = [proposal(0), proposal(1), None, Continuation(0), Continuation(1)]
    proposals, controller, ask = exchange(steps, window=2)
    ask(), ask()
    proposals.finish(1, Evaluation(0.1))
    assert ask() is None, "the first step has no result"
    proposals.finish(0, Evaluation(0.2))
    assert ask() == Continuation(0), "the controller was told one more result, as it had no step"
    assert controller.calls == ["ask", "ask", (0, 0.2), "ask", (1, 0.1), "ask"]
    assert ask() == Continuation(1)
    proposals.finish(1, Evaluation(0.3))
    assert ask() is None, "the third step has no result"
    proposals.finish(0, Evaluation(0.4))
    assert ask() is None
    assert controller.calls[7:] == [(0, 0.4), "ask"]
    assert proposals.is_all_asked


@pytest.mark.parametrize("window", [None, 2])
def test_the_end_of_a_paused_trial_is_told_at_once_and_last(window: int | None) -> None:
    proposals, controller, ask = exchange([proposal(0), proposal(1)], window=window)
    ask(), ask()
    proposals.finish(1, Evaluation(0.1))
    proposals.finish(0, Evaluation(0.2))
    proposals.end(0, Evaluation(0.2))
    proposals.end(1, Evaluation(0.1))
    assert controller.calls[-2:] == [(0, 0.2), (1, 0.1)]
    assert sorted(controller.calls[2:4]) == [(0, 0.2), (1, 0.1)]
    assert proposals.num_told == 4


def test_a_controller_that_counts_epochs_may_propose_more_trials_than_the_budget_has() -> None:
    _, _, ask = exchange([proposal(0), proposal(1)], window=None)
    assert [ask(), ask(), ask()] == [proposal(0), proposal(1), None]


# Time


def test_the_last_share_of_the_hours_is_for_the_last_stage_of_the_search() -> None:
    steps: list[Step | None] = [proposal(0), proposal(1), None]
    proposals, controller, _ = exchange(steps, window=None, budget=BudgetConfig(9, 0.2, max_accelerator_hours=10.0))
    taken = AcceleratorTime()
    taken.add(Started(0, 0, "w", "cpu", "float32", at="2030-01-01T00:00:00+00:00"))
    assert proposals.ask(taken, now="2030-01-01T07:00:00+00:00", num_open=1) is not None
    assert "end_search" not in controller.calls
    assert proposals.ask(taken, now="2030-01-01T08:30:00+00:00", num_open=1) is not None
    assert controller.calls == ["ask", "end_search", "ask"]
    assert proposals.ask(taken, now="2030-01-01T10:30:00+00:00", num_open=1) is None
    assert proposals.is_all_asked


def test_the_time_of_a_further_step_is_predicted_from_steps() -> None:
    taken = AcceleratorTime()
    events: list[Event] = [
        Asked(proposal(0).to_json(), "key", 0, "task", 0, at="2030-01-01T00:00:00+00:00"),
        Started(0, 0, "w", "cpu", "float32", at="2030-01-01T00:00:00+00:00"),
        Paused(0, 0, AT_RUNG, at="2030-01-01T01:00:00+00:00"),
        Promoted(0, 1, 1, 0.2, 1, None, at="2030-01-01T01:00:00+00:00"),
        Started(0, 1, "w", "cpu", "float32", at="2030-01-01T01:00:00+00:00"),
        Finished(0, 1, AT_END, at="2030-01-01T04:00:00+00:00"),
    ]
    for event in events:
        taken.add(event)
    assert taken.hours_with_others("2030-01-01T05:00:00+00:00", 1) == pytest.approx(4 + 2)


def test_a_run_out_of_hours_ends_its_paused_trials_and_is_finished(tmp_path: Path) -> None:
    config = replace(paused(), budget=BudgetConfig(6, 0.2, max_accelerator_hours=0.5 / 3600))
    run = run_search(config, out=tmp_path / "run", task=replace(task(), epoch_seconds=0.05))
    records = run.records()
    assert Status.PRUNED in {record.status for record in records}
    assert num_epochs_trained(events_of(run)) < 20
    before = run.folder.journal_path.read_bytes()
    resume(tmp_path / "run", task=task())
    assert run.folder.journal_path.read_bytes() == before
    extended = resume(tmp_path / "run", max_accelerator_hours=1.0, task=task())
    assert len(extended.records()) > len(records)
