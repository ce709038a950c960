"""The predicted time left of a search. Nothing else in a search depends on it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_task import FakeTask
from rich.console import Console

import spinenas.search.run.components as run_parts
import spinenas.search.run.lifecycle as loop
from spinenas.controller.base import Proposal
from spinenas.proxy_task.cost_model import Sample, fit_model, random_genotypes, save_model
from spinenas.proxy_task.probe import Probe
from spinenas.proxy_task.task import ProxyTask
from spinenas.results.record import Evaluation, Failure, FailureKind, Fidelity, Status, TrialRecord
from spinenas.results.storage.epoch_count import EpochCount
from spinenas.results.storage.events import Asked, EpochDone, Event, Finished, Paused, Promoted, Requeued, Started
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.parts import BudgetConfig
from spinenas.search.config.presets import preset
from spinenas.search.monitoring.display import LiveDisplay, PlainDisplay
from spinenas.search.monitoring.forecast import Forecast, Workload, count_of_epochs, forecast_for
from spinenas.search.monitoring.progress import Progress
from spinenas.space import SearchSpace
from spinenas.space.cost import Cost
from spinenas.space.published import R0_SP53, SPINENET_49
from spinenas.space.scaling import Scaling

SHORT = Fidelity(2, 96, 8, 40, Scaling("test", 0.25, 64, 0.25, 1))


def seconds_of(genotype: Any, fidelity: Fidelity | None) -> float:
    """SpineNet-49 takes 100 s and any other network 300 s; trainings of two epochs take a tenth."""
    return (100.0 if genotype == SPINENET_49 else 300.0) * (0.1 if fidelity else 1.0)


FORECAST = Forecast(seconds_of, mean_seconds=200.0, epochs=5, workers=2, device="cpu")


def asked(number: int, genotype: Any = SPINENET_49, fidelity: Fidelity | None = None) -> Event:
    proposal = json.loads(json.dumps(Proposal(number, genotype, fidelity).to_json()))
    return Asked(proposal, genotype.key, 0, "", 0)


def started(number: int, device: str = "cpu") -> Event:
    return Started(number, 0, "worker-0", device, "float32")


def epoch(number: int, count: int) -> Event:
    return EpochDone(number, 0, count, {})


def told(number: int, *, failed: bool = False) -> Event:
    return Finished(number, 0, Failure(FailureKind.DIVERGED, "x") if failed else Evaluation(0.1))


def after(*events: Event, forecast: Forecast = FORECAST) -> Workload:
    workload = Workload(forecast)
    for event in events:
        workload.add(event)
    return workload


def test_before_the_first_trial_the_time_left_is_that_of_random_trials_on_all_workers() -> None:
    assert after().seconds_left(10, 0.0) == 10 * 200 / 2
    assert after().seconds_left(1, 0.0) == 200, "a single trial runs on one worker"
    assert after().seconds_left(0, 0.0) == 0


def test_known_trials_count_by_their_prediction_and_future_ones_by_the_mean_of_the_known() -> None:
    assert after(asked(0)).seconds_left(1, 0.0) == 100
    assert after(asked(0), asked(1, R0_SP53)).seconds_left(2, 0.0) == (100 + 300) / 2
    assert after(asked(0), asked(1, R0_SP53)).seconds_left(4, 0.0) == (100 + 300 + 2 * 200) / 2
    assert after(asked(0), asked(1)).seconds_left(4, 0.0) == 4 * 100 / 2
    assert after(asked(0, R0_SP53, SHORT)).seconds_left(1, 0.0) == 30, "at its own fidelity"


def test_epochs_of_running_trials_count_and_are_lost_with_their_attempt() -> None:
    running = [asked(0), started(0), epoch(0, 3)]
    assert after(*running).seconds_left(1, 60.0) == 40
    assert after(asked(0, SPINENET_49, SHORT), epoch(0, 1)).seconds_left(1, 5.0) == 5, "one of two epochs"
    requeued = Requeued(0, 1, "lost")
    assert after(*running, requeued).seconds_left(1, 60.0) == 100


def test_once_a_trial_is_finished_the_pace_of_the_session_decides() -> None:
    events = [asked(0), asked(1, R0_SP53), started(0), started(1), told(0)]
    # 100 predicted seconds took 50. A trial of 300 s and one of the mean, 200 s, are left.
    assert after(*events).seconds_left(2, 50.0) == pytest.approx((300 + 200) * 50 / 100)
    # A third of the slow trial is done as well.
    assert after(*events, epoch(1, 2)).seconds_left(2, 50.0) == pytest.approx((180 + 200) * 50 / (100 + 120))


def test_a_failed_trial_counts_by_the_epochs_it_completed() -> None:
    assert after(asked(0), told(0, failed=True)).seconds_left(1, 3.0) == 100, "as predicted: there is no pace yet"
    events = [asked(0), epoch(0, 1), told(0, failed=True), asked(1), told(1)]
    assert after(*events).seconds_left(1, 60.0) == pytest.approx(100 * 60 / (20 + 100))


def test_a_calibration_of_another_device_predicts_nothing_before_a_trial_is_finished() -> None:
    assert after(asked(0), started(0, "cuda")).seconds_left(3, 1.0) is None
    assert after(asked(0), started(0, "cuda"), told(0)).seconds_left(2, 5.0) == pytest.approx(10)


def test_displays_show_the_predicted_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    stream = io.StringIO()
    plain = PlainDisplay(stream)
    with plain.begin(Progress(38, workload=Workload(FORECAST))):
        assert stream.getvalue() == "1:03:20 predicted, by the calibration of this machine\n"
    live = LiveDisplay(Console(file=io.StringIO(), force_terminal=True, width=80))
    with live.begin(Progress(38, workload=Workload(FORECAST))):
        for event in (asked(0), started(0), epoch(0, 3)):
            live.show(event)
        with live._console.capture() as drawn:
            live._console.print(live._draw())
    assert "0:31:10" in drawn.get(), "38 trials of 100 s, less 60"


def test_a_resumed_search_counts_open_trials_and_no_finished_one() -> None:
    records = {
        0: TrialRecord(0, SPINENET_49, "a", Status.COMPLETE, evaluation=Evaluation(0.2)),
        1: TrialRecord(1, R0_SP53, "b", Status.ASKED),
    }
    past = SimpleNamespace(trials=records, unfinished=[records[1]])
    stream = io.StringIO()
    display = PlainDisplay(stream)
    progress = Progress(2, workload=Workload(FORECAST))
    progress.resume(past)  # type: ignore[arg-type]
    with display.begin(progress):
        display.show(started(1))
        display.show(epoch(1, 1))
    assert stream.getvalue().splitlines()[1] == "0:05:00 predicted, by the calibration of this machine"


def test_a_task_without_a_calibration_has_no_forecast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProxyTask, "fidelity", SHORT)
    monkeypatch.setattr(ProxyTask, "class_channels", 5)
    monkeypatch.setattr(ProxyTask, "trial_seconds", lambda self, *_, step_seconds, **__: 10 * step_seconds)
    monkeypatch.setenv("SPINENAS_CACHE", str(tmp_path))
    config = replace(preset("quickstart"), executor=ExecutorConfig(kind="serial", workers=4))
    task = ProxyTask(config.task)
    assert forecast_for(FakeTask(), config) is None
    assert forecast_for(task, config) is None
    # A step of a second for each million multiply-adds in a batch.
    genotypes = random_genotypes(SearchSpace.spinenet49(), 40)
    costs = [Cost(1, task.cost(genotype).madds, 1, 1) for genotype in genotypes]
    save_model(fit_model([Sample("", cost, SHORT, Probe(8e-6 * cost.madds, 1.0, 1.0, None)) for cost in costs]), task)
    forecast = forecast_for(task, config)
    assert forecast is not None
    madds = task.cost(SPINENET_49, SHORT.scaling, SHORT.image_size_pixels).madds
    assert forecast.trial_seconds(SPINENET_49, None) == pytest.approx(10 * 8e-6 * madds, rel=1e-3)
    assert (forecast.workers, forecast.epochs, forecast.device) == (1, 2, "cpu")
    mean = sum(forecast.trial_seconds(genotype, None) for genotype in genotypes[:32]) / 32
    assert forecast.mean_seconds == pytest.approx(mean)


def test_a_forecast_changes_neither_proposals_nor_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_parts, "proxy_task", lambda config: FakeTask(fail={2: "diverged"}))
    config = SearchConfig(executor=ExecutorConfig(kind="serial"), budget=BudgetConfig(8))
    journals = []
    for name, forecast in (("with", FORECAST), ("without", None)):
        monkeypatch.setattr(run_parts, "forecast_for", lambda task, config, forecast=forecast: forecast)
        stream = io.StringIO()
        run = loop.run_search(config, out=tmp_path / name, display=PlainDisplay(stream))
        assert ("predicted" in stream.getvalue()) == (forecast is not None)
        events = [json.loads(line) for line in run.folder.journal_path.read_text().splitlines()]
        for event in events:
            del event["at"], event["crc32"]
        journals.append(events)
    assert journals[0] == journals[1]


EPOCHS = count_of_epochs(FakeTask(num_epochs=5), SearchConfig(executor=ExecutorConfig(kind="ray", workers=2)))


def test_without_a_calibration_the_epochs_of_running_trials_tell_the_time_left() -> None:
    events = [asked(0), asked(1), started(0), started(1)]
    assert after(*events, forecast=EPOCHS).seconds_left(4, 10.0) is None, "nothing is done yet"
    # One of 20 epochs took 10 s.
    assert after(*events, epoch(0, 1), forecast=EPOCHS).seconds_left(4, 10.0) == pytest.approx(190)
    both = [*events, *(epoch(number, count) for count in (1, 2, 3, 4) for number in (0, 1)), epoch(0, 5), told(0)]
    # Nine of 20 epochs took 90 s. By whole trials alone, three more would take 270 s.
    assert after(*both, forecast=EPOCHS).seconds_left(3, 90.0) == pytest.approx(110)


def test_epochs_of_an_earlier_session_do_not_count_for_the_pace() -> None:
    workload = Workload(EPOCHS)
    workload.ask(Proposal(0, SPINENET_49), is_resumed=True)
    for event in (started(0), epoch(0, 4)):
        workload.add(event)
    assert workload.seconds_left(1, 10.0) == pytest.approx(10), "one epoch took 10 s, and one is left"
    workload.add(told(0))
    assert workload.seconds_left(1, 20.0) == pytest.approx(50), "two took 20 s, and five are left"


def test_a_search_without_a_calibration_shows_the_time_left_from_its_first_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    class Watching(PlainDisplay):
        def show(self, event: Event) -> None:
            super().show(event)
            if isinstance(event, EpochDone):
                seen.append(self._progress.time_left())

    config = SearchConfig(executor=ExecutorConfig(kind="serial"), budget=BudgetConfig(2))
    loop.run_search(config, out=tmp_path / "run", task=FakeTask(), display=Watching(io.StringIO()))
    assert "unknown" not in seen


def test_a_paused_training_has_no_work_left_until_it_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked_until(number: int, until: int | None) -> Event:
        return Asked(Proposal(number, SPINENET_49, until=until).to_json(), f"{number}", 0, "", 0)

    begun = [asked_until(0, 1), started(0), epoch(0, 1)]
    pause = Paused(0, 0, Evaluation(0.1, stopped_after=1))
    # 20 predicted seconds took 40, and two more trainings' worth of 100 s can be asked for.
    assert after(*begun, pause).seconds_left(1 + 2, 40.0) == pytest.approx(2 * 100 * 40 / 20)
    promoted = Promoted(0, 1, 1, 0.1, num_told=1, until=3)
    assert after(*begun, pause, promoted).seconds_left(1, 40.0) == pytest.approx(40 * 40 / 20)
    to_the_end = replace(promoted, until=None)
    assert after(*begun, pause, to_the_end).seconds_left(1, 40.0) == pytest.approx(80 * 40 / 20)
    ended = Finished(0, 0, Evaluation(0.1, stopped_after=1))
    assert after(*begun, pause, ended).seconds_left(1, 40.0) == pytest.approx(100 * 40 / 20), "20 s of work were done"

    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    progress = Progress(2, workload=Workload(FORECAST), epochs=EpochCount(5), num_epochs=12, began=960.0)
    for event in (*begun, pause):
        progress.add(event)
    assert progress.done_words() == "0.2 of 2.4 trainings' worth"
    assert progress.networks_words() == "1 network, 1 at epoch 1, none whole"
    assert progress.trials_per_hour() == pytest.approx(0.2 * 3600 / 40)
    assert progress.time_left() == "0:07:20", "11 epochs of 20 s, at half the predicted pace"
