"""Several runs on one page; runs of different tasks are shown apart, since their figures mean different things."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spinenas.results.leaderboard import winner_words
from spinenas.results.pictures.charts import COLOURS, STYLE, Axis, Chart, Colour, Dots, Line, Mark, Whiskers, box, chart
from spinenas.results.report import facts as report_facts
from spinenas.results.report.facts import RunFacts
from spinenas.results.report.figures import AP, Figure, risen
from spinenas.results.report.html import Markup, page, paragraph, section, table, tag, text
from spinenas.results.report.page import figure_grid, status_words
from spinenas.space.errors import UserError

MOST_RUNS = 2 * len(COLOURS)
"""On one page: as many as can be told apart, full lines and dashed ones."""


def compare_page(runs: Sequence[RunFacts]) -> str:
    """Return a page with several runs. Raises UserError for fewer than two or more than MOST_RUNS."""
    if not 2 <= len(runs) <= MOST_RUNS:
        raise UserError(f"{len(runs)} runs are given; a comparison is of 2 to {MOST_RUNS}")
    named = _named(runs)
    tasks: dict[str, list[RunFacts]] = {}
    for facts in runs:
        tasks.setdefault(facts.task_key, []).append(facts)
    content = [tag("h1", text("Runs compared"))]
    if len(tasks) > 1:
        words = f"These runs are of {len(tasks)} different tasks. What they found is never compared across tasks."
        content.append(paragraph(words, "warn"))
    for index, of_task in enumerate(tasks.values(), start=1):
        content += _task(of_task, named, f" of task {index}" if len(tasks) > 1 else "")
    return page("runs compared", *content, style=STYLE)


def _named(runs: Sequence[RunFacts]) -> dict[int, str]:
    """A name for each run, by its identity; equal ones are numbered."""
    names: dict[int, str] = {}
    for index, facts in enumerate(runs, start=1):
        alone = sum(other.name == facts.name for other in runs) == 1
        names[id(facts)] = facts.name if alone else f"{facts.name} ({index})"
    return names


def _task(runs: Sequence[RunFacts], named: dict[int, str], of_task: str) -> list[Markup]:
    names = [named[id(facts)] for facts in runs]
    ranked = [facts.rows for facts in runs]
    body = [_row(name, facts, rows) for name, facts, rows in zip(names, runs, ranked, strict=True)]
    header = ("run", "winner", "mean AP", "95 % interval", "n", "controller", "trials", "networks", "accelerator-hours")
    words = [paragraph(f"{name}: {status_words(facts)}", "quiet") for name, facts in zip(names, runs, strict=True)]
    for name, facts in zip(names, runs, strict=True):
        words += [paragraph(f"{name}: {sentence}.") for sentence in winner_words(facts.records, facts.scalarize)[:1]]
    figures = comparison_figures(runs, names)
    return [
        section(f"Winners{of_task}", table(header, body), *words),
        section(f"How they went{of_task}", figure_grid(figures)) if figures else paragraph("No results yet."),
    ]


def _row(name: str, facts: RunFacts, rows: Sequence[dict[str, Any]]) -> tuple[object, ...]:
    controller = facts.config.get("controller")
    winner = facts.winner
    about = (
        controller.get("name") if isinstance(controller, dict) else None,
        len(facts.told),
        sum(row["n"] > 0 for row in rows),
        f"{facts.total_hours:.4g}",
    )
    if winner is None:
        return (name, None, None, None, None, *about)
    if winner["n"] == 1:  # its AP is no result, and not shown as one
        return (name, f"trial {winner['number']}, unconfirmed", None, None, 1, *about)
    interval = f"{winner['lower']:.4f} to {winner['upper']:.4f}"
    return (name, f"trial {winner['number']}", f"{winner['objective']:.4f}", interval, winner["n"], *about)


def comparison_figures(runs: Sequence[RunFacts], names: Sequence[str]) -> list[Figure]:
    """Return charts of several runs of one task: winners, progress by trials and by hours, distributions."""
    all_progress = [report_facts.progress(facts) for facts in runs]
    if not any(progress.counts for progress in all_progress):
        return []
    by_trials: list[Mark] = []
    by_hours: list[Mark] = []
    boxes: list[Mark] = []
    for index, (name, progress) in enumerate(zip(names, all_progress, strict=True)):
        if not progress.counts:
            continue
        colour: Colour = COLOURS[index % len(COLOURS)]
        dashed = index >= len(COLOURS)
        by_trials.append(Line(name, risen(progress.counts, progress.best), colour, stepped=True, dashed=dashed))
        by_hours.append(Line(name, risen(progress.hours, progress.best), colour, stepped=True, dashed=dashed))
        boxes += box(progress.objectives, float(index), colour)
    luck = (
        "Each line is the best single training of a run so far. It rises by luck as well, the more so the more "
        "trainings there are, so that its height is no result."
    )
    trials, hours = Axis("finished trials", include=(0,), whole=True), Axis("accelerator-hours", include=(0,))
    categories = Axis("", categories=tuple(names))
    words = "Single trainings: the middle half with its median, and the worst and the best single run; few are dots."
    figures = [
        Figure("progress-trials", _chart(by_trials, trials, Axis(AP), "Best single run by trials", luck)),
        Figure("progress-hours", _chart(by_hours, hours, Axis(AP), "Best single run by time", luck)),
        Figure("distributions", _chart(boxes, Axis(AP), categories, "All trainings", words)),
    ]
    winners = _winners(runs)
    if winners:
        words = (
            "The winner of each run that was trained more than once, with the 95 % interval of its mean. A run without "
            "one has an unconfirmed winner at most."
        )
        figures.insert(0, Figure("winners", _chart(winners, Axis(AP), categories, "Winners, trained again", words)))
    return figures


def _winners(runs: Sequence[RunFacts]) -> list[Mark]:
    found = [(index, facts.winner) for index, facts in enumerate(runs)]
    known = [(float(index), row) for index, row in found if row is not None and row["n"] > 1]
    if not known:
        return []
    return [
        Whiskers("95 % interval", [(row["lower"], at, row["upper"], at) for at, row in known], "first"),
        Dots("mean", [(row["objective"], at) for at, row in known], "first"),
    ]


def _chart(marks: Sequence[Mark], x: Axis, y: Axis, title: str, words: str) -> Chart:
    return chart(marks, x, y, title=title, description=words)
