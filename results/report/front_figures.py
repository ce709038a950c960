"""Charts of AP against cost, with the Pareto front of the networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spinenas.results.pictures.charts import Axis, Dots, Line, Mark, Rule, Whiskers, chart
from spinenas.results.report import facts as report_facts
from spinenas.results.report.facts import RunFacts
from spinenas.results.report.figure import AP, Figure

_UNITS = {"madds": 1e9, "params": 1e6}


def front_figures(facts: RunFacts, rows: Sequence[dict[str, Any]]) -> list[Figure]:
    """AP against multiply-adds and against parameters."""
    return [
        figure
        for cost, label in (
            ("madds", f"multiply-adds of {facts.detector}, G"),
            ("params", f"parameters of {facts.detector}, M"),
        )
        if (figure := _front(facts, rows, cost, label)) is not None
    ]


def _front(facts: RunFacts, rows: Sequence[dict[str, Any]], cost: str, label: str) -> Figure | None:
    known = [row for row in rows if row["n"] > 0 and row[cost] is not None]
    if not known:
        return None
    unit = _UNITS[cost]
    single = [(row[cost] / unit, row["objective"]) for row in known if row["n"] == 1]
    several = [row for row in known if row["n"] > 1]
    on_front = report_facts.front(rows, cost)
    confirmed = bool(several)
    marks: list[Mark] = []
    if single:
        marks.append(Dots("single run", single, "quiet", "hollow" if len(single) < 200 else "faint"))
    line = [(row[cost] / unit, row["objective"]) for row in on_front]
    name = "front of the means" if confirmed else "front of single runs, unconfirmed"
    marks.append(Line(name, line, "third", stepped=True, dashed=not confirmed))
    if several:
        marks.append(Dots("mean of several runs", [(row[cost] / unit, row["objective"]) for row in several], "first"))
        # Those of all would hide the dots.
        ends = [(row[cost] / unit, row["lower"], row[cost] / unit, row["upper"]) for row in on_front]
        marks.append(Whiskers("95 % interval, of the front", ends, "third"))
    shown, hidden = _references(facts, cost, [row[cost] / unit for row in known])
    words = "Higher and further left is better. On the front is whatever no other network beats in both; " + (
        "it joins networks that were trained more than once. "
        if confirmed
        else "none was trained twice, and a single run is on it mostly by luck. "
    )
    if shown:
        words += (
            "Dashed lines: what published models cost as this very detector; their AP on COCO is of another task and "
            "would mean nothing here. "
        )
    if hidden:
        words += f"Far outside of this cost: {', '.join(hidden)}. "
    axes = Axis(label), Axis(AP)
    title = "AP against multiply-adds" if cost == "madds" else "AP against parameters"
    return Figure(f"front-{cost}", chart([*marks, *shown], *axes, title=title, description=words.strip()))


def _references(facts: RunFacts, cost: str, costs: Sequence[float]) -> tuple[list[Rule], list[str]]:
    """Published models, as rules where they are near, as names where they would make the rest a dot."""
    low, high = min(costs), max(costs)
    room = max(high - low, 0.2 * high)
    rules, hidden = [], []
    for name, params, madds in facts.published:
        value = (params if cost == "params" else madds) / _UNITS[cost]
        if low - room <= value <= high + room:
            rules.append(Rule(name, value))
        else:
            hidden.append(f"{name} ({value:.4g})")
    return rules, hidden
