"""A run keeps what its prior taught, and goes on without the file."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_task import FakeTask
from searches import cut, events_of, outcome
from shared_fixtures import REPOSITORY

from spinenas.controller.predictor.predictor_guided_evolution import PredictorGuidedOptions
from spinenas.controller.predictor.prior import read_lessons
from spinenas.search.cli.main import main
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.loading import load_config
from spinenas.search.config.parts import BudgetConfig
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.search.run.or_resume import search_or_resume
from spinenas.space import SearchSpace, UserError

pytestmark = pytest.mark.usefixtures("no_fsync")


def configured(prior: str | None, num_trials: int = 8) -> SearchConfig:
    options = PredictorGuidedOptions(num_random=1, num_candidates=20, prior=prior)
    return SearchConfig(
        budget=BudgetConfig(num_trials, replicate_share=0.0),
        executor=ExecutorConfig(kind="serial"),
        controller=ControllerConfig(predictor_guided=options),
    )


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv.gz"
    path.write_bytes((REPOSITORY / "benchmarks" / "tables" / "digits.csv.gz").read_bytes())
    return path


def test_a_run_cut_after_any_event_goes_on_to_the_same_result_without_the_file(tmp_path: Path, table: Path) -> None:
    task = FakeTask(num_epochs=1)
    whole = run_search(configured(str(table)), out=tmp_path / "whole", task=task)
    table.unlink()
    assert outcome(whole) != outcome(run_search(configured(None), out=tmp_path / "none", task=task))
    for num_events in range(1, len(events_of(whole)), 3):
        resumed = resume(cut(whole, num_events, tmp_path / f"cut{num_events}"), task=task)
        assert outcome(resumed) == outcome(whole), f"cut after event {num_events}"


def test_the_journal_has_what_the_prior_taught_and_no_line_more_without_one(tmp_path: Path, table: Path) -> None:
    task, space = FakeTask(num_epochs=1), SearchSpace.spinenet49()
    run = run_search(configured(str(table), 4), out=tmp_path / "run", task=task)
    lessons = [list(lesson) for lesson in read_lessons(str(table), space)]
    assert events_of(run)[0]["run"]["prior"] == run.folder.run_info()["prior"] == lessons
    without = run_search(configured(None, 4), out=tmp_path / "none", task=task)
    assert "prior" not in events_of(without)[0]["run"]
    assert "prior" not in without.folder.run_info()


def test_a_prior_is_kept_when_the_first_line_of_the_journal_is_lost(tmp_path: Path, table: Path) -> None:
    task = FakeTask(num_epochs=1)
    whole = run_search(configured(str(table)), out=tmp_path / "whole", task=task)
    table.unlink()
    folder = cut(whole, len(events_of(whole)) - 6, tmp_path / "cut")
    journal = folder / "journal.jsonl"
    _, rest = journal.read_bytes().split(b"\n", 1)
    journal.write_bytes(b"#\n" + rest)
    assert outcome(resume(folder, mend=True, task=task)) == outcome(whole)


def test_the_same_command_from_the_same_folder_resumes_and_another_prior_is_refused(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config, out = configured(table.name), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_search(config, out=out, task=FakeTask(interrupt_at=5))
    stored = json.loads((out / "config.json").read_text())
    assert stored["controller"]["predictor_guided"]["prior"] == str(table)
    with pytest.raises(UserError, match=r"its controller\.predictor_guided\.prior is '.*table\.csv\.gz', not 'digits'"):
        search_or_resume(configured("digits"), out=out, task=FakeTask())
    table.unlink()
    assert len(search_or_resume(config, out=out, task=FakeTask()).records()) == 8


def test_a_missing_prior_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.csv\.gz', and no such file exists"):
        run_search(configured(str(tmp_path / "nothing.csv.gz")), out=tmp_path / "run", task=FakeTask())
    assert not (tmp_path / "run").exists()


def test_a_run_is_a_prior_too(tmp_path: Path) -> None:
    earlier = run_search(configured(None, 16), out=tmp_path / "earlier", task=FakeTask(fail={2: "diverged"}))
    lessons = read_lessons(str(earlier.folder.path), SearchSpace.spinenet49())
    found = {record.network_key: record.evaluation for record in earlier.records() if record.evaluation}
    assert [ap for _, ap in lessons] == [evaluation.objective for evaluation in found.values()]
    assert len(lessons) == 15


@pytest.mark.parametrize("controller", ["predictor-guided", "freeze-thaw"])
@pytest.mark.parametrize(
    ("given", "prior"),
    [("digits", "digits"), ("none", None), ("a/table.csv.gz", str(Path("a/table.csv.gz").absolute()))],
)
def test_the_option_sets_the_prior_of_the_chosen_controller(controller: str, given: str, prior: str | None) -> None:
    command = ["config", "quickstart", "--controller", controller, "--prior", given]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert load_config(tomllib.loads(result.stdout)).controller.prior == prior


def test_a_controller_without_a_predictor_takes_no_prior() -> None:
    result = CliRunner().invoke(main, ["config", "quickstart", "--controller", "random", "--prior", "digits"])
    assert "the controller random has no predictor that a prior could teach; leave out --prior" in str(
        result.output + str(result.exception)
    )
