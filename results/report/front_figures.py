"""Charts of AP against cost, with the Pareto front of the networks."""

from __future__ import annotations

from collections.abc import Sequence

from spinenas.results.pictures.charts import Axis, Chart, Dots, Line, Mark, Rule, Whiskers, chart
from spinenas.results.report import facts as report_facts
from spinenas.results.report.facts import AP_AXIS, RunFacts

_COSTS = (("madds", "multiply-adds", 1e9, "G"), ("params", "parameters", 1e6, "M"))
"""Column of the leaderboard, its name, its unit and the unit's prefix."""


def front_figures(facts: RunFacts) -> dict[str, Chart]:
    """Return charts of AP against multiply-adds and against parameters."""
    return {
        f"front-{cost}": _front(facts, cost, name, unit, prefix)
        for cost, name, unit, prefix in _COSTS
        if any(row["n"] > 0 and row[cost] is not None for row in facts.rows)
    }


def _front(facts: RunFacts, cost: str, cost_name: str, unit: float, prefix: str) -> Chart:
    known = [row for row in facts.rows if row["n"] > 0 and row[cost] is not None]
    single = [(row[cost] / unit, row["objective"]) for row in known if row["n"] == 1]
    several = [row for row in known if row["n"] > 1]
    on_front = report_facts.front(facts.rows, cost)
    confirmed = bool(several)
    marks: list[Mark] = []
    if single:
        marks.append(Dots("single run", single, "quiet", "hollow" if len(single) < 200 else "faint"))
    line = [(row[cost] / unit, row["objective"]) for row in on_front]
    name = "front of means" if confirmed else "front of single runs (unconfirmed)"
    marks.append(Line(name, line, "third", stepped=True, dashed=not confirmed))
    if several:
        marks.append(Dots("mean of several runs", [(row[cost] / unit, row["objective"]) for row in several], "first"))
        # Intervals of all networks would hide the dots.
        ends = [(row[cost] / unit, row["lower"], row[cost] / unit, row["upper"]) for row in on_front]
        marks.append(Whiskers("95 % interval on the front", ends, "third"))
    shown, hidden = _references(facts, cost, unit, [row[cost] / unit for row in known])
    words = "Higher and further left is better. No other network beats one on the front in both AP and cost. " + (
        "The front uses only networks that were trained more than once. "
        if confirmed
        else "No network was trained twice yet, and a single run reaches the front mostly by luck. "
    )
    if shown:
        words += (
            "Dashed lines mark the cost of published models in this detector. Their COCO AP is not shown, because it "
            "belongs to another task. "
        )
    if hidden:
        words += f"Published models far outside this range: {', '.join(hidden)}. "
    axes = Axis(f"{cost_name} of {facts.detector}, {prefix}"), AP_AXIS
    return chart([*marks, *shown], *axes, title=f"AP against {cost_name}", description=words.strip())


def _references(facts: RunFacts, cost: str, unit: float, costs: Sequence[float]) -> tuple[list[Rule], list[str]]:
    """Return published models near this range as rules, and the others as names, which would squeeze the plot."""
    low, high = min(costs), max(costs)
    room = max(high - low, 0.2 * high)
    rules, hidden = [], []
    for name, params, madds in facts.published:
        value = (params if cost == "params" else madds) / unit
        if low - room <= value <= high + room:
            rules.append(Rule(name, value))
        else:
            hidden.append(f"{name} ({value:.4g})")
    return rules, hidden
