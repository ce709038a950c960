"""A run as an Optuna study: Optuna reads the trials of the journal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from fake_task import FakeTask

from spinenas.results.record import Status
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.parts import BudgetConfig, HalvingConfig
from spinenas.search.outputs.optuna_study import write_optuna_study
from spinenas.search.run.lifecycle import run_search
from spinenas.search.run.run import Run
from spinenas.space.errors import UserError
from spinenas.space.search_space import SearchSpace

CONFIG = SearchConfig(
    budget=BudgetConfig(num_trials=14, replicate_share=0.2), executor=ExecutorConfig(kind="serial"), seed=3
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    task = replace(CONFIG.task, eval=replace(CONFIG.task.eval, every_epochs=1))
    halved = replace(CONFIG, task=task, halving=HalvingConfig(rungs=(1, 2), reduction=2.0, min_results=2))
    fake = FakeTask(num_epochs=3, fail={4: "diverged"}, measures_ap=True)
    return run_search(halved, out=tmp_path / "run", task=fake)


def test_optuna_reads_every_trial_with_its_parameters_and_curve(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    write_optuna_study(run, path)
    study = optuna.load_study(storage=f"sqlite:///{path}", study_name="run")
    records = run.records()
    assert [trial.number for trial in study.trials] == [record.number for record in records]
    space = SearchSpace.spinenet49()
    kinds = {record.status for record in records}
    assert kinds == {Status.COMPLETE, Status.PRUNED, Status.FAILED}
    for trial, record in zip(study.trials, records, strict=True):
        assert record.genotype is not None
        vector = [trial.params[decision.name] for decision in space.decisions]
        assert space.decode(vector) == record.genotype
        assert trial.user_attrs["replicate"] == record.replicate
        assert trial.datetime_start is not None
        assert trial.datetime_complete is not None
        assert trial.datetime_complete >= trial.datetime_start
        if record.status is Status.COMPLETE:
            assert record.evaluation is not None
            assert trial.value == record.evaluation.objective
            assert trial.intermediate_values[3] == record.evaluation.objective
        else:
            assert trial.values is None
    failed = [trial for trial in study.trials if trial.state is optuna.trial.TrialState.FAIL]
    assert failed[0].user_attrs["failure"].startswith("diverged: ")
    best = max(
        record.evaluation.objective for record in records if record.evaluation and record.status is Status.COMPLETE
    )
    assert study.best_value == best
    assert study.metric_names == ["AP"]


def test_nothing_is_overwritten_and_no_partial_file_is_left(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    path.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        write_optuna_study(run, path)
    assert path.read_text() == "mine"
    before = sorted(tmp_path.iterdir())
    write_optuna_study(run, path, force=True)
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(UserError, match="nowhere does not exist; create it first"):
        write_optuna_study(run, tmp_path / "nowhere" / "run.db")
