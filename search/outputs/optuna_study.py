"""Exports a run as an Optuna study in an SQLite file, for optuna-dashboard and Optuna's own plots."""

from __future__ import annotations

import os
import tempfile
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinenas.results.record import Status, TrialRecord
from spinenas.results.storage.atomic_write import check_destination
from spinenas.search.config.loading import stored_config
from spinenas.search.run.run import Run
from spinenas.space.errors import explained_os_errors
from spinenas.space.search_space import SearchSpace, space_by_name

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def write_optuna_study(run: Run, path: Path, *, force: bool = False) -> None:
    """Write all trials of a run atomically as a study of the same name. Raises UserError.

    Trials keep their numbers. Parameters are the decisions of the search space, the value is AP, and intermediate
    values are APs by epoch. A trial that is paused at a rung counts as running. Parents, seeds and costs are user
    attributes.
    """
    import optuna  # slow to load

    check_destination(path, force=force)
    space = space_by_name(stored_config(run.folder.config()).space.name)
    trials = [_trial(record, run, space) for record in run.records()]
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # hides the message about the new study
    try:
        explained = explained_os_errors(f"cannot write {path}", "choose a place that can be written")
        with explained, tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            file = Path(folder) / "study.db"
            storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
            study = optuna.create_study(storage=storage, study_name=run.folder.path.name, direction="maximize")
            with warnings.catch_warnings(action="ignore"):  # metric names are experimental
                study.set_metric_names(["AP"])
            study.add_trials(trials)
            storage.engine.dispose()
            os.replace(file, path)
    finally:
        optuna.logging.set_verbosity(verbosity)


def _trial(record: TrialRecord, run: Run, space: SearchSpace) -> FrozenTrial:
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import TrialState, create_trial

    states = {
        Status.ASKED: TrialState.WAITING,
        Status.RUNNING: TrialState.RUNNING,
        Status.INTERRUPTED: TrialState.RUNNING,
        Status.PAUSED: TrialState.RUNNING,
        Status.COMPLETE: TrialState.COMPLETE,
        Status.PRUNED: TrialState.PRUNED,
        Status.FAILED: TrialState.FAIL,
    }
    decisions = () if record.genotype is None else space.decisions
    options = () if record.genotype is None else space.encode(record.genotype)
    evaluation = record.evaluation
    curve = run.folder.read_curve(record.number)
    trial = create_trial(
        state=states[record.status],
        value=evaluation.objective if evaluation is not None and record.status is Status.COMPLETE else None,
        params={decision.name: option for decision, option in zip(decisions, options, strict=True)},
        distributions={decision.name: CategoricalDistribution(range(decision.num_options)) for decision in decisions},
        user_attrs=_attributes(record),
        intermediate_values={int(entry["epoch"]): entry["AP"] for entry in curve if "AP" in entry},
    )
    if record.status is not Status.ASKED:
        trial.datetime_start = _local(record.started_at or record.asked_at)
    if trial.state.is_finished():
        trial.datetime_complete = _local(record.finished_at) or trial.datetime_start
    return trial


def _attributes(record: TrialRecord) -> dict[str, Any]:
    """Return the user attributes of a trial; unknown values are left out."""
    evaluation, failure = record.evaluation, record.failure
    known: dict[str, Any] = {
        "architecture": record.genotype.text if record.genotype else record.architecture,
        "network_key": record.network_key,
        "replicate": record.replicate,
        "stage": str(record.stage),
        "origin": record.origin,
        "parent": record.parent,
        "seed": record.seed,
        "params": evaluation and evaluation.params,
        "madds": evaluation and evaluation.madds,
        "train_seconds": evaluation and evaluation.train_seconds,
        "failure": failure and f"{failure.kind}: {failure.message}",
    }
    return {name: value for name, value in known.items() if value is not None}


def _local(time: str | None) -> datetime | None:
    """Convert an ISO time to Optuna's form: local time without a time zone."""
    return None if time is None else datetime.fromisoformat(time).astimezone(UTC).astimezone().replace(tzinfo=None)
