"""The display of a search: plain lines and the live table."""

from __future__ import annotations

import io
from typing import Any

import pytest
from fake_task import FakeTask
from rich.console import Console

from spinenas.controller.base import Proposal
from spinenas.results.leaderboard import winner
from spinenas.results.record import Evaluation, Failure, FailureKind, Status, TrialRecord
from spinenas.results.storage.events import Asked, EpochDone, Event, Finished, Requeued, RunStarted, Started
from spinenas.results.storage.journal import SCHEMA
from spinenas.results.storage.run_state import RunState, fold
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.objective import ObjectiveConfig
from spinenas.search.monitoring.display import LiveDisplay, PlainDisplay, display_for
from spinenas.search.monitoring.forecast import Workload, count_of_epochs
from spinenas.search.monitoring.progress import Progress
from spinenas.space.genotype import Genotype
from spinenas.space.published import R0_SP53, SPINENET_49


def asked(number: int, key: str, genotype: Genotype = SPINENET_49) -> Event:
    return Asked(Proposal(number, genotype).to_json(), key, 0, "", 0)


def started(number: int) -> Event:
    return Started(number, 0, "worker-0", "cpu", "float32")


def told(number: int, objective: float | None) -> Event:
    if objective is None:
        return Finished(number, 0, Failure(FailureKind.DIVERGED, "loss is NaN"))
    return Finished(number, 0, Evaluation(objective))


EVENTS = [
    *(event for number, key in enumerate(["a", "b", "a"]) for event in (asked(number, key), started(number))),
    told(0, 0.2),
    told(1, 0.3),
    told(2, 0.6),
    asked(3, "c"),
    started(3),
    told(3, None),
]


@pytest.mark.parametrize(("kind", "best"), [("ap", 0.42), ("soft", 0.41), ("front", 0.42)])
@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("num_runs", [1, 2])
def test_the_leader_shown_is_the_winner_of_the_leaderboard_whatever_the_objective(
    kind: Any, best: float, resumed: bool, num_runs: int
) -> None:
    """R0-SP53 has more multiply-adds than SpineNet-49, so that the soft objective outweighs its slightly higher AP."""
    networks = [("a", SPINENET_49, 0.41), ("b", R0_SP53, 0.42)] * num_runs
    if num_runs > 1:
        networks.append(("single", R0_SP53, 0.9))
    events: list[Event] = [RunStarted(SCHEMA, {})]
    for number, (key, genotype, objective) in enumerate(networks):
        events += [asked(number, key, genotype), started(number), told(number, objective)]
    state = fold(events)
    config = SearchConfig(objective=ObjectiveConfig(kind, weight=-9.0))
    scalarize = config.scalarized_objective()
    row = winner(state.trials.values(), scalarize)
    assert row is not None
    assert row["objective"] == best
    display, progress = PlainDisplay(io.StringIO()), Progress(8, scalarize=scalarize)
    if resumed:
        progress.resume(state)
    with display.begin(progress):
        for event in () if resumed else events:
            display.show(event)
    spread = " (one run)" if num_runs == 1 else " ± 0.0000 (n=2)"
    assert display._progress.best() == f"{best:.4f}{spread}"


def past() -> Progress:
    """The progress of a run that resumes with the trials of EVENTS."""
    trials = {
        number: TrialRecord(number, None, key, Status.COMPLETE, evaluation=Evaluation(objective))
        for number, (key, objective) in enumerate([("a", 0.2), ("b", 0.3), ("a", 0.6)])
    }
    trials[3] = TrialRecord(3, None, "c", Status.FAILED, failure=Failure(FailureKind.DIVERGED, "loss is NaN"))
    progress = Progress(8)
    progress.resume(RunState(trials=trials, told=[0, 1, 2, 3]))
    return progress


def test_plain_lines_report_ended_trials_and_the_best_mean_so_far() -> None:
    stream = io.StringIO()
    display = PlainDisplay(stream)
    with display.begin(Progress(8)):
        for event in EVENTS:
            display.show(event)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "trial 0 started on worker-0 (cpu)"
    assert "trial 1 AP 0.3000; 2/8 done, best 0.3000 (one run)" in lines[4], "the highest single run is not a result"
    assert "best 0.4000 ± 0.2828 (n=2)" in lines[5], "the mean of network a, not its luckiest run"
    assert lines[-1].startswith("trial 3 failed (diverged): loss is NaN; 4/8 done")


def test_plain_lines_report_epochs_only_after_a_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    stream = io.StringIO()
    display = PlainDisplay(stream)
    with display.begin(Progress(8)):
        for event in (asked(0, "a"), started(0), asked(1, "b"), started(1)):
            display.show(event)
        for epoch, seconds in enumerate([10, 19, 1, 29, 31], start=1):
            now += seconds
            display.show(EpochDone(0, 0, epoch, {"loss": 0.5 / epoch, "AP": 0.1}))
    lines = stream.getvalue().splitlines()[2:]
    assert lines == ["trial 0 epoch 3, loss 0.1667, AP 0.1", "trial 0 epoch 5, loss 0.1, AP 0.1"]


def test_the_best_is_a_replicated_network_once_there_is_one() -> None:
    stream = io.StringIO()
    display = PlainDisplay(stream)
    with display.begin(past()):
        display.show(asked(4, "lucky"))
        display.show(started(4))
        display.show(told(4, 0.9))
    assert "best 0.4000 ± 0.2828 (n=2)" in stream.getvalue().splitlines()[-1]


def test_past_events_count_as_done_but_not_for_the_pace() -> None:
    stream = io.StringIO()
    display = PlainDisplay(stream)
    with display.begin(past()):
        pass
    assert stream.getvalue() == "resumed with 4 of 8 trials done\n"
    assert display._progress.trials_per_hour() is None


def test_a_failed_trial_is_tried_again() -> None:
    stream = io.StringIO()
    display = PlainDisplay(stream)
    with display.begin(Progress(8)):
        for event in EVENTS[:2]:
            display.show(event)
        display.show(Requeued(0, 1, "the search was stopped"))  # of which the driver tells
        display.show(Requeued(0, 2, "the worker was lost", FailureKind.WORKER_LOST))
    assert stream.getvalue().splitlines()[1:] == ["trial 0 is tried again: the worker was lost"]


def test_a_terminal_shows_a_table_with_progress_leader_and_pace() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    display = LiveDisplay(console)
    with display.begin(Progress(8)):
        for event in EVENTS[:-1]:
            display.show(event)
        display.show(EpochDone(3, 0, 2, {"loss": 0.4321}))
        with console.capture() as drawn:
            console.print(display._draw())
    for words in (
        "3 of 8, 0 failed",
        "trial 3: epoch 2, loss 0.432, worker-0",
        "0.4000 ± 0.2828 (n=2)",
        "trials per hour",
    ):
        assert words in drawn.get()


def test_a_stream_that_is_not_a_terminal_gets_plain_lines() -> None:
    assert isinstance(display_for(io.StringIO()), PlainDisplay)


def test_a_terminal_shows_epoch_loss_and_worker_of_each_running_trial_and_its_name() -> None:
    display = LiveDisplay(Console(file=io.StringIO(), force_terminal=True, width=80))
    progress = Progress(40, workload=Workload(count_of_epochs(FakeTask(num_epochs=5), SearchConfig())))
    display.name_networks({"network 1": "SpineNet-49"})
    with display.begin(progress):
        for number in range(20):
            display.show(asked(number, f"network {number}"))
            display.show(Started(number, 0, f"worker-{number}", "cpu", "float32"))
        display.show(EpochDone(1, 0, 3, {"loss": 0.25, "AP": 0.1}))
        with display._console.capture() as drawn:
            display._console.print(display._draw())
    assert "trial 0: epoch 0 of 5, worker-0" in drawn.get()
    assert "trial 1 (SpineNet-49): epoch 3 of 5, loss 0.25, worker-1" in drawn.get()
    assert "and 4 more" in drawn.get()


def test_plain_lines_name_the_networks_that_have_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spinenas.search.monitoring.display.QUIET_SECONDS", 0.0)
    stream = io.StringIO()
    display = PlainDisplay(stream)
    display.name_networks({"a": "winner"})
    with display.begin(Progress(8)):
        for event in (asked(0, "a"), started(0), EpochDone(0, 0, 1, {}), asked(1, "b"), started(1), told(1, 0.2)):
            display.show(event)
        display.show(Requeued(0, 1, "the worker was lost", FailureKind.WORKER_LOST))
        display.show(told(0, 0.3))
    lines = stream.getvalue().splitlines()
    assert [line.partition(": ")[0].partition(";")[0] for line in lines] == [
        "trial 0 (winner) started on worker-0 (cpu)",
        "trial 0 (winner) epoch 1",
        "trial 1 started on worker-0 (cpu)",
        "trial 1 AP 0.2000",
        "trial 0 (winner) is tried again",
        "trial 0 (winner) AP 0.3000",
    ]
