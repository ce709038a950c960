"""Configurations of short searches with a fake task, and helpers that read what a run recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from fake_task import FakeTask
from journal_lines import json_events

from spinenas.controller.predictor.freeze_thaw import FreezeThawOptions
from spinenas.proxy_task.config import EvalConfig, TaskConfig, TrainConfig
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.parts import BudgetConfig, HalvingConfig
from spinenas.search.run.run import Run

NUM_TRIALS = 9
NUM_EPOCHS = 4
RUNGS = HalvingConfig((1, 2), reduction=2.0, min_results=2)


def configured(num_trials: int = NUM_TRIALS, **executor: Any) -> SearchConfig:
    """Return a random search of that many trials with three workers in this process."""
    options = {"kind": "serial", "workers": 3, **executor}
    return SearchConfig(budget=BudgetConfig(num_trials), executor=ExecutorConfig(**options), seed=5)


def events_of(run: Run) -> list[dict[str, Any]]:
    """Return the events of a run's journal."""
    return json_events(run.folder.journal_path)


def timeless(events: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    """Return the events of these kinds without their times and attempts."""
    return [
        {key: value for key, value in event.items() if key not in ("at", "attempt")}
        for event in events
        if event["event"] in kinds
    ]


def outcome(run: Run) -> dict[int, Any]:
    """Return each trial's proposal and result by number, which are the same in two equal searches."""
    return {
        record.number: (record.genotype, record.replicate, record.seed, record.evaluation, record.failure)
        for record in run.records()
    }


def cut(run: Run, num_events: int, folder: Path) -> Path:
    """Copy a run as if its driver had died after that many events."""
    folder.mkdir()
    for name in ("config.json", "run.json"):
        (folder / name).write_bytes((run.folder.path / name).read_bytes())
    lines = run.folder.journal_path.read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:num_events]))
    return folder


def halved(num_trials: int = 16, halving: HalvingConfig = RUNGS, **executor: Any) -> SearchConfig:
    """Return a search with halving; its task trains for as many epochs as `fake()`."""
    task = TaskConfig(train=TrainConfig(epochs=NUM_EPOCHS), eval=EvalConfig(every_epochs=1))
    controller = ControllerConfig("evolution")
    return replace(configured(num_trials, **executor), controller=controller, task=task, halving=halving)


def paused(num_trials: int = 6, **executor: Any) -> SearchConfig:
    """Return a search that pauses trainings; its task trains for as many epochs as `fake(5)`."""
    task = TaskConfig(train=TrainConfig(epochs=5), eval=EvalConfig(every_epochs=1))
    options = FreezeThawOptions(num_random=3, num_candidates=4, replicate_chance=0.9)
    controller = ControllerConfig("freeze-thaw", freeze_thaw=options)
    config = replace(configured(num_trials, **executor), controller=controller, task=task)
    return replace(config, budget=BudgetConfig(num_trials, 0.2), seed=2)  # a seed with replicates


def fake(num_epochs: int = NUM_EPOCHS) -> FakeTask:
    """Return the task of a search with halving or pauses."""
    return FakeTask(num_epochs=num_epochs, measures_ap=True)
