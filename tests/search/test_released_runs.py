"""Runs of earlier releases are read, ranked and resumed; none of their files is unpickled."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest
from fake_task import FakeTask
from shared_fixtures import REPOSITORY

from spinenas.results.record import Status
from spinenas.search.config.loading import stored_config
from spinenas.search.run.lifecycle import resume
from spinenas.search.run.run import Run

RUNS = sorted((REPOSITORY / "tests" / "assets" / "runs").iterdir())


@pytest.fixture(params=RUNS, ids=lambda path: path.name)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a run of FakeTask(fail={4: "diverged"}): 9 trials, extended to 10 after its driver died."""
    return Path(shutil.copytree(request.param, tmp_path / "run"))


def task() -> FakeTask:
    return FakeTask(fail={4: "diverged"})


def numbered(run: Run) -> list[tuple[object, ...]]:
    """Return trials and results without network keys, which the earlier fake task did not report."""
    return [
        (record.number, record.genotype, record.seed, record.evaluation and record.evaluation.objective)
        for record in run.records()
    ]


def test_a_run_of_a_released_version_is_opened_and_ranked(run: Path) -> None:
    opened = Run.open(run)
    records = opened.records()
    assert [record.status for record in records].count(Status.COMPLETE) == 9
    assert records[2].attempt == 2
    winner = opened.winner()
    assert winner is not None
    assert len(opened.leaderboard()) > 5
    assert [entry["epoch"] for entry in opened.folder.read_curve(0)] == [1, 2]
    assert stored_config(opened.folder.config()).seed == 5


def test_an_interrupted_run_of_a_released_version_finishes_identically(run: Path) -> None:
    """The second half of the asset was written by its own release when it resumed the first half."""
    whole = numbered(Run.open(run))
    path = run / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    finished = [n for n, line in enumerate(lines) if b'"told"' in line]
    path.write_bytes(b"".join(lines[: finished[-1]]))
    assert numbered(resume(run, task=task())) == whole


def test_a_run_of_a_released_version_can_be_extended(run: Path) -> None:
    assert len(resume(run, num_trials=12, task=task()).records()) == 12


def test_no_module_reads_files_in_formats_that_can_execute_code() -> None:
    """There is no pickle, shelve, marshal or torch.load, no `eval` or `exec` of text, and no unsafe YAML."""
    for folder in ("search", "space", "proxy_task", "controller", "results"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names: list[str] = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                elif isinstance(node, ast.Call):
                    names = [ast.unparse(node.func)]
                forbidden = {"pickle", "shelve", "marshal", "dill", "joblib", "torch.load", "eval", "exec", "yaml.load"}
                assert not forbidden & set(names), f"{path}: {names}"
