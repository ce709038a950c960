"""What a user sees of a search that pauses trainings: its gate, its progress, its leaderboard and its reports."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fake_task import FakeTask
from report_pages import Page
from rich.console import Console
from searches import configured, events_of

from spinenas.proxy_task.config import TaskConfig, TrainConfig
from spinenas.results.report.comparison import compare_page, comparison_figures
from spinenas.results.report.page import report_page, status_words
from spinenas.results.report.progress_figures import progress_figures
from spinenas.results.storage.epoch_count import EpochCount
from spinenas.results.storage.journal import read_events
from spinenas.search.cli.main import main
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.config.parts import BudgetConfig
from spinenas.search.monitoring.base import Display
from spinenas.search.monitoring.display import LiveDisplay, PlainDisplay
from spinenas.search.outputs.run_facts import read_facts
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.search.run.or_resume import search_or_resume
from spinenas.search.run.run import Run
from spinenas.space.errors import UserError

WHOLE = 5
BUDGET = 60


def pausing(epochs: int = BUDGET, **executor: Any) -> SearchConfig:
    return replace(
        configured(**executor),
        controller=ControllerConfig("freeze-thaw"),
        task=TaskConfig(train=TrainConfig(epochs=WHOLE)),
        budget=BudgetConfig(epochs=epochs),
    )


def fake(**fields: Any) -> FakeTask:
    return FakeTask(num_epochs=WHOLE, measures_ap=True, **fields)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[str]]:
    """A finished search, and the lines that it printed."""
    stream = io.StringIO()
    run = run_search(
        pausing(), out=tmp_path_factory.mktemp("pausing") / "run", task=fake(), display=PlainDisplay(stream)
    )
    return run, stream.getvalue().splitlines()


@pytest.fixture
def stopped(tmp_path: Path) -> Run:
    """A search that was interrupted before any training was complete."""
    with pytest.raises(KeyboardInterrupt):
        run_search(pausing(), out=tmp_path / "stopped", task=fake(interrupt_at=6))
    return Run.open(tmp_path / "stopped")


def printed(*words: object) -> str:
    return CliRunner().invoke(main, [str(word) for word in words]).stdout


def said(*words: object) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_search_says_at_its_start_where_trainings_pause(watched: tuple[Run, list[str]], tmp_path: Path) -> None:
    run, lines = watched
    assert lines[0].startswith("trainings pause after epochs 1 and 3 of 5; 6 of the 60 epochs (12 trainings' worth)")
    assert run.folder.config()["controller"]["freeze_thaw"]["rungs"] == [1, 3]
    stream = io.StringIO()
    run_search(configured(2), out=tmp_path / "other", task=FakeTask(), display=PlainDisplay(stream))
    assert "pause" not in stream.getvalue()


def test_lines_count_epochs_as_trainings_and_say_how_far_networks_are(watched: tuple[Run, list[str]]) -> None:
    _, lines = watched
    first = next(line for line in lines if "paused" in line)
    assert first.startswith("trial 0 paused after epoch 1 with AP ")
    assert "0.2 of 12 trainings' worth done (1 network, 1 at epoch 1, none whole), trial 0 leads with AP" in first
    assert any(", up to epoch 3" in line for line in lines)
    last = lines[-1]
    assert "12 of 12 trainings' worth done" in last
    assert "best 0." in last, "trainings are complete"
    assert last.endswith(" 0:00:00 left")
    assert not any("stopped after epoch" in line for line in lines), "a pause was said already"


def test_epochs_done_and_granted_are_those_of_the_journal(watched: tuple[Run, list[str]], stopped: Run) -> None:
    for run in (watched[0], stopped):
        count = EpochCount(WHOLE)
        for event in read_events(run.folder.journal_path, epochs=False):
            count.add(event)
        steps, reached = 0, dict[int, int]()
        for event in events_of(run):
            if event["event"] == "paused":
                reached[event["number"]] = event["evaluation"]["stopped_after"]
            elif event["event"] == "told" and event["evaluation"]["stopped_after"] is None:
                reached[event["number"]] = WHOLE
            elif event["event"] == "asked":
                steps += event["proposal"]["until"] or WHOLE
            elif event["event"] == "promoted":
                steps += (event["until"] or WHOLE) - event["epoch"]
        assert count.done == sum(reached.values())
        assert count.granted == steps
        assert EpochCount.of_state(run.state(), WHOLE).done == count.done
        assert EpochCount.of_state(run.state(), WHOLE).granted == count.granted
    assert count.granted > count.done, "the interrupted training was not done"


def test_a_failed_training_counts_with_the_epochs_it_was_given(tmp_path: Path) -> None:
    run = run_search(pausing(10), out=tmp_path / "run", task=fake(fail={0: "diverged"}))
    count = EpochCount.of_state(run.state(), WHOLE)
    assert count.done == count.granted


def test_a_live_table_shows_trainings_worth_and_pace(stopped: Run) -> None:
    display = LiveDisplay(Console(file=io.StringIO(), force_terminal=True, width=120))
    drawn: list[str] = []

    class Drawn(Display):
        def begin(self, progress: Any) -> Any:
            return display.begin(progress)

        def show(self, event: Any) -> None:
            display.show(event)
            with display._console.capture() as capture:
                display._console.print(display._draw())
            drawn.append(capture.get())

    resume(stopped.folder.path, task=fake(), display=Drawn())
    assert "of 12 trainings' worth, 0 failed" in drawn[0]
    assert "trainings' worth per hour" in drawn[-1]
    assert "stopped early" not in drawn[-1]


def test_a_resumed_search_continues_to_count(stopped: Run) -> None:
    done = EpochCount.of_state(stopped.state(), WHOLE).done / WHOLE
    stream = io.StringIO()
    resume(stopped.folder.path, task=fake(), display=PlainDisplay(stream))
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("trainings pause after epochs 1 and 3 of 5")
    assert f"resumed with {done:g} of 12 trainings' worth done" in lines
    assert "12 of 12 trainings' worth done" in lines[-1]


def test_a_stopped_search_says_who_leads_and_how_to_finish_it(stopped: Run) -> None:
    words = said("leaderboard", stopped.folder.path)
    assert "no winner yet, as no training is complete; trial " in words
    assert " after 3 of 5 epochs" in words
    assert f"continue the search with: spinenas resume {stopped.folder.path}" in words
    assert "trainings' worth of epochs are used" in words
    assert "predicted once 3 trainings are complete" in words
    assert "leads with AP" in stopped.no_winner()
    assert stopped.winner() is None


def test_networks_without_a_whole_training_follow_with_what_is_predicted(watched: tuple[Run, list[str]]) -> None:
    rows = json.loads(printed("leaderboard", watched[0].folder.path, "--json", "--top", 100))
    whole = [row for row in rows if row["n"] > 0]
    rest = [row for row in rows if row["n"] == 0]
    assert rows == [*whole, *rest]
    assert len(whole) >= 2
    assert all(row["epochs_seen"] is None and row["predicted"] is None for row in whole)
    assert {row["epochs_seen"] for row in rest} <= {1, 3}
    assert all(row["objective"] is None and row["objective_so_far"] is not None for row in rest)
    predicted = [row["predicted"] for row in rest]
    assert predicted == sorted(predicted, reverse=True)
    words = said("leaderboard", watched[0].folder.path, "--top", 100)
    assert f"{predicted[0]:.4f}" in words
    assert "predicted is their expected final AP" in words
    assert "12 of 12 trainings' worth of epochs are used" in words


def test_show_says_after_how_many_epochs_an_ap_is(stopped: Run) -> None:
    assert "AP 0." in (words := said("show", stopped.folder.path, 0))
    assert ", where it was paused" in words


def test_a_report_tells_predictions_from_results(watched: tuple[Run, list[str]], stopped: Run) -> None:
    facts = read_facts(watched[0].folder.path)
    assert (facts.num_epochs, facts.whole_epochs, facts.total_epochs) == (BUDGET, WHOLE, BUDGET)
    assert status_words(facts).startswith("The search is over: epochs worth 12 of 12 complete trainings are used")
    page = Page(report_page(facts))
    rest = [row for row in page.rows if "of 5 epochs" in row]
    assert rest
    row = next(row for row in facts.rows if row["predicted"] is not None)
    assert f"{row['predicted']:.4f}\u00a0±\u00a0{row['predicted_std']:.4f} (predicted)" in page.text
    half = Page(report_page(read_facts(stopped.folder.path)))
    assert "No winner yet, as no training is complete" in half.text
    assert "The search was stopped before its end: epochs worth" in half.text
    assert "whole-training equivalents" in half.text


def test_progress_is_drawn_by_whole_training_equivalents(watched: tuple[Run, list[str]], tmp_path: Path) -> None:
    facts = read_facts(watched[0].folder.path)
    run_search(configured(8), out=tmp_path / "plain", task=FakeTask(num_epochs=WHOLE))
    plain = read_facts(tmp_path / "plain")
    assert "whole-training equivalents" in progress_figures(facts, None)["progress-trials"].elements
    assert "whole-training equivalents" in progress_figures(plain, facts)["progress-trials"].elements
    assert "finished trials" in progress_figures(plain, None)["progress-trials"].elements
    both, alone = ([("a", plain), ("b", other)] for other in (facts, plain))
    assert "whole-training equivalents" in comparison_figures(both)["progress-trials"].elements
    assert "finished trials" in comparison_figures(alone)["progress-trials"].elements
    rows = Page(compare_page([plain, facts])).rows
    assert "whole-training equivalents" in rows[0]
    assert "whole-training equivalents" not in Page(compare_page([plain, plain])).rows[0]


def test_a_run_is_extended_in_epochs_or_trials_and_never_reduced(
    watched: tuple[Run, list[str]], tmp_path: Path
) -> None:
    run = run_search(pausing(20), out=tmp_path / "run", task=fake())
    before = run.folder.journal_path.read_bytes()
    resume(run.folder.path, task=fake())
    assert run.folder.journal_path.read_bytes() == before, "it is finished"
    for options, words in (
        ({"num_epochs": 19}, "a budget of 20 epochs; it can be extended, but not reduced to 19"),
        ({"num_trials": 3}, "a budget of 20 epochs; it can be extended, but not reduced to 15"),
        ({"num_trials": 5, "num_epochs": 25}, "--trials and --epochs both set the budget"),
    ):
        with pytest.raises(UserError, match=words):
            resume(run.folder.path, task=fake(), **options)
    resume(run.folder.path, task=fake(), num_epochs=30)
    assert 20 < EpochCount.of_state(run.state(), WHOLE).granted <= 30
    resume(run.folder.path, task=fake(), num_trials=8)
    assert 30 < EpochCount.of_state(run.state(), WHOLE).granted <= 40
    assert read_facts(run.folder.path).num_epochs == 40


def test_the_same_command_with_more_epochs_extends_a_run(tmp_path: Path) -> None:
    search_or_resume(pausing(20), out=tmp_path / "run", task=fake())
    run = search_or_resume(pausing(30), out=tmp_path / "run", task=fake())
    assert EpochCount.of_state(run.state(), WHOLE).granted > 20
    search_or_resume(pausing(20), out=tmp_path / "run", task=fake())


def figures_of(run: Run) -> Sequence[str]:
    pytest.importorskip("tensorboardX")
    from spinenas.search.monitoring.tensorboard_log import EventRecords

    records, files = EventRecords(), dict[str, bytes]()
    for event in read_events(run.folder.journal_path):
        for file, content in records.add(event):  # type: ignore[arg-type]
            files[file] = files.get(file, b"") + content
    return [
        tag
        for tag in ("search/objective", "search/objective_after_epoch_1", "search/objective_after_epoch_3")
        if tag.encode() in files[next(name for name in files if name.startswith("search/"))]
    ]


def test_tensorboard_has_the_objective_at_each_pause(watched: tuple[Run, list[str]]) -> None:
    assert len(figures_of(watched[0])) == 3


def test_options_and_files_give_budgets_in_epochs(tmp_path: Path) -> None:
    words = said("config", "quickstart", "--controller", "freeze-thaw", "--epochs", 40)
    assert "epochs = 40  # command line" in words
    assert "num_trials = 8  # derived" in words
    refused = CliRunner().invoke(main, ["config", "quickstart", "--epochs", "40", "--trials", "9"])
    assert refused.exit_code == 1
    assert "--trials and --epochs" in refused.output
    run = run_search(pausing(20), out=tmp_path / "run", task=fake())
    again = said("config", run.folder.path, "--trials", 8)
    assert "num_trials = 8  # command line" in again
    assert 'epochs = "none"  # default' in again


def test_a_search_whose_hours_ended_before_the_finals_says_how_to_extend_it(tmp_path: Path) -> None:
    config = replace(pausing(), budget=BudgetConfig(epochs=BUDGET, max_accelerator_hours=1e-5))
    run = run_search(config, out=tmp_path / "run", task=fake(epoch_seconds=0.02))
    assert not run.state().unfinished
    words = said("leaderboard", run.folder.path)
    assert "no winner yet, as no training is complete" in words
    assert f"extend it (--epochs, --max-accelerator-hours) with: spinenas resume {run.folder.path}" in words
