"""Compares several runs on one page. Runs of different tasks are shown apart, because their APs are not comparable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from spinenas.results.pictures.charts import COLOURS, Axis, Chart, Colour, Dots, Line, Mark, Whiskers, box, chart
from spinenas.results.report import facts as report_facts
from spinenas.results.report.facts import AP_AXIS, RunFacts
from spinenas.results.report.page import status_words
from spinenas.results.report.progress_figures import risen
from spinenas.results.report.render import render
from spinenas.space.errors import UserError

MOST_RUNS = 2 * len(COLOURS)
"""Most runs on one page: each colour once solid and once dashed."""


_COLUMNS = ("run", "winner", "mean AP", "95 % interval", "n", "controller", "trials", "networks")

_NUMERIC = ("mean AP", "95 % interval", "n", "trials", "networks")


def compare_page(runs: Sequence[RunFacts]) -> str:
    """Return the comparison as HTML. Raises UserError for fewer than two or more than MOST_RUNS runs."""
    if not 2 <= len(runs) <= MOST_RUNS:
        raise UserError(f"{len(runs)} runs are given; name 2 to {MOST_RUNS} runs to compare")
    num_of_name = Counter(facts.name for facts in runs)
    tasks: dict[str, list[tuple[str, RunFacts]]] = {}
    for index, facts in enumerate(runs, start=1):
        name = facts.name if num_of_name[facts.name] == 1 else f"{facts.name} ({index})"
        tasks.setdefault(facts.task_key, []).append((name, facts))
    return render("comparison.html.j2", tasks=[_task(of_task) for of_task in tasks.values()])


def _task(named: Sequence[tuple[str, RunFacts]]) -> dict[str, Any]:
    """Return what the template shows of the runs of one task, each with a unique name."""
    is_in_epochs = report_facts.any_pauses(facts for _, facts in named)
    trainings = [report_facts.EQUIVALENTS] if is_in_epochs else []
    return {
        "columns": [*_COLUMNS, *trainings, report_facts.hours_name(facts for _, facts in named)],
        "numeric": [*_NUMERIC, *trainings, report_facts.hours_name(facts for _, facts in named)],
        "rows": [_row(name, facts, is_in_epochs) for name, facts in named],
        "status": [f"{name}: {status_words(facts)}" for name, facts in named],
        "winners": [f"{name}: {words}." for name, facts in named for words in facts.winner_words[:1]],
        "figures": comparison_figures(named),
    }


def _row(name: str, facts: RunFacts, is_in_epochs: bool) -> tuple[object, ...]:
    controller = facts.config.get("controller")
    winner = facts.winner
    about = (
        controller.get("name") if isinstance(controller, dict) else None,
        len(facts.told),
        sum(row["n"] > 0 for row in facts.rows),
        *([f"{facts.in_trainings(facts.total_epochs):.4g}"] if is_in_epochs else []),
        f"{facts.total_hours:.4g}",
    )
    if winner is None:
        return (name, "none" if facts.no_winner else None, None, None, None, *about)
    if winner["n"] == 1:  # the AP of a single run is not a result, and not shown as one
        return (name, f"trial {winner['number']}, unconfirmed", None, None, 1, *about)
    interval = f"{winner['lower']:.4f} to {winner['upper']:.4f}"
    return (name, f"trial {winner['number']}", f"{winner['objective']:.4f}", interval, winner["n"], *about)


def comparison_figures(named: Sequence[tuple[str, RunFacts]]) -> dict[str, Chart]:
    """Return charts of several runs of one task: winners, progress by trials and by hours, and all trainings."""
    by_trials: list[Mark] = []
    by_hours: list[Mark] = []
    boxes: list[Mark] = []
    is_in_epochs = report_facts.any_pauses(facts for _, facts in named)
    for index, (name, facts) in enumerate(named):
        progress = report_facts.progress(facts)
        if not progress.counts:
            continue
        colour: Colour = COLOURS[index % len(COLOURS)]
        dashed = index >= len(COLOURS)
        at = progress.trainings if is_in_epochs else progress.counts
        by_trials.append(Line(name, risen(at, progress.best), colour, stepped=True, dashed=dashed))
        by_hours.append(Line(name, risen(progress.hours, progress.best), colour, stepped=True, dashed=dashed))
        boxes += box(progress.objectives, float(index), colour)
    if not boxes:
        return {}
    found = {}
    names = Axis("", categories=tuple(name for name, _ in named))
    winners = _winners([facts for _, facts in named])
    if winners:
        words = (
            "Winners that were trained more than once, with the 95 % interval of the mean. A run without one has only "
            "an unconfirmed winner."
        )
        found["winners"] = chart(winners, AP_AXIS, names, title="Replicated winners", description=words)
    luck = (
        "Each line is the best single training of a run so far. It also rises by luck, and more so with more "
        "trainings, so its height is not a result."
    )
    trials, hours = (
        Axis("finished trials", include=(0,), whole=True),
        Axis(report_facts.hours_name(facts for _, facts in named), include=(0,)),
    )
    title = "Best single run by trials"
    if is_in_epochs:
        trials, title = Axis(report_facts.EQUIVALENTS, include=(0,)), "Best single run by whole-training equivalents"
    words = "All single trainings: quartiles, worst and best. Small groups are shown as dots."
    return found | {
        "progress-trials": chart(by_trials, trials, AP_AXIS, title=title, description=luck),
        "progress-hours": chart(by_hours, hours, AP_AXIS, title="Best single run by time", description=luck),
        "distributions": chart(boxes, AP_AXIS, names, title="All trainings", description=words),
    }


def _winners(runs: Sequence[RunFacts]) -> list[Mark]:
    found = [(index, facts.winner) for index, facts in enumerate(runs)]
    known = [(float(index), row) for index, row in found if row is not None and row["n"] > 1]
    if not known:
        return []
    return [
        Whiskers("95 % interval", [(row["lower"], at, row["upper"], at) for at, row in known], "first"),
        Dots("mean", [(row["objective"], at) for at, row in known], "first"),
    ]
