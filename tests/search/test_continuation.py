"""A run goes on where its data lie elsewhere, with other versions, and after its driver was killed."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fake_task import FakeTask
from journal_lines import json_events
from searches import NUM_TRIALS, configured, cut, events_of, outcome
from shared_fixtures import REPOSITORY
from small_task import small_dataset, small_task

import spinenas.search.run.lifecycle as loop
from spinenas.proxy_task.config import EvalConfig
from spinenas.results.record import Status
from spinenas.results.report.page import report_page
from spinenas.results.storage.run_folder import CHECKPOINT
from spinenas.search.cli.main import main
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.config.document import toml_text
from spinenas.search.config.loading import load_config_file
from spinenas.search.monitoring.display import PlainDisplay
from spinenas.search.outputs.optuna_study import write_optuna_study
from spinenas.search.outputs.run_facts import read_facts
from spinenas.search.run.identity import changed_data
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.search.run.or_resume import search_or_resume
from spinenas.search.run.run import Run
from spinenas.space import UserError

pytestmark = pytest.mark.usefixtures("no_fsync")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchConfig, Run]:
    """A search of two trainings on real data, and its configuration."""
    task = small_task(small_dataset(tmp_path_factory), tmp_path_factory, EvalConfig(), epochs=1)
    config = replace(configured(2), task=task, controller=ControllerConfig("random"))
    return config, run_search(config, out=tmp_path_factory.mktemp("runs") / "run")


def copied(config: SearchConfig, run: Run, folder: Path) -> tuple[Path, Path]:
    """Copy a run without its last trial, and its data, to places that the run does not know."""
    data = Path(shutil.copytree(config.task.data.folder, folder / "my data"))
    events = events_of(run)
    return cut(run, next(n for n, event in enumerate(events) if event["event"] == "told") + 1, folder / "run"), data


def objectives(run: Run) -> list[Any]:
    """Return the network and the AP of each trial."""
    return [(record.network_key, record.evaluation and record.evaluation.objective) for record in run.records()]


def test_a_run_goes_on_with_its_data_elsewhere_and_keeps_the_new_place(
    trained: tuple[SearchConfig, Run], tmp_path: Path
) -> None:
    config, whole = trained
    run, data = copied(config, whole, tmp_path)
    old = Path(config.task.data.folder)
    aside = old.rename(old.with_name("aside"))
    try:
        with pytest.raises(UserError, match=rf"^{old} does not exist here; .*: spinenas resume {run} --data FOLDER$"):
            resume(run)
        for command in (["preflight", run], ["data", "check", run]):
            result = CliRunner().invoke(main, [str(word) for word in command])
            assert f"{old}, the data of {run}, does not exist here; add --data FOLDER" in result.stderr
        resumed = resume(run, data=data)
        assert objectives(resumed) == objectives(whole)
        assert json.loads((run / "config.json").read_text())["task"]["data"]["folder"] == str(data)
        for command in (["preflight", run], ["data", "check", run]):
            assert CliRunner().invoke(main, [str(word) for word in command]).exit_code == 0, "it is kept"
        again = resume(run, num_trials=3)
        assert len(again.records()) == 3
        (first, second) = [event["changes"] for event in events_of(again) if event["event"] == "resumed"]
        assert first["data"]["folder"] == str(data)
        assert "data" not in second
    finally:
        aside.rename(old)


def test_other_data_are_refused_and_not_kept(trained: tuple[SearchConfig, Run], tmp_path: Path) -> None:
    config, whole = trained
    run, data = copied(config, whole, tmp_path)
    (annotations,) = data.rglob("*train*.json")
    document = json.loads(annotations.read_text())
    document["annotations"].pop()
    annotations.write_text(json.dumps(document))
    before = (run / "config.json").read_bytes()
    with pytest.raises(UserError, match="the data changed: the train annotations were edited since the run began"):
        resume(run, data=data)
    with pytest.raises(UserError, match="nowhere does not exist; check the path given to --data"):
        resume(run, data=tmp_path / "nowhere")
    assert (run / "config.json").read_bytes() == before


def test_a_finished_run_keeps_the_new_place_of_its_data(trained: tuple[SearchConfig, Run], tmp_path: Path) -> None:
    config, whole = trained
    _, data = copied(config, whole, tmp_path)
    run = cut(whole, len(events_of(whole)), tmp_path / "finished")
    resume(run, data=data)
    assert json.loads((run / "config.json").read_text())["task"]["data"]["folder"] == str(data)
    assert events_of(Run.open(run)) == events_of(whole)


@pytest.mark.parametrize("is_commented", [False, True])
def test_the_configuration_as_given_names_the_new_place_and_keeps_its_comments(
    trained: tuple[SearchConfig, Run], tmp_path: Path, is_commented: bool
) -> None:
    config, whole = trained
    run, data = copied(config, whole, tmp_path)
    written = toml_text(config.to_json())
    (run / "config.toml").write_text(f"# mine\n{written}" if is_commented else written)
    for place in (data, tmp_path / "moved again"):
        if not place.exists():
            data.rename(place)
        resume(run, data=place)
    text = (run / "config.toml").read_text()
    assert load_config_file(run / "config.toml").task.data.folder == str(place)
    assert text.count("# # mine\n") == is_commented, "the former text is a comment, once"
    assert ("# task.data.folder" in text) == is_commented


def test_a_finished_run_says_how_to_extend_it(tmp_path: Path) -> None:
    run_search(configured(3), out=tmp_path / "run", task=FakeTask())
    stream = io.StringIO()
    resume(tmp_path / "run", task=FakeTask(), display=PlainDisplay(stream))
    assert stream.getvalue() == "all 3 trials are done; --trials N extends the search\n"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"train_annotations": "c", "train_images": "d", "num_train_images": 30, "categories": ["x"]},
            "these are other train images: 34 images of 1 category, the run had 24 images of 2 categories; name",
        ),
        ({"train_annotations": "c", "train_images": "d"}, "labels and files are others; name the folder"),
        ({"train_annotations": "c"}, "the train annotations were edited since the run began; restore the file"),
        ({"train_images": "d"}, "train image files were replaced since the run began; restore the files"),
        ({"val_annotations": "c"}, "the val annotations were edited since the run began"),
        ({"exif": "stored"}, "exif was None and is 'stored'; restore the former value"),
    ],
)
def test_what_changed_in_the_data_is_said_in_words(changes: dict[str, Any], words: str) -> None:
    before = {
        "train_annotations": "a",
        "train_images": "b",
        "num_train_images": 20,
        "num_reward_images": 4,
        "categories": ["x", "y"],
        "val_annotations": "a",
    }
    sentence = changed_data(before, before | changes)
    assert words in sentence
    assert "{" not in sentence


def test_the_same_command_goes_on_with_equal_data_at_another_path(
    trained: tuple[SearchConfig, Run], tmp_path: Path
) -> None:
    config, whole = trained
    run, data = copied(config, whole, tmp_path)
    moved = replace(config, task=replace(config.task, data=replace(config.task.data, folder=str(data))))
    assert objectives(search_or_resume(moved, out=run)) == objectives(whole)
    assert objectives(search_or_resume(config, out=run)) == objectives(whole), "and back"
    other = replace(moved, task=replace(moved.task, data=replace(moved.task.data, held_out_images=9)))
    with pytest.raises(UserError, match=r"its task\.data\.held_out_images is None, not 9"):
        search_or_resume(other, out=run)


def test_changed_versions_are_said_at_the_resumption_and_all_are_on_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_search(configured(), out=tmp_path / "whole", task=FakeTask())
    run = cut(whole, 9, tmp_path / "run")
    said = []
    for torch in ("1.1", "1.1", "2.2"):
        stream = io.StringIO()
        monkeypatch.setattr(loop, "versions", lambda torch=torch: whole.state().run["versions"] | {"torch": torch})
        with pytest.raises(KeyboardInterrupt):
            resume(run, task=FakeTask(interrupt_at=5), display=PlainDisplay(stream))
        said.append(next((line for line in stream.getvalue().splitlines() if "versions changed" in line), None))
    first = whole.state().run["versions"]["torch"]
    assert (
        said[0] == f"versions changed since the last session: torch {first} is now 1.1; new trials may differ slightly"
    )
    assert said[1] is None
    assert said[2] == "versions changed since the last session: torch 1.1 is now 2.2; new trials may differ slightly"
    facts = read_facts(run)
    page = re.sub(r"<[^>]*>", " ", report_page(facts))
    assert f"{first}, then 1.1, then 2.2" in page


def test_trials_of_a_run_without_a_driver_are_interrupted(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_search(configured(), out=tmp_path / "run", task=FakeTask(interrupt_at=5))
    run = Run.open(tmp_path / "run")
    assert run.records()[5].status is Status.INTERRUPTED
    printed = CliRunner().invoke(main, ["leaderboard", str(run.folder.path), "--json"])
    assert [row["status"] for row in json.loads(printed.stdout)] == ["complete"] * 5 + ["interrupted"]
    assert "interrupted" in CliRunner().invoke(main, ["show", str(run.folder.path), "5"]).output
    assert "1 interrupted" in report_page(read_facts(run.folder.path))
    write_optuna_study(run, tmp_path / "study.db")
    assert outcome(resume(run.folder.path, task=FakeTask())).keys() == set(range(NUM_TRIALS))


def test_trials_of_a_running_search_are_running(tmp_path: Path) -> None:
    seen: list[Status] = []

    class Looking(FakeTask):
        def evaluate(self, *arguments: Any, **options: Any) -> Any:
            seen.append(Run.open(tmp_path / "run").records()[-1].status)
            seen.append(read_facts(tmp_path / "run").records[-1].status)
            return super().evaluate(*arguments, **options)

    run_search(configured(1), out=tmp_path / "run", task=Looking())
    assert seen == [Status.RUNNING, Status.RUNNING]


@pytest.mark.parametrize(("has_checkpoint", "words"), [(True, "it continues after epoch 3"), (False, "starts again")])
def test_a_resumption_names_the_epoch_that_a_trial_continues_from(
    tmp_path: Path, has_checkpoint: bool, words: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_search(configured(), out=tmp_path / "run", task=FakeTask(num_epochs=3, interrupt_at=5))
    if has_checkpoint:
        (tmp_path / "run" / "trials" / "000005" / CHECKPOINT).touch()
    stream = io.StringIO()
    resume(tmp_path / "run", task=FakeTask(), display=PlainDisplay(stream))
    (line,) = [line for line in stream.getvalue().splitlines() if "was interrupted" in line]
    assert line.startswith("trial 5 was interrupted; it ")
    assert words in line


KILLED = """
import sys
from pathlib import Path
import spinenas.results.storage.ownership as ownership
from fake_task import FakeTask
from searches import configured
from spinenas.search.run.lifecycle import run_search

ownership.HEARTBEAT_SECONDS = 0.05
run_search(configured(2), out=Path(sys.argv[1]), task=FakeTask(num_epochs=1, epoch_seconds=30))
"""


def test_hours_of_an_attempt_count_until_its_driver_was_killed_and_the_parts_sum_up(tmp_path: Path) -> None:
    out = tmp_path / "run"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "tests")}
    search = subprocess.Popen([sys.executable, "-c", KILLED, str(out)], env=environment)
    deadline = time.monotonic() + 60
    while not (out / "journal.jsonl").exists() or b'"event":"started"' not in (out / "journal.jsonl").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1.5)
    search.send_signal(signal.SIGKILL)
    search.wait()
    before = read_facts(out).total_hours
    assert before * 3600 >= 1.0, "the journal's last event is the start of the attempt"
    with pytest.raises(ZeroDivisionError):  # a resumption that fails before anything is written
        resume(out, task=_Unprepared())
    run = resume(out, task=FakeTask(num_epochs=1))
    begun: dict[int, str] = {}
    killed_at = ""
    seconds = 0.0
    for event in json_events(out / "journal.jsonl"):
        if event["event"] == "started":
            begun[event["number"]] = event["at"]
        elif event["event"] == "resumed":
            killed_at = event["changes"]["killed_at"]
            seconds += _between(begun.pop(0), killed_at)
        elif event["event"] == "told":
            seconds += _between(begun.pop(event["number"]), event["at"])
    assert read_facts(run.folder.path).total_hours * 3600 == pytest.approx(seconds)
    assert seconds >= before * 3600


def _between(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


class _Unprepared(FakeTask):
    def prepare(self, *, with_val: bool = False) -> None:
        raise ZeroDivisionError
