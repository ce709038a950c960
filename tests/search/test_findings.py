"""What was found in the data is kept by the run and said where its figures are read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from data_sets import document, write_set
from small_task import small_task

from spinenas.proxy_task.config import EvalConfig
from spinenas.results.storage.journal_lines import decode, encode
from spinenas.search.cli.main import main
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.parts import BudgetConfig, SpaceConfig
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.space.errors import UserError

TURNED = "boxes with negative width or height, turned round"
SHARED = "val images whose file train lists too"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of one trial on data with two findings, one of them about val."""
    train, val = document(num_images=12), document(num_images=2)
    train["annotations"][3]["bbox"] = [70, 12, -30, 20]
    folder = write_set(tmp_path_factory.mktemp("data") / "set", train, val)
    for number in range(12):  # two files of the same bytes
        path = folder / f"images/{number}.png"
        path.touch()
    shutil.copy(folder / "images/4.png", folder / "images/5.png")
    task = small_task(folder, tmp_path_factory, EvalConfig(), epochs=1)
    config = SearchConfig(
        space=SpaceConfig("tiny"),
        controller=ControllerConfig("random"),
        budget=BudgetConfig(1, replicate_share=0),
        executor=ExecutorConfig(kind="serial"),
        task=replace(task, train=replace(task.train, batch_size=4)),
    )
    out = tmp_path_factory.mktemp("runs") / "run"
    run_search(config, out=out)
    return out


def command(*words: Any) -> Any:
    return CliRunner().invoke(main, [str(word) for word in words], prog_name="spinenas")


def test_the_run_keeps_what_was_found(run: Path) -> None:
    found = {entry["what"]: entry for entry in json.loads((run / "run.json").read_text())["findings"]}
    assert (found[TURNED]["count"], found[TURNED]["total"]) == (1, 24)
    assert (found[SHARED]["count"], found[SHARED]["total"]) == (2, 2)
    assert found["images with the same bytes as an earlier one, never separated by the hold-out"]["count"] == 1


def test_the_report_shows_what_was_found(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = command("report", run, "--out", page)
    assert result.exit_code == 0, result.stderr
    text = page.read_text()
    assert "Found in the data" in text
    assert TURNED in text
    assert SHARED in text


def test_preflight_says_what_was_found(run: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    result = command("preflight", run, "--out", tmp_path / "new", "--no-train")
    said = result.stdout + result.stderr + caplog.text
    assert TURNED in said, said
    assert SHARED in said


def test_an_older_run_whose_pictures_were_on_both_sides_is_not_resumed(run: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(run, older)
    journal = older / "journal.jsonl"
    first, *others = journal.read_bytes().splitlines(keepends=True)
    event = decode(first, checked=True)
    assert event is not None
    del event["run"]["data"]["hold_out"], event["crc32"]
    journal.write_bytes(encode(event, event.pop("fence")) + b"".join(others))
    before = journal.read_bytes()
    with pytest.raises(UserError, match=r"learned to hold such images out together.*start a new run"):
        resume(older, num_trials=2)
    assert journal.read_bytes() == before
