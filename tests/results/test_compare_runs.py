"""Comparison of several runs on one page."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from report_pages import HOSTILE, TAGS, Page, facts_of, searched
from trials import trial

from spinenas.results.report.comparison import MOST_RUNS, compare_page, comparison_figures
from spinenas.results.report.facts import RunFacts
from spinenas.search.cli.main import main
from spinenas.space.errors import UserError


def run_of(name: str, *records: object) -> RunFacts:
    return RunFacts(name, records, tuple(record.number for record in records))  # type: ignore[arg-type, attr-defined]


CONFIRMED = run_of("confirmed", trial(0, "a", 0.9876), trial(1, "b", 0.5), trial(2, "b", 0.52, replicate=1))
SINGLE = run_of("single", trial(0, "a", 0.4321), trial(1, "b", 0.3))


def test_winners_are_the_leaderboards_and_single_runs_stay_unconfirmed() -> None:
    page = Page(compare_page([CONFIRMED, SINGLE]))
    (confirmed,) = [row for row in page.rows if row.strip().startswith("confirmed")]
    assert "0.5100" in confirmed
    (single,) = [row for row in page.rows if row.strip().startswith("single")]
    assert "trial 0, unconfirmed" in single
    for figure in ("0.9876", "0.4321"):
        assert figure not in page.text
    assert "so its height is not a result" in page.text


def test_runs_of_different_tasks_are_shown_apart() -> None:
    other = run_of("other", trial(0, "a", 0.7, task_key="another"))
    page = Page(compare_page([CONFIRMED, SINGLE, other]))
    assert "2 different tasks" in page.text
    assert "Winners of task 1" in page.text
    assert "Winners of task 2" in page.text
    assert "different tasks" not in Page(compare_page([CONFIRMED, SINGLE])).text


def test_a_run_without_results_is_shown() -> None:
    page = Page(compare_page([CONFIRMED, facts_of()]))
    assert "a run" in page.text
    assert list(comparison_figures([("single", SINGLE)])) == ["progress-trials", "progress-hours", "distributions"]
    assert comparison_figures([("empty", facts_of())]) == {}


def test_names_are_escaped_and_equal_names_are_numbered() -> None:
    source = compare_page([run_of(HOSTILE, trial(0, "a", 0.4)), run_of("x", trial(0, "a", 0.4)), run_of("x")])
    page = Page(source)
    assert set(page.tags) <= TAGS
    assert "<script" not in source
    assert "x (2)" in page.text
    assert "x (3)" in page.text


def test_too_few_and_too_many_runs_are_refused() -> None:
    for count in (1, MOST_RUNS + 1):
        with pytest.raises(UserError, match=f"{count} runs are given"):
            compare_page([SINGLE] * count)
    compare_page([run_of(f"run {index}", trial(0, "a", 0.1 * index)) for index in range(MOST_RUNS)])


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    for name in ("one", "two"):
        searched(tmp_path / name, 8)
    out = tmp_path / "both.html"
    command = ["compare", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(out)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "one" in Page(out.read_text()).text
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 1
    assert "exists already" in refused.output
    assert CliRunner().invoke(main, [*command, "--force"]).exit_code == 0
