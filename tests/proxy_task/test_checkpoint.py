"""Checkpoints: a resumed trial has the result of an uninterrupted one, and an unusable file does no harm."""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from journal_lines import json_events
from safetensors.torch import save_file
from shared_fixtures import REPOSITORY
from small_task import SMALL_GENOTYPE, small_dataset, small_task

from spinenas.proxy_task.config import EvalConfig, TaskConfig
from spinenas.proxy_task.task import ProxyTask
from spinenas.proxy_task.training import checkpoint
from spinenas.proxy_task.training.train import TrainState
from spinenas.results.record import Evaluation, Failure, Status
from spinenas.results.storage.atomic_write import write_bytes_atomically
from spinenas.results.storage.events import EpochDone, Event
from spinenas.results.storage.run_folder import CHECKPOINT, VAL_DETECTIONS, RunFolder
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.parts import BudgetConfig, HalvingConfig
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.search.run.run import Run

GENOTYPE = SMALL_GENOTYPE
FILE = CHECKPOINT


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TaskConfig:
    """Three epochs of four steps on 32 images of 96 px, AP after the second and the third."""
    evaluation = EvalConfig(pre_nms_top=100, every_epochs=2, score_threshold=0.0, plus_one_decoding=False)
    return small_task(small_dataset(tmp_path_factory), tmp_path_factory, evaluation, epochs=3)


@pytest.fixture(scope="module")
def uninterrupted(config: TaskConfig) -> Evaluation:
    return without_resources(ProxyTask(config).evaluate(GENOTYPE, seed=5))


@pytest.fixture(scope="module")
def after_two(config: TaskConfig, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The checkpoint of the same trial after two of its epochs."""
    folder = tmp_path_factory.mktemp("after_two")
    interrupted(ProxyTask(config), folder, after=2)
    return (folder / FILE).read_bytes()


def without_resources(result: Evaluation | Failure) -> Evaluation:
    """The part of a result that is the same in two runs of a trial, to the last bit."""
    assert isinstance(result, Evaluation), result
    return replace(result, train_seconds=None, eval_seconds=None, peak_memory_bytes=None)


def reporting_to(epochs: list[int], *, interrupt_after: int | None = None) -> Callable[[int, dict[str, float]], None]:
    def report(epoch: int, figures: dict[str, float]) -> None:
        epochs.append(epoch)
        if epoch == interrupt_after:
            raise KeyboardInterrupt

    return report


def interrupted(task: ProxyTask, folder: Path, *, after: int, seed: int = 5) -> list[int]:
    """Start or resume a trial, interrupt it when it reports an epoch, and return the epochs it reported."""
    epochs: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        task.evaluate(GENOTYPE, seed=seed, folder=folder, report=reporting_to(epochs, interrupt_after=after))
    return epochs


def finished(task: ProxyTask, folder: Path) -> tuple[Evaluation, list[int]]:
    """Start or resume a trial, and return its result and the epochs it reported."""
    epochs: list[int] = []
    result = task.evaluate(GENOTYPE, seed=5, folder=folder, report=reporting_to(epochs))
    return without_resources(result), epochs


@pytest.mark.parametrize(
    "train",
    [
        {"optimizer": "adamw"},
        {"optimizer": "adamw", "dtype": "bfloat16"},
        {"optimizer": "sgd", "learning_rate": 0.02},
        {"optimizer": "sgd", "learning_rate": 0.02, "dtype": "bfloat16", "activation": "swish"},
        {"optimizer": "adamw", "stochastic_depth": 0.5},
    ],
    ids=lambda train: " ".join(map(str, train.values())),
)
def test_a_trial_interrupted_after_every_epoch_has_the_same_result(
    config: TaskConfig, tmp_path: Path, train: dict[str, Any]
) -> None:
    config = replace(config, train=replace(config.train, **train))
    whole, epochs = finished(ProxyTask(config), tmp_path / "no such folder")
    assert epochs == [1, 2, 3]
    assert ["AP" in entry for entry in whole.curve] == [False, True, True]
    # The last attempt is interrupted before its evaluation.
    for epoch in (1, 2, 3):
        assert interrupted(ProxyTask(config), tmp_path, after=epoch) == [epoch]
        assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert finished(ProxyTask(config), tmp_path) == (whole, [])


CHILD = """
import os, pickle, signal, sys
from pathlib import Path
from small_task import SMALL_GENOTYPE
task, folder = pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2])
def kill():
    os.kill(os.getpid(), signal.SIGKILL)
def report(epoch, figures):
    if epoch == 2 and sys.argv[3] == "reporting":
        kill()
num_synced = 0
def fsync(descriptor):  # called for the file of a checkpoint, then for its folder
    global num_synced
    num_synced += 1
    if num_synced == 3:
        os.ftruncate(descriptor, 10_000)
        kill()
if sys.argv[3] == "writing":
    os.fsync = fsync
task.evaluate(SMALL_GENOTYPE, seed=5, folder=folder, report=report)
"""


@pytest.mark.parametrize(("instant", "num_files", "left"), [("reporting", 1, [3]), ("writing", 2, [2, 3])])
def test_a_killed_process_leaves_a_complete_checkpoint(
    config: TaskConfig, uninterrupted: Evaluation, tmp_path: Path, instant: str, num_files: int, left: list[int]
) -> None:
    folder = RunFolder(tmp_path).trial_folder(3)
    (tmp_path / "task").write_bytes(pickle.dumps(ProxyTask(config)))
    command = [sys.executable, "-c", CHILD, str(tmp_path / "task"), str(folder), instant]
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY / 'tests'}:{Path(__file__).parent}"}
    done = subprocess.run(command, cwd="/", env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(list(folder.iterdir())) == num_files  # including the partial file if it was killed while writing
    assert finished(ProxyTask(config), folder) == (uninterrupted, left)
    RunFolder(tmp_path).remove_checkpoint(3)
    assert list(folder.iterdir()) == [], "nor is the half of one left"


def with_other_bit(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def with_schema(data: bytes, schema: bytes) -> bytes:
    assert len(schema) == len(checkpoint.SCHEMA)
    assert data.count(checkpoint.SCHEMA.encode()) == 1
    return data.replace(checkpoint.SCHEMA.encode(), schema)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-1], "incomplete"),
        (lambda data: b"", "header"),
        (lambda data: with_other_bit(data, len(data) - 1000), "it is damaged"),
        (lambda data: with_schema(data, b"spinenas-checkpoint/3"), "its schema is 'spinenas-checkpoint/3'"),
    ],
    ids=["cut off", "empty", "a bit", "schema"],
)
def test_a_checkpoint_that_is_incomplete_or_of_another_schema_is_ignored(
    config: TaskConfig,
    uninterrupted: Evaluation,
    after_two: bytes,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes],
    words: str,
) -> None:
    (tmp_path / FILE).write_bytes(damage(after_two))
    assert finished(ProxyTask(config), tmp_path) == (uninterrupted, [1, 2, 3])
    (warning,) = caplog.messages
    assert f"{FILE} is ignored, the training starts from the beginning: " in warning
    assert words in warning


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 6}, "another seed"),
        ({"threads": 2}, "another threads"),
        ({"every_epochs": 1}, "another eval"),
        ({"epochs": 4}, "another fidelity"),
        ({"learning_rate": 1e-3}, "another task"),
        ({}, None),
    ],
    ids=str,
)
def test_a_checkpoint_of_another_trial_is_ignored(
    config: TaskConfig,
    after_two: bytes,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, Any],
    words: str | None,
) -> None:
    (tmp_path / FILE).write_bytes(after_two)
    if "learning_rate" in changes:
        config = replace(config, train=replace(config.train, **changes))
    if "every_epochs" in changes:
        config = replace(config, eval=replace(config.eval, **changes))
    task = ProxyTask(config, threads=changes.get("threads", 1))
    fidelity = replace(task.fidelity, epochs=changes.get("epochs", 3))
    first: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        task.evaluate(
            GENOTYPE,
            seed=changes.get("seed", 5),
            fidelity=fidelity,
            folder=tmp_path,
            report=reporting_to(first, interrupt_after=3 if words is None else 1),
        )
    assert first == ([3] if words is None else [1])
    assert [words in message for message in caplog.messages] == ([] if words is None else [True])


def tiny(path: Path) -> None:
    """Write a checkpoint of less than a thousand bytes."""
    state = TrainState(2, {"w": torch.arange(4.0)}, {"step/w": torch.tensor(3.0)})
    checkpoint.save(path, state, checkpoint.Progress(({"epoch": 1}, {"epoch": 2}), 1.5, 0.5), {"seed": 1})


def test_a_saved_checkpoint_is_loaded(tmp_path: Path) -> None:
    tiny(tmp_path / FILE)
    found = checkpoint.load(tmp_path / FILE, {"seed": 1})
    assert found is not None
    state, progress = found
    assert state.epoch == 2
    assert torch.equal(state.network["w"], torch.arange(4.0))
    assert torch.equal(state.optimizer["step/w"], torch.tensor(3.0))
    assert progress == checkpoint.Progress(({"epoch": 1}, {"epoch": 2}), 1.5, 0.5)


def test_a_checkpoint_of_the_previous_schema_is_loaded(tmp_path: Path) -> None:
    document = {"schema": "spinenas-checkpoint/1", "identity": {"seed": 1}, "epoch": 2, "is_over": False}
    text = json.dumps(document | {"curve": [{"epoch": 1}, {"epoch": 2}], "train_seconds": 1.5, "eval_seconds": 0.5})
    tensors = {"network/w": torch.arange(4.0)}
    save_file(tensors, tmp_path / FILE, {"spinenas": text, "crc32": checkpoint._checksum(text, tensors)})
    found = checkpoint.load(tmp_path / FILE, {"seed": 1})
    assert found is not None
    assert found[0].epoch == 2
    assert torch.equal(found[0].network["w"], torch.arange(4.0))
    assert found[1] == checkpoint.Progress(({"epoch": 1}, {"epoch": 2}), 1.5, 0.5)


def test_a_checkpoint_with_any_bit_flipped_or_bytes_missing_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / FILE
    tiny(path)
    whole = path.read_bytes()
    assert len(whole) < 1000
    for position in range(len(whole)):
        for damaged in (with_other_bit(whole, position), whole[:position]):
            path.write_bytes(damaged)
            assert checkpoint.load(path, {"seed": 1}) is None, position


@pytest.mark.parametrize("document", [None, "[]", '{"schema": "spinenas-checkpoint/1"}', "[" * 100_000])
def test_a_file_of_another_program_is_ignored(tmp_path: Path, document: str | None) -> None:
    metadata = None if document is None else {"spinenas": document, "crc32": "0"}
    save_file({"w": torch.zeros(1)}, tmp_path / FILE, metadata)
    assert checkpoint.load(tmp_path / FILE, {"seed": 1}) is None


def test_a_missing_checkpoint_causes_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert checkpoint.load(tmp_path / FILE, {}) is None
    assert caplog.messages == []


def test_a_folder_that_cannot_be_written_costs_no_training(
    config: TaskConfig,
    uninterrupted: Evaluation,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert finished(ProxyTask(config), tmp_path / "no such folder") == (uninterrupted, [1, 2, 3])
    (tmp_path / FILE).mkdir()  # neither read nor replaced nor removed
    assert finished(ProxyTask(config), tmp_path) == (uninterrupted, [1, 2, 3])
    caplog.clear()

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_bytes_atomically", full)
    (tmp_path / "full").mkdir()
    assert finished(ProxyTask(config), tmp_path / "full") == (uninterrupted, [1, 2, 3])
    assert caplog.messages == [
        "the training continues without a new checkpoint: [Errno 28] No space left on device"
    ]  # once


def test_seconds_include_all_attempts(config: TaskConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(ProxyTask(config), tmp_path, after=2)
    load = checkpoint.load

    def long_ago(path: Path, identity: checkpoint.Identity) -> tuple[TrainState, checkpoint.Progress]:
        found = load(path, identity)
        assert found is not None
        return found[0], replace(found[1], train_seconds=1e6, eval_seconds=1e5)

    monkeypatch.setattr(checkpoint, "load", long_ago)
    result = ProxyTask(config).evaluate(GENOTYPE, seed=5, folder=tmp_path)
    assert isinstance(result, Evaluation)
    assert result.train_seconds is not None
    assert 1e6 < result.train_seconds < 1.05e6
    assert result.eval_seconds is not None
    assert 1e5 < result.eval_seconds < 1.05e5


def test_two_attempts_never_write_the_same_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither within a process, nor on two machines, where process ids may be equal."""
    replaced: list[Path] = []
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda source, target: (replaced.append(source), rename(source, target)))
    for data in (b"one", b"two"):
        write_bytes_atomically(tmp_path / FILE, data)
    assert len(set(replaced)) == 2
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_an_interrupted_evaluation_with_val_resumes_too(
    config: TaskConfig, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    task, elsewhere = ProxyTask(config), tmp_path_factory.mktemp("uninterrupted")
    whole = task.evaluate_with_val(GENOTYPE, seed=5, folder=elsewhere)
    interrupting = reporting_to([], interrupt_after=2)
    with pytest.raises(KeyboardInterrupt):
        ProxyTask(config).evaluate_with_val(GENOTYPE, seed=5, folder=tmp_path, report=interrupting)
    epochs: list[int] = []
    again = task.evaluate_with_val(GENOTYPE, seed=5, folder=tmp_path, report=reporting_to(epochs), keep_weights=True)
    assert epochs == [3]
    assert without_resources(again) == without_resources(whole)
    assert task.val_metrics(tmp_path) == task.val_metrics(elsewhere)
    assert {path.name for path in tmp_path.iterdir()} == {FILE, VAL_DETECTIONS, "weights.safetensors"}
    assert {path.name for path in elsewhere.iterdir()} == {FILE, VAL_DETECTIONS}


def paused_at(task: ProxyTask, folder: Path, until: int | None) -> tuple[Evaluation, list[int]]:
    """Resume a trial up to an epoch, and return its result there and the epochs it reported."""
    epochs: list[int] = []
    result = task.evaluate(GENOTYPE, seed=5, folder=folder, report=reporting_to(epochs), until=until)
    return without_resources(result), epochs


@pytest.fixture(scope="module")
def measured(config: TaskConfig) -> TaskConfig:
    """The same task, with AP after each epoch."""
    return replace(config, eval=replace(config.eval, every_epochs=1))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_trial_that_pauses_after_each_epoch_has_the_same_result(
    measured: TaskConfig, tmp_path: Path, optimizer: Any
) -> None:
    train = replace(measured.train, optimizer=optimizer, learning_rate=3e-3, stochastic_depth=0.3)
    task = ProxyTask(replace(measured, train=train))
    whole = without_resources(task.evaluate(GENOTYPE, seed=5))
    for epoch in (1, 2):
        so_far, reported = paused_at(task, tmp_path, epoch)
        assert reported == [epoch]
        assert (so_far.stopped_after, so_far.objective) == (epoch, whole.curve[epoch - 1]["AP"])
        assert so_far.curve == whole.curve[:epoch]
        assert (so_far.params, so_far.network_key) == (whole.params, whole.network_key)
    assert paused_at(task, tmp_path, None) == (whole, [3])


def test_a_trial_pauses_at_an_epoch_that_an_earlier_attempt_has_already_passed(
    measured: TaskConfig, tmp_path: Path
) -> None:
    task = ProxyTask(measured)
    so_far, _ = paused_at(task, tmp_path, 1)
    interrupted(task, tmp_path, after=2)
    for until in (2, 1):  # the last epoch of the checkpoint, and the one before
        again, reported = paused_at(task, tmp_path, until)
        assert reported == []
        assert again.stopped_after == until
    assert again == so_far


class _InterruptsAfter:
    """A display that ends the search when it is told of an epoch."""

    def __init__(self, epoch: int | None):
        self._epoch = epoch

    def begin(self, progress: object) -> _InterruptsAfter:
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, event: Event) -> None:
        if isinstance(event, EpochDone) and event.epoch == self._epoch:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        pass


def test_a_resumed_search_resumes_within_its_trial(config: TaskConfig, tmp_path: Path) -> None:
    search = SearchConfig(task=config, budget=BudgetConfig(num_trials=1), executor=ExecutorConfig(kind="serial"))
    whole = run_search(search, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_search(search, out=tmp_path / "interrupted", display=_InterruptsAfter(2))
    again = resume(tmp_path / "interrupted")

    def outcome(run: Run) -> tuple[Evaluation, tuple[dict[str, float], ...]]:
        (record,) = run.records()
        assert record.evaluation is not None
        return without_resources(record.evaluation), run.folder.read_curve(0)

    assert outcome(again) == outcome(whole)
    events = [json.loads(line) for line in again.folder.journal_path.read_text().splitlines()]
    told = [(event["attempt"], event["epoch"]) for event in events if event["event"] == "epoch"]
    assert told == [(0, 1), (0, 2), (1, 3)]
    assert [path.name for path in again.folder.trial_folder(0).iterdir()] == ["curve.json"]


def test_complete_trials_of_a_search_with_rungs_have_the_results_of_a_search_without(
    measured: TaskConfig, tmp_path: Path
) -> None:
    halving = HalvingConfig((1, 2), reduction=2.0, min_results=1)
    search = SearchConfig(
        task=measured,
        budget=BudgetConfig(num_trials=4),
        executor=ExecutorConfig(kind="serial"),
        halving=halving,
        controller=ControllerConfig("random"),
    )
    run = run_search(search, out=tmp_path / "halved")
    records = run.records()
    assert {record.status for record in records} == {Status.COMPLETE, Status.PRUNED}
    for record in records:
        assert record.evaluation is not None
        assert record.genotype is not None
        whole = without_resources(ProxyTask(measured).evaluate(record.genotype, seed=record.seed))
        curve = run.folder.read_curve(record.number)
        assert curve == whole.curve[: record.evaluation.stopped_after]
        if record.status is Status.COMPLETE:
            assert record.evaluation.by_epoch == tuple((entry["epoch"], entry["AP"]) for entry in curve)
            assert without_resources(replace(record.evaluation, curve=curve, by_epoch=())) == whole
        assert [path.name for path in run.folder.trial_folder(record.number).iterdir()] == ["curve.json"]
    epochs = [(event["number"], event["epoch"]) for event in json_events(run.folder.journal_path) if "metrics" in event]
    assert len(epochs) == len(set(epochs)), "no epoch is trained twice"
    with pytest.raises(KeyboardInterrupt):
        run_search(search, out=tmp_path / "interrupted", display=_InterruptsAfter(2))
    again = resume(tmp_path / "interrupted").records()
    assert [(each.status, each.genotype, each.evaluation and each.evaluation.objective) for each in again] == [
        (each.status, each.genotype, each.evaluation and each.evaluation.objective) for each in records
    ]
