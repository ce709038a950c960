"""Reads a run, finished or running, as the plain facts that its report shows."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from spinenas.results.report.facts import Pause, RunFacts
from spinenas.results.storage.accelerator_time import AcceleratorTime
from spinenas.results.storage.epoch_count import EpochCount
from spinenas.results.storage.events import Finished, Paused, Refused, Resumed
from spinenas.results.storage.journal import read_events
from spinenas.results.storage.lease import is_owned, last_sign_of_life
from spinenas.results.storage.run_folder import RunFolder
from spinenas.results.storage.run_state import Fold, with_pauses, without_driver
from spinenas.results.storage.utc import now
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.loading import stored_config, with_changes
from spinenas.space.errors import UserError
from spinenas.space.published import PUBLISHED

REFERENCES = ("spinenet-49", "r0-sp53", "r23-sp30")
"""Published architectures whose costs are shown for comparison."""

MOST_DAMAGE = 1000


def read_facts(path: Path) -> RunFacts:
    """Read a run, running or finished, for its report. Damaged parts are left out. Raises UserError."""
    folder = RunFolder.open(path)
    # Asked before the journal is read: a search that ends in between still counts as running, and is read again.
    owned, killed_at = is_owned(path / "lease"), last_sign_of_life(path / "lease")
    fold, taken = Fold(gaps=True), AcceleratorTime()
    hours: dict[int, float] = {}
    refused: Counter[str] = Counter()
    damage: list[str] = []
    last = ""
    resumes: list[dict[str, Any]] = []
    config, settings = _config(folder)
    count, epochs, pauses = EpochCount(config.task.train.epochs if config else 0), dict[int, int](), list[Pause]()
    for event in read_events(folder.journal_path, epochs=False, on_damage=damage.append):
        try:
            fold.add(event)
            taken.add(event)
            count.add(event)
        except UserError as error:
            if len(damage) < MOST_DAMAGE:
                damage.append(str(error))
            continue
        last = event.at or last
        match event:
            case Finished(number):
                hours[number] = taken.hours(last)
                epochs[number] = count.done
            case Paused(_, _, evaluation) if count.pauses:
                stopped_after = evaluation.stopped_after or 0
                pauses.append(Pause(stopped_after, evaluation.objective, count.done, taken.hours(last)))
            case Refused():
                refused[str(event.reason)] += 1
            case Resumed():
                resumes.append(event.changes)
    if damage and not fold.is_begun:
        raise UserError(
            f"{folder.journal_path} cannot be read, because its first line is damaged; restore it from a copy, "
            f"or repair it with: spinenas resume {shlex.quote(str(path))} --salvage"
        )
    state = with_pauses(fold.state() if owned else without_driver(fold.state()))
    if config is not None:
        config = with_changes(config, resumes)
    return RunFacts(
        name=path.resolve().name,
        records=tuple(state.trials.values()),
        told=tuple(state.told),
        hours=hours,
        total_hours=taken.hours(now() if owned else taken.until(killed_at)) if last else 0.0,
        losses=Counter(str(kind) for of_trial in state.losses.values() for kind in of_trial.elements()),
        refused=refused,
        damage=tuple(damage),
        config=settings,
        info=_or_empty(folder.run_info),
        resumed_with=tuple(each["versions"] for each in resumes if isinstance(each.get("versions"), dict)),
        num_trials=config.budget.num_trials if config else None,
        price_per_hour=config.budget.price_per_accelerator_hour if config else None,
        cost_target=config.cost_target() if config else None,
        published=_published(config, _or_empty(folder.run_info)),
        whole_epochs=config.task.train.epochs if config else None,
        num_epochs=config.num_epochs if config and config.pauses_trainings else None,
        epochs=epochs if config else {},
        total_epochs=count.done,
        pauses=tuple(pauses),
        validation=_validation(path),
        scalarize=config.scalarized_objective() if config else None,
        is_over=not owned,
        read_at=now(),
    )


def _or_empty(read: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
    try:
        return read() or {}
    except UserError:
        return {}


def _config(folder: RunFolder) -> tuple[SearchConfig | None, dict[str, Any]]:
    """Return the configuration, None if this version cannot read it, and its JSON."""
    settings = _or_empty(folder.config)
    try:
        return stored_config(settings), settings
    except UserError:
        return None, settings


def _published(config: SearchConfig | None, info: dict[str, Any]) -> tuple[tuple[str, int, int], ...]:
    """Return the costs of published architectures in the detector in which the run counts costs."""
    if config is None:
        return ()
    data = info.get("data")
    categories = data.get("categories") if isinstance(data, dict) else None
    num_categories = len(categories) if isinstance(categories, list | dict) else 90
    target = replace(config.constraints, class_channels=num_categories + 1).cost_target(config.task)
    costs = [(name, target.cost(PUBLISHED[name].architecture)) for name in REFERENCES]
    return tuple((name, cost.params, cost.madds) for name, cost in costs)


def _validation(path: Path) -> dict[str, Any] | None:
    folder = RunFolder(path / "validation")
    return _or_empty(folder.read_validation) or None


def read_control(path: Path, facts: RunFacts) -> RunFacts:
    """Read a control run. Raises UserError if its task differs."""
    control = read_facts(path)
    if control.task_key and facts.task_key and control.task_key != facts.task_key:
        raise UserError(
            f"{path} is of another task than {facts.name} ({control.task_key!r}, not {facts.task_key!r}), so their "
            "results cannot be compared; name a control run of the same task"
        )
    return control
