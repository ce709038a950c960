"""Starts a run, or resumes it if it exists, so that a command can be repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from spinenas.results.storage.run_folder import RunFolder
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.loading import stored_config, with_changes
from spinenas.search.executors.base import Task
from spinenas.search.monitoring.base import Display
from spinenas.search.run.components import mirror_of, with_dtype
from spinenas.search.run.continuation import check_resumable, with_data
from spinenas.search.run.identity import check_equal, check_same_search
from spinenas.search.run.lifecycle import CONFIGURED_IN_PYTHON, resume, run_search
from spinenas.search.run.run import Run


def search_or_resume(
    config: SearchConfig,
    *,
    out: str | Path,
    task: Task | None = None,
    display: Display | None = None,
    config_toml: str = CONFIGURED_IN_PYTHON,
    warm_start: Sequence[Path] = (),
) -> Run:
    """Start a run, or resume it if it exists, so that a command can be repeated.

    A run whose folder is missing is restored from its mirror. The configuration must be the one the run began with,
    except for `executor`, `logging`, a larger budget and paths of the data, which are compared by their content.
    `warm_start` must name the runs that it began with, which need not exist any more. Raises UserError.
    """
    display = display or Display()
    path = Path(out)
    mirror = mirror_of(config)
    if not (path / "journal.jsonl").exists() and mirror is not None and mirror.holds_run():
        display.note(f"restoring {path} from {mirror.store.uri}")
        mirror.restore(path)
    if not (path / "journal.jsonl").exists():
        return run_search(config, out=out, task=task, display=display, config_toml=config_toml, warm_start=warm_start)
    folder = RunFolder.open(path)
    check_resumable(folder)
    begun_with = stored_config(folder.config())
    config = with_dtype(config, begun_with)
    budget = replace(begun_with.budget, replicate_share=config.budget.replicate_share)
    constraints = replace(config.constraints, class_channels=begun_with.constraints.class_channels)
    given_data = config.resolved().task.data
    same_place = with_data(replace(config, budget=budget, constraints=constraints), begun_with.task.data)
    check_same_search(path, begun_with, same_place.resolved())
    sources = [str(run) for run in warm_start]
    # Older runs have no warm start in run.json, only in their journal.
    check_equal(path, "warm start", folder.run_info().get("warm_start", sources), sources)
    before = with_changes(begun_with, Run(folder).state().resumes)
    given, is_larger = config.budget, config.num_epochs > before.num_epochs
    hours, hours_before = given.max_accelerator_hours, before.budget.max_accelerator_hours
    return resume(
        path,
        # An extension by an earlier resumption is kept.
        num_trials=given.num_trials if is_larger and given.epochs is None else None,
        num_epochs=given.epochs if is_larger else None,
        max_accelerator_hours=hours if hours and (hours_before is None or hours > hours_before) else None,
        data=None if given_data == begun_with.task.data else given_data,
        executor=config.executor,
        logging=config.logging,
        task=task,
        display=display,
    )
