"""Compares several runs on one page. Runs of different tasks are shown apart, because their APs are not comparable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spinenas.results.leaderboard import winner_words
from spinenas.results.pictures.charts import COLOURS, Axis, Chart, Colour, Dots, Line, Mark, Whiskers, box, chart
from spinenas.results.report import facts as report_facts
from spinenas.results.report.facts import RunFacts
from spinenas.results.report.figure import AP, Figure
from spinenas.results.report.page import status_words
from spinenas.results.report.progress_figures import risen
from spinenas.results.report.render import render
from spinenas.space.errors import UserError

MOST_RUNS = 2 * len(COLOURS)
"""Most runs on one page: each colour once solid and once dashed."""


def compare_page(runs: Sequence[RunFacts]) -> str:
    """Return the comparison as HTML. Raises UserError for fewer than two or more than MOST_RUNS runs."""
    if not 2 <= len(runs) <= MOST_RUNS:
        raise UserError(f"{len(runs)} runs are given; name 2 to {MOST_RUNS} runs to compare")
    named = _named(runs)
    tasks: dict[str, list[RunFacts]] = {}
    for facts in runs:
        tasks.setdefault(facts.task_key, []).append(facts)
    return render("comparison.html.j2", tasks=[_task(of_task, named) for of_task in tasks.values()])


def _named(runs: Sequence[RunFacts]) -> dict[int, str]:
    """Return a unique name for each run by its id(); runs of the same name are numbered."""
    names: dict[int, str] = {}
    for index, facts in enumerate(runs, start=1):
        alone = sum(other.name == facts.name for other in runs) == 1
        names[id(facts)] = facts.name if alone else f"{facts.name} ({index})"
    return names


def _task(runs: Sequence[RunFacts], named: dict[int, str]) -> dict[str, Any]:
    """Return what the template shows of the runs of one task."""
    names = [named[id(facts)] for facts in runs]
    pairs = list(zip(names, runs, strict=True))
    return {
        "rows": [_row(name, facts) for name, facts in pairs],
        "status": [f"{name}: {status_words(facts)}" for name, facts in pairs],
        "winners": [
            f"{name}: {words}." for name, facts in pairs for words in winner_words(facts.records, facts.scalarize)[:1]
        ],
        "figures": comparison_figures(runs, names),
    }


def _row(name: str, facts: RunFacts) -> tuple[object, ...]:
    controller = facts.config.get("controller")
    winner = facts.winner
    about = (
        controller.get("name") if isinstance(controller, dict) else None,
        len(facts.told),
        sum(row["n"] > 0 for row in facts.rows),
        f"{facts.total_hours:.4g}",
    )
    if winner is None:
        return (name, None, None, None, None, *about)
    if winner["n"] == 1:  # the AP of a single run is not a result, and not shown as one
        return (name, f"trial {winner['number']}, unconfirmed", None, None, 1, *about)
    interval = f"{winner['lower']:.4f} to {winner['upper']:.4f}"
    return (name, f"trial {winner['number']}", f"{winner['objective']:.4f}", interval, winner["n"], *about)


def comparison_figures(runs: Sequence[RunFacts], names: Sequence[str]) -> list[Figure]:
    """Return charts of several runs of one task: winners, progress by trials and by hours, and all trainings."""
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
        "Each line is the best single training of a run so far. It also rises by luck, and more so with more "
        "trainings, so its height is not a result."
    )
    trials, hours = Axis("finished trials", include=(0,), whole=True), Axis("accelerator-hours", include=(0,))
    categories = Axis("", categories=tuple(names))
    words = "All single trainings: quartiles, worst and best. Small groups are shown as dots."
    figures = [
        Figure("progress-trials", _chart(by_trials, trials, Axis(AP), "Best single run by trials", luck)),
        Figure("progress-hours", _chart(by_hours, hours, Axis(AP), "Best single run by time", luck)),
        Figure("distributions", _chart(boxes, Axis(AP), categories, "All trainings", words)),
    ]
    winners = _winners(runs)
    if winners:
        words = (
            "Winners that were trained more than once, with the 95 % interval of the mean. A run without one has only "
            "an unconfirmed winner."
        )
        figures.insert(0, Figure("winners", _chart(winners, Axis(AP), categories, "Replicated winners", words)))
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
