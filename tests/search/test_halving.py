"""Early stopping: the rule, and its use by the driver, with every step in the journal."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_task import FakeTask
from halving_reference import judged, misjudged
from rich.console import Console
from scripted_driver import Play, kinds, lost, started
from searches import NUM_EPOCHS, RUNGS, configured, cut, events_of, fake, halved, outcome, timeless

from spinenas.controller.base import Proposal
from spinenas.controller.registry import make_controller
from spinenas.controller.replicates import ReplicateLeaders
from spinenas.results.leaderboard import leaderboard_rows
from spinenas.results.record import Evaluation, FailureKind, Stage, Status, TrialRecord
from spinenas.results.storage.accelerator_time import AcceleratorTime
from spinenas.results.storage.events import (
    Asked,
    EpochDone,
    Event,
    Finished,
    Paused,
    Promoted,
    Requeued,
    Resumed,
    Skipped,
    Started,
)
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.parts import BudgetConfig, HalvingConfig
from spinenas.search.executors.base import Job, WorkerEvent
from spinenas.search.executors.worker import run_job
from spinenas.search.monitoring.display import LiveDisplay, PlainDisplay
from spinenas.search.monitoring.progress import Progress
from spinenas.search.run.halving import Halving
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.search.run.or_resume import search_or_resume
from spinenas.search.run.run import Run
from spinenas.search.studies.fidelities import halving_options
from spinenas.search.studies.measured_curves import measured_curves
from spinenas.space import SearchSpace, UserError
from spinenas.space.published import SPINENET_49
from spinenas.space.search_space import space_by_name

pytestmark = pytest.mark.usefixtures("no_fsync")


# The rule


@pytest.mark.parametrize("by_number", [False, True])
@pytest.mark.parametrize(("reduction", "min_results"), [(3.0, 4), (2.0, 1), (1.5, 5), (4.0, 2)])
def test_a_verdict_equals_that_of_brute_force(by_number: bool, reduction: float, min_results: int) -> None:
    rng = np.random.default_rng(7)
    halving = Halving(HalvingConfig((2, 5), reduction, min_results), by_number=by_number)
    came: list[tuple[int, float]] = []
    verdicts = []
    for number in rng.permutation(60).tolist():
        ap = float(rng.integers(20)) / 20  # with equals
        halving.add(number, 5, ap)
        came.append((number, ap))
    for number, ap in came:
        before = [other for other in came if other[0] < number] if by_number else came[: came.index((number, ap))]
        verdicts.append(halving.should_continue(number, 5))
        assert verdicts[-1] == judged([*(other for _, other in before), ap], reduction, min_results)
    assert 5 < sum(verdicts) < 55, "otherwise the rule was not tested"


def test_a_verdict_by_number_waits_until_lower_numbers_are_at_the_rung() -> None:
    halving = Halving(HalvingConfig((2, 5)), by_number=True)
    halving.add(0, 5, 0.5)
    assert halving.can_judge(5, [0])
    assert not halving.can_judge(2, [0])


def test_the_best_so_far_always_continues() -> None:
    halving = Halving(HalvingConfig((1,), reduction=100.0, min_results=1))
    for number in range(9):
        halving.add(number, 1, 0.1 * number)
        assert halving.should_continue(number, 1)


def test_rungs_follow_one_another_below_the_end() -> None:
    halving = Halving(HalvingConfig((2, 4, 6)))
    assert [halving.next_rung(after=epoch, below=6) for epoch in (0, 2, 3, 4)] == [2, 4, 4, None]
    assert Halving(HalvingConfig()).next_rung(after=0, below=9) is None


# The configuration


@pytest.mark.parametrize(
    ("halving", "epochs", "every", "words"),
    [
        ({"rungs": (2, 1)}, 4, 1, r"halving.rungs is \[2, 1\]; it lists epochs, 1 or more, each above the last"),
        ({"rungs": (0,)}, 4, 1, r"halving.rungs is \[0\]"),
        ({"reduction": 1.0}, 4, 1, "halving.reduction is 1.0; it is a number above 1"),
        ({"min_results": 0}, 4, 1, "halving.min_results is 0"),
        ({"rungs": (2, 4)}, 4, 1, "has 4, but task.train.epochs is 4; every rung is below it"),
        ({"rungs": (2, 3)}, 4, 2, "has 3, but AP is not measured after that epoch, .* is 2; set it to 1, or"),
        ({"rungs": (2, 4)}, 6, 0, "has 2, but AP is not measured after that epoch, .* is 0; set it to 2, or"),
    ],
)
def test_impossible_rungs_are_refused_with_the_remedy(
    halving: dict[str, Any], epochs: int, every: int, words: str
) -> None:
    document = {"task": {"train": {"epochs": epochs}, "eval": {"every_epochs": every}}, "halving": halving}
    with pytest.raises(UserError, match=words):
        SearchConfig.from_json(document)


def test_options_without_rungs_cause_a_warning() -> None:
    config = replace(SearchConfig(), halving=HalvingConfig(reduction=4.0))
    assert config.unused() == ["halving.reduction has no effect, since halving.rungs is empty"]
    assert halved().unused() == []


def test_a_configuration_of_an_earlier_version_has_no_rungs_and_its_run_resumes(tmp_path: Path) -> None:
    whole = run_search(configured(), out=tmp_path / "whole", task=FakeTask())
    folder = cut(whole, 12, tmp_path / "cut")
    config = json.loads((folder / "config.json").read_text())
    del config["halving"]
    (folder / "config.json").write_text(json.dumps(config))
    assert outcome(resume(folder, task=FakeTask())) == outcome(whole)


def test_other_rungs_are_another_search(tmp_path: Path) -> None:
    run_search(halved(3), out=tmp_path / "run", task=fake())
    with pytest.raises(UserError, match=r"its halving\.min_results is 2, not 3"):
        search_or_resume(halved(3, replace(RUNGS, min_results=3)), out=tmp_path / "run", task=fake())


# A search


def statuses(run: Run) -> list[Status]:
    return [record.status for record in run.records()]


def test_trials_pause_at_rungs_and_then_continue_or_end(tmp_path: Path) -> None:
    run = run_search(halved(), out=tmp_path / "run", task=fake())
    assert misjudged(events_of(run), RUNGS, by_number=False) == []
    records = run.records()
    stopped = [record for record in records if record.status is Status.PRUNED]
    assert 4 < len(stopped) < 14
    assert {record.evaluation and record.evaluation.stopped_after for record in stopped} == {1, 2}
    for record in records:
        assert record.evaluation is not None
        length = record.evaluation.stopped_after or NUM_EPOCHS
        curve = run.folder.read_curve(record.number)
        assert [entry["epoch"] for entry in curve] == list(range(1, length + 1))
        assert curve[-1]["AP"] == record.evaluation.objective
    promoted = [event for event in events_of(run) if event["event"] == "promoted"]
    assert all(event["attempt"] == 1 + RUNGS.rungs.index(event["epoch"]) for event in promoted)


def test_a_complete_trial_has_the_same_result_with_and_without_rungs(tmp_path: Path) -> None:
    run = run_search(halved(), out=tmp_path / "run", task=fake())
    (record, *_) = [record for record in run.records() if record.status is Status.COMPLETE]
    unpaused = run_search(halved(halving=HalvingConfig()), out=tmp_path / "unpaused", task=fake()).records()
    assert record.evaluation == unpaused[record.number].evaluation
    assert run.folder.read_curve(record.number) == Run.open(tmp_path / "unpaused").folder.read_curve(record.number)


def test_replicates_are_never_paused_and_stopped_trials_never_lead(tmp_path: Path) -> None:
    config = replace(halved(20), budget=BudgetConfig(20, 0.3))
    run = run_search(config, out=tmp_path / "run", task=fake())
    replicates = [record for record in run.records() if record.stage is Stage.RERANK]
    assert len(replicates) == 3  # one for each leader, which settles the winner: this task has no noise
    assert {record.status for record in replicates} == {Status.COMPLETE}
    assert misjudged(events_of(run), RUNGS, by_number=False) == []
    whole = {
        record.network_key for record in run.records() if record.status is Status.COMPLETE and not record.replicate
    }
    assert {record.network_key for record in replicates} <= whole
    winner = run.winner()
    assert winner is not None
    assert winner.status is Status.COMPLETE


def test_a_stopped_trial_with_the_highest_ap_does_not_lead() -> None:
    controller = ReplicateLeaders(make_controller("random", space_by_name("tiny"), seed=0), num_trials=10, share=0.2)
    for number in range(8):
        assert controller.ask() is not None
        controller.tell(number, Evaluation(0.9, stopped_after=2) if number in (1, 2, 3) else Evaluation(0.1 * number))
    leaders = {proposal.parent for proposal in (controller.ask(), controller.ask()) if proposal is not None}
    assert leaders == {7, 6}


def test_the_leaderboard_ranks_only_complete_trainings(tmp_path: Path) -> None:
    rows = leaderboard_rows(run_search(halved(), out=tmp_path / "run", task=fake()).records())
    assert {row["status"] for row in rows if row["objective"] is not None} == {"complete"}
    assert {row["status"] for row in rows if row["objective"] is None} == {"pruned"}
    with pytest.raises(UserError, match="stopped 9 trainings early, so that weak ones are missing"):
        halving_options(measured_curves(tmp_path / "run"))


@pytest.mark.parametrize("seed", range(3))
def test_trials_of_a_free_running_search_are_judged_in_the_order_of_the_journal(
    seed: int, tmp_path: Path, shuffled: Callable[..., None]
) -> None:
    shuffled(seed)
    run = run_search(halved(), out=tmp_path / "run", task=fake())
    assert misjudged(events_of(run), RUNGS, by_number=False) == []
    came = [event["number"] for event in events_of(run) if event["event"] == "paused"]
    assert came != sorted(came), "otherwise the order was not tested"


def test_an_ordered_run_is_judged_by_numbers_whatever_the_order_of_arrival(
    tmp_path: Path, shuffled: Callable[..., None]
) -> None:
    outcomes = []
    for seed in range(4):
        shuffled(seed)
        run = run_search(halved(ordered=True), out=tmp_path / f"{seed}", task=fake())
        assert misjudged(events_of(run), RUNGS, by_number=True) == []
        outcomes.append((outcome(run), statuses(run)))
    assert all(other == outcomes[0] for other in outcomes)
    assert Status.PRUNED in outcomes[0][1]
    came = [event["number"] for event in events_of(run) if event["event"] == "paused"]
    assert came != sorted(came), "otherwise no trial waited"


@pytest.mark.parametrize("kind", ["serial", "ordered", "free"])
def test_a_halved_run_cut_after_any_event_becomes_the_uninterrupted_one(
    kind: str, tmp_path: Path, shuffled: Callable[..., None]
) -> None:
    task = replace(fake(), fail={4: "diverged"})
    config = replace(halved(12, ordered=kind == "ordered"), budget=BudgetConfig(12, 0.2))
    if kind != "serial":
        shuffled(seed=1)
    whole = run_search(config, out=tmp_path / "whole", task=task)
    assert {Status.COMPLETE, Status.PRUNED, Status.FAILED} == set(statuses(whole))
    before = events_of(whole)
    for num_events in range(1, len(before)):
        if kind != "serial":
            shuffled(seed=num_events)  # the order of arrival changes
        resumed = resume(cut(whole, num_events, tmp_path / f"cut{num_events}"), task=task)
        assert misjudged(events_of(resumed), RUNGS, by_number=kind == "ordered") == []
        if kind == "free":
            told = [event["number"] for event in events_of(resumed) if event["event"] == "told"]
            assert sorted(told) == list(range(12))
            continue
        assert outcome(resumed) == outcome(whole), f"cut after event {num_events}"
        assert statuses(resumed) == statuses(whole)
        for number in range(12):
            curve = resumed.folder.read_curve(number)  # nothing where the trial had ended before the cut
            assert curve in ((), whole.folder.read_curve(number))
        if kind == "serial":
            steps = ("asked", "promoted", "told")
            assert timeless(events_of(resumed), *steps) == timeless(before, *steps)


def test_a_worker_lost_between_rungs_costs_an_attempt_but_not_the_verdict(
    tmp_path: Path, shuffled: Callable[..., None]
) -> None:
    shuffled(0, lost={(0, 1): FailureKind.WORKER_LOST, (0, 2): FailureKind.WORKER_LOST})
    run = run_search(halved(ordered=True), out=tmp_path / "run", task=fake())
    shuffled(0)
    whole = run_search(halved(ordered=True), out=tmp_path / "whole", task=fake())
    assert outcome(run) == outcome(whole)
    of_first = [event["event"] for event in events_of(run) if event.get("number") == 0 and event["event"] != "epoch"]
    assert of_first[:8] == ["started", "paused", "promoted", "started", "requeued", "started", "requeued", "started"]
    assert run.records()[0].attempt == whole.records()[0].attempt + 2


def test_losses_are_counted_across_rungs_and_a_failed_trial_does_not_block_verdicts(
    tmp_path: Path, shuffled: Callable[..., None]
) -> None:
    shuffled(0, lost={(0, attempt): FailureKind.WORKER_LOST for attempt in (0, 2, 3, 4, 5)})
    run = run_search(halved(ordered=True, max_attempts=3), out=tmp_path / "run", task=fake())
    first = run.records()[0]
    assert first.failure is not None
    assert (first.failure.kind, first.attempt) == (FailureKind.WORKER_LOST, 3)
    assert misjudged(events_of(run), RUNGS, by_number=True) == []
    assert len(run.records()) == 16


# Reports, one by one


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., Play]:
    def make(*script: list[WorkerEvent], num_trials: int = 1, **options: Any) -> Play:
        return Play(tmp_path, list(script), config=halved(num_trials, HalvingConfig((2,))), **options)

    return make


def paused(number: int, attempt: int, objective: float, epoch: int = 2) -> Paused:
    return Paused(number, attempt, Evaluation(objective, stopped_after=epoch))


def test_a_job_pauses_at_its_rung_and_the_next_job_runs_to_the_end(play: Callable[..., Play]) -> None:
    played = play([started(0), paused(0, 0, 0.5)], [started(0, 1), Finished(0, 1, Evaluation(0.7))])
    played.task_epochs = NUM_EPOCHS
    events = played.run()
    assert kinds(events) == ["asked", "started", "paused", "promoted", "started", "told"]
    assert [(job.attempt, job.until) for job in played.executor.jobs] == [(0, 2), (1, None)]
    assert events[-1]["evaluation"]["objective"] == 0.7


def test_a_promoted_trial_is_submitted_before_new_ones(play: Callable[..., Play]) -> None:
    played = play([started(0)], [started(1), paused(1, 0, 0.5)], num_trials=9, num_slots=2)
    played.task_epochs = NUM_EPOCHS
    played.run()
    assert [(job.number, job.attempt) for job in played.executor.jobs] == [(0, 0), (1, 0), (1, 1)]


@pytest.mark.parametrize(
    "end",
    [
        lost(0, 0, FailureKind.DIVERGED),  # before its rung
        Finished(0, 0, Evaluation(0.1)),  # past its rung without a pause, which no real task does
        paused(0, 0, 0.1),
    ],
    ids=["fails", "ends", "pauses"],
)
def test_in_an_ordered_run_a_trial_waits_until_the_one_before_has_paused_or_ended(
    end: WorkerEvent, play: Callable[..., Play]
) -> None:
    played = play([started(0), started(1), paused(1, 0, 0.5)], [], [end], num_trials=2, num_slots=2)
    played.task_epochs, played.window = NUM_EPOCHS, 2
    wait, waiting = played.executor.wait, []

    def watched(on_event: Any, timeout_seconds: float | None) -> None:
        waiting.append([(job.number, job.attempt) for job in played.executor.open.values()])
        if len(waiting) in (2, 3):
            assert not played.executor.is_released, "trial 1 will need its worker again"
        played.executor.is_released = False
        wait(on_event, timeout_seconds)

    played.executor.wait = watched  # type: ignore[method-assign]
    played.run()
    assert waiting[1:3] == [[(0, 0)], [(0, 0)]], "no trial is judged yet"
    assert (1, 1) in waiting[3], "and then it continues at once"


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (paused(0, 0, 0.9), "the attempt was given up, or has gone on as another"),
        (paused(0, 2, 0.9), "attempt 2 was never begun"),
        (paused(7, 0, 0.9), "no such trial was asked"),
    ],
)
def test_an_unexpected_pause_is_refused(report: Paused, reason: str, play: Callable[..., Play]) -> None:
    played = play([started(0), paused(0, 0, 0.5)], [started(0, 1), report], [Finished(0, 1, Evaluation(0.7))])
    played.task_epochs = NUM_EPOCHS
    events = played.run()
    assert [event["reason"] for event in events if event["event"] == "refused"] == [reason]
    assert kinds(events).count("paused") == 1
    assert events[-1]["evaluation"]["objective"] == 0.7


def test_a_pause_of_a_lost_attempt_is_refused_and_the_next_one_pauses_there(play: Callable[..., Play]) -> None:
    played = play(
        [started(0), lost(0, 0, FailureKind.WORKER_LOST)], [started(0, 1), paused(0, 0, 0.5)], [paused(0, 1, 0.5)]
    )
    played.task_epochs = NUM_EPOCHS
    assert kinds(played.run()) == ["asked", "started", "requeued", "started", "refused", "paused", "promoted"]
    assert [(job.attempt, job.until) for job in played.executor.jobs] == [(0, 2), (1, 2), (2, None)]


def test_a_paused_trial_accepts_no_further_report_of_that_attempt(play: Callable[..., Play]) -> None:
    played = play(
        [started(0), started(1), paused(1, 0, 0.5)], [Finished(1, 0, Evaluation(0.9))], num_trials=2, num_slots=2
    )
    played.task_epochs, played.window = NUM_EPOCHS, 2
    events = played.run()
    assert (events[-1]["event"], events[-1]["reason"]) == ("refused", "the attempt is paused already")


def test_a_late_result_of_a_lost_attempt_ends_a_paused_trial(play: Callable[..., Play]) -> None:
    late = lost(1, 0, FailureKind.DIVERGED)
    script = [[started(0), started(1), lost(1, 0, FailureKind.WORKER_LOST)], [started(1, 1), paused(1, 1, 0.5)], [late]]
    played = play(*script, num_trials=2, num_slots=2)
    played.task_epochs, played.window = NUM_EPOCHS, 2
    events = played.run()
    assert (events[-1]["event"], events[-1]["number"], events[-1]["status"]) == ("told", 1, "failed")


def test_a_worker_reports_its_pause(tmp_path: Path) -> None:
    genotype = make_controller("random", SearchSpace.spinenet49(), seed=0).ask()
    assert genotype is not None
    (tmp_path / "000000").mkdir()
    events: list[Any] = []
    job = Job(0, 3, genotype.genotype, 1, None, tmp_path / "000000", until=2)
    run_job(fake(), job, "worker", events.append)
    assert [type(event).__name__ for event in events] == ["Started", "EpochDone", "EpochDone", "Paused"]
    assert (events[-1].attempt, events[-1].evaluation.stopped_after) == (3, 2)


def test_time_paused_is_not_counted_and_a_trial_counts_all_its_attempts() -> None:
    time = AcceleratorTime()

    def at(minute: int, event: Event) -> None:
        time.add(replace(event, at=f"2026-01-01T{minute // 60:02d}:{minute % 60:02d}:00+00:00"))

    started = Started(0, 0, "w", "cpu", "float32")
    at(0, started)
    at(6, Paused(0, 0, Evaluation(0.5, stopped_after=1)))
    at(60, Promoted(0, 1, 1, 0.5))
    at(120, started)
    assert time.hours("2026-01-01T02:06:00+00:00") == pytest.approx(0.2)
    at(132, Finished(0, 1, Evaluation(0.5)))
    assert time.hours("2026-01-01T03:00:00+00:00") == pytest.approx(0.3)
    assert time.hours_with_others("2026-01-01T03:00:00+00:00", 2) == pytest.approx(0.3 + 2 * 0.3)


def test_a_display_distinguishes_stopped_and_complete_trials() -> None:
    stream = io.StringIO()
    plain, live = PlainDisplay(stream), LiveDisplay(Console(file=io.StringIO(), force_terminal=True, width=100))
    evaluation = Evaluation(0.9, stopped_after=2)
    events: list[Event] = [
        Asked(Proposal(0, SPINENET_49).to_json(), "a", 0, "", 0),
        Started(0, 0, "w", "cpu", "float32"),
        Paused(0, 0, evaluation),
        Promoted(0, 1, 1, 0.4),
        Finished(0, 1, evaluation),
    ]
    with plain.begin(Progress(8)), live.begin(Progress(8)):
        for event in events:
            plain.show(event)
            live.show(event)
        with live._console.capture() as drawn:
            live._console.print(live._draw())
    assert stream.getvalue().splitlines()[-2] == "trial 0 continues after epoch 1, with AP 0.4000"
    assert (
        stream.getvalue()
        .splitlines()[-1]
        .startswith("trial 0 stopped after epoch 2 with AP 0.9000; 1/8 done, best none yet")
    )
    assert "1 of 8, 0 failed, 1 stopped early" in drawn.get()


def test_a_display_of_a_resumed_run_counts_stopped_trials(tmp_path: Path) -> None:
    config = replace(halved(), budget=BudgetConfig(16, 0.0))
    run = run_search(config, out=tmp_path / "run", task=fake())
    stream = io.StringIO()
    display = PlainDisplay(stream)
    progress = Progress(20)
    progress.resume(run.state())
    with display.begin(progress):
        whole: list[TrialRecord] = [each for each in run.records() if each.status is Status.COMPLETE]
        best = max(record.evaluation.objective for record in whole if record.evaluation)
        assert display._progress.best() == f"{best:.4f} (one run)"
    assert stream.getvalue() == "resumed with 16 of 20 trials done\n"


def test_time_of_a_killed_session_counts_until_its_last_sign_of_life() -> None:
    """Which may be later than its last event. The sum is the same for a reader that leaves out epochs."""

    def at(minute: int) -> str:
        return f"2026-01-01T00:{minute:02d}:00.000+00:00"

    for killed_at, expected in (("", 10), (at(17), 17), (at(5), 10)):
        changes = {"killed_at": killed_at} if killed_at else {}
        last = EpochDone(0, 0, 1, {}, at=at(10))
        for read in (last, Skipped(at(10))):
            time = AcceleratorTime()
            for event in (Started(0, 0, "w", "cpu", "float32", at=at(0)), read, Resumed(changes, at=at(50))):
                time.add(event)
            time.add(Requeued(0, 1, "the search was stopped", at=at(51)))
            assert time.hours(at(59)) == pytest.approx(expected / 60)
