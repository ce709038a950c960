"""TensorBoard's own reader finds each figure of the journal in the event files once."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fake_task import FakeTask
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from spinenas.controller.base import Proposal
from spinenas.results.record import Status
from spinenas.results.storage.events import Asked, EpochDone, Event, Requeued, RunStarted
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.parts import BudgetConfig, HalvingConfig, LoggingConfig
from spinenas.search.monitoring.base import Display
from spinenas.search.monitoring.tensorboard_log import EventRecords, TensorBoardDisplay
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.search.run.or_resume import search_or_resume
from spinenas.search.run.run import Run
from spinenas.space.errors import UserError
from spinenas.space.published import SPINENET_49

PLAIN = SearchConfig(
    budget=BudgetConfig(num_trials=14, replicate_share=0.2), executor=ExecutorConfig(kind="serial"), seed=3
)
CONFIG = replace(PLAIN, logging=LoggingConfig(tensorboard=True))


class Notes(Display):
    """A display that records notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by tag, as TensorBoard reads them."""
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {tag: [(item.step, item.value) for item in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def contents(run: Run) -> dict[str, bytes]:
    folder = run.folder.path / "tensorboard"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_says_what_the_journal_says(run: Run) -> None:
    state, folder = run.state(), run.folder.path / "tensorboard"
    found = scalars(folder / "search")
    complete = [
        (step, state.trials[number].evaluation)
        for step, number in enumerate(state.told, start=1)
        if state.trials[number].status is Status.COMPLETE
    ]
    wanted = [(step, pytest.approx(evaluation.objective)) for step, evaluation in complete if evaluation]
    assert found["search/objective"] == wanted
    steps = list(range(1, len(state.told) + 1))
    assert [step for step, _ in found["search/failed"]] == steps
    (winner,) = (
        run.leaderboard().query("number == @number", local_dict={"number": run.winner().number}).to_dict("records")
    )  # type: ignore[union-attr]
    assert found["search/best_mean"][-1] == (steps[-1], pytest.approx(winner["objective"]))
    assert found["search/best_runs"][-1] == (steps[-1], winner["n"])
    for record in run.records():
        curve = run.folder.read_curve(record.number)
        told = scalars(folder / f"trial-{record.number:06d}")
        for name in ("loss", "AP"):
            wanted_curve = [(int(entry["epoch"]), pytest.approx(entry[name], rel=1e-6)) for entry in curve]
            if record.status is not Status.FAILED:
                assert told[f"epoch/{name}"] == wanted_curve


def test_tensorboard_reads_objectives_best_mean_and_every_curve(tmp_path: Path) -> None:
    task = replace(CONFIG.task, eval=replace(CONFIG.task.eval, every_epochs=1))
    halved = replace(CONFIG, task=task, halving=HalvingConfig(rungs=(1, 2), reduction=2.0, min_results=2))
    run = run_search(halved, out=tmp_path / "run", task=FakeTask(num_epochs=3, fail={4: "diverged"}, measures_ap=True))
    assert {record.status for record in run.records()} == {Status.COMPLETE, Status.PRUNED, Status.FAILED}
    assert_says_what_the_journal_says(run)
    assert scalars(tmp_path / "run" / "tensorboard" / "search")["search/failed"][-1][1] == 1


def test_a_resumed_run_continues_its_logs_without_a_repeated_step(tmp_path: Path) -> None:
    task = FakeTask(num_epochs=3, measures_ap=True)
    with pytest.raises(KeyboardInterrupt):
        run_search(CONFIG, out=tmp_path / "run", task=replace(task, interrupt_at=6))
    run = Run.open(tmp_path / "run")
    before = contents(run)
    stale = run.folder.path / "tensorboard" / "trial-000099" / next(iter(before)).rpartition("/")[2]
    stale.parent.mkdir()
    stale.write_bytes(b"of an epoch that the journal does not have")
    (search,) = (run.folder.path / "tensorboard" / "search").iterdir()
    search.write_bytes(search.read_bytes() + b"half a rec")
    resume(tmp_path / "run", task=task)
    assert not stale.exists()
    assert_says_what_the_journal_says(run)
    after = contents(run)
    assert all(after[name].startswith(content) for name, content in before.items())  # TensorBoard reads on


def test_an_attempt_with_another_fidelity_has_its_own_curve_and_a_lost_one_has_none() -> None:
    at = "2026-01-01T00:00:00.000+00:00"
    records = EventRecords()
    list(records.add(RunStarted("", {}, at=at)))
    list(records.add(Asked(Proposal(3, SPINENET_49).to_json(), "", 0, "", 0, at=at)))

    def runs(event: Event) -> list[str]:
        return [file.partition("/")[0] for file, _ in records.add(replace(event, at=at))]

    epoch = EpochDone(3, 0, 1, {"loss": 1.0})
    assert set(runs(epoch)) == {"trial-000003"}
    assert runs(Requeued(3, 1, "lost")) == []
    assert runs(replace(epoch, attempt=1)) == []
    assert runs(replace(epoch, attempt=1, epoch=2)) == ["trial-000003"]
    runs(Requeued(3, 2, "memory", fidelity=FakeTask().fidelity))
    assert set(runs(replace(epoch, attempt=2))) == {"trial-000003-attempt-2"}


def test_a_log_that_cannot_be_written_causes_one_note_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: TensorBoardDisplay, event: Event) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorBoardDisplay, "_append", fails)
    notes = Notes()
    run = run_search(CONFIG, out=tmp_path / "run", task=FakeTask(), display=notes)
    assert all(record.status is Status.COMPLETE for record in run.records())
    assert [note for note in notes.notes if "TensorBoard" in note and "No space left" in note] == notes.notes
    assert len(notes.notes) == 1


def test_without_tensorboardx_one_sentence_comes_before_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    task = FakeTask()
    with pytest.raises(UserError, match="pip install tensorboardX"):
        run_search(CONFIG, out=tmp_path / "run", task=task)
    assert task.num_prepared == 0
    assert list(tmp_path.iterdir()) == []


def test_logging_is_off_by_default_and_can_be_switched_on_later(tmp_path: Path) -> None:
    small = replace(PLAIN, budget=BudgetConfig(num_trials=4, replicate_share=0.0))
    with pytest.raises(KeyboardInterrupt):
        search_or_resume(small, out=tmp_path / "run", task=FakeTask(interrupt_at=2))
    assert not (tmp_path / "run" / "tensorboard").exists()
    logged = replace(small, logging=LoggingConfig(tensorboard=True))
    search_or_resume(logged, out=tmp_path / "run", task=FakeTask())
    found = scalars(tmp_path / "run" / "tensorboard" / "search")
    assert [step for step, _ in found["search/objective"]] == [1, 2, 3, 4]
