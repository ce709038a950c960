"""Tables of a comparison's outcomes: which controller finds better networks, and with how few trainings.

The unit of every test is the landscape: its seeds are averaged first.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from spinenas.search.controller_bench.cell import TABLE

REFERENCE = "reinforce"
"""The reference controller: others are measured by when they reach its value at the end of the budget."""
GOAL_SHARE = 0.35
"""Share of the budget by which others should reach that value."""


def summary(outcomes: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return a row for each controller, best first by median at the end of its largest budget.

    Args:
        outcomes: returned by `run_cell`. Those of a controller that counts epochs have several budgets.
        kind: "replicated" for the winner after replicates of the leaders, "chosen" for the best single result.

    Each row has:

    - the median over landscapes of the true value at each checkpoint, with quartiles at the last; None at those of
      other controllers;
    - "reached at": the first checkpoint at which the median reaches that of REFERENCE at the end;
    - "tested at": the controller's last checkpoint within GOAL_SHARE of the largest budget;
    - "ahead": the number of landscapes on which the value there is above that of REFERENCE at the end;
    - "p": one-sided p-value of Wilcoxon's signed rank test for the same. Gains are relative to the value of REFERENCE,
      so that families with larger values do not count for more.
    """
    points, values = _points(outcomes), _values(outcomes, kind)
    rows = []
    for name, by_point in values.items():
        own = [outcome for outcome in outcomes if outcome["controller"] == name]
        medians = {point: statistics.median(found.values()) for point, found in by_point.items()}
        last = list(by_point[list(by_point)[-1]].values())
        low, _, high = statistics.quantiles(last, n=4, method="inclusive") if len(last) > 1 else last * 3
        row: dict[str, Any] = {"controller": name} | {point: medians.get(point) for point in points}
        row |= {"lower quartile": low, "upper quartile": high}
        row |= _against(values.get(REFERENCE), by_point, int(points[-1]))
        row["duplicates"] = sum(outcome["duplicates"] for outcome in own)
        row["ms per ask"] = statistics.median(outcome["ask_milliseconds"] for outcome in own)
        row["ms p99"] = max(outcome["ask_milliseconds_p99"] for outcome in own)
        row["ms per tell"] = statistics.median(outcome["tell_milliseconds"] for outcome in own)
        rows.append(row)
    return sorted(rows, key=lambda row: -[row[point] for point in points if row[point] is not None][-1])


def lead(outcomes: Sequence[dict[str, Any]], kind: str, name: str) -> list[dict[str, Any]]:
    """Return a row for each other controller: how far controller `name` is ahead of it after equally many trainings.

    Each checkpoint has the number of landscapes on which it is ahead, and the p-value, as in `summary`; None if one of
    the two has no value there. The controller must be among those of the outcomes.
    """
    points, values = _points(outcomes), _values(outcomes, kind)
    rows = []
    for other, by_point in values.items():
        if other != name:
            both = by_point.keys() & values[name].keys()
            ahead = {point: _ahead(values[name][point], by_point[point]) if point in both else None for point in points}
            rows.append({"over": other, **{point: _in_words(found) for point, found in ahead.items()}})
    return rows


def reach(outcomes: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return a row for each controller: on how many landscapes it has more than REFERENCE has at the end.

    Each checkpoint has that number and the p-value, as in `summary`; None if the controller has no value there.
    REFERENCE must be among the controllers of the outcomes.
    """
    points, values = _points(outcomes), _values(outcomes, kind)
    goal = values[REFERENCE][list(values[REFERENCE])[-1]]
    rows = []
    for name, by_point in values.items():
        ahead = {point: _ahead(by_point[point], goal) if point in by_point else None for point in points}
        rows.append({"controller": name, **{point: _in_words(found) for point, found in ahead.items()}})
    return rows


def by_family(
    outcomes: Sequence[dict[str, Any]], rows_of: Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Return the rows of each family of landscapes, with the family's name."""
    return [
        {"family": family, **row}
        for family in dict.fromkeys(outcome["family"] for outcome in outcomes)
        for row in rows_of([outcome for outcome in outcomes if outcome["family"] == family])
    ]


def _points(outcomes: Sequence[dict[str, Any]]) -> list[str]:
    """Return all checkpoints in ascending order."""
    return sorted({point for outcome in outcomes for point in outcome["chosen"]}, key=int)


def _values(outcomes: Sequence[dict[str, Any]], kind: str) -> dict[str, dict[str, dict[str, float]]]:
    """Mean values by controller, checkpoint in ascending order, and landscape."""
    found = {}
    for name in dict.fromkeys(outcome["controller"] for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome["controller"] == name]
        found[name] = {point: _by_landscape(own, kind, point) for point in _points(own)}
    return found


def _against(
    target: dict[str, dict[str, float]] | None, own: dict[str, dict[str, float]], budget: int
) -> dict[str, Any]:
    if target is None or target is own:
        return {"reached at": None, "tested at": None, "ahead": None, "p": None}
    at = [next(iter(own)), *(point for point in own if int(point) <= GOAL_SHARE * budget)][-1]
    goal = target[list(target)[-1]]
    median = statistics.median(goal.values())
    reached = next((point for point, values in own.items() if statistics.median(values.values()) >= median), None)
    count, probability = _ahead(own[at], goal)
    return {"reached at": reached, "tested at": at, "ahead": count, "p": probability}


def _in_words(ahead: tuple[str, float | None] | None) -> str | None:
    if ahead is None:
        return None
    count, p = ahead
    return count if p is None else f"{count}, p {p:.1g}"


def _ahead(own: dict[str, float], other: dict[str, float]) -> tuple[str, float | None]:
    """Return the number of landscapes on which one is above the other, and the p-value; None if all are equal."""
    # The divisor is at least 1, one standard deviation: relative gains over smaller values mean nothing.
    gains = [(own[landscape] - other[landscape]) / max(other[landscape], 1.0) for landscape in other]
    count = f"{sum(gain > 0 for gain in gains)}/{len(gains)}"
    if not any(gains):
        return count, None
    from scipy import stats

    return count, float(stats.wilcoxon(gains, alternative="greater").pvalue)


def of_synthetic_families(outcomes: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Leave out landscapes learnt from a table, unless there are no others: they are all alike."""
    return [outcome for outcome in outcomes if outcome["family"] != TABLE] or outcomes


def _by_landscape(outcomes: Iterable[dict[str, Any]], kind: str, point: str) -> dict[str, float]:
    """Return the mean over seeds for each landscape; a search without a result counts as a random network, 0."""
    found: dict[str, list[float]] = {}
    for outcome in outcomes:
        if point not in outcome[kind]:
            continue  # a search with another budget
        value = outcome[kind][point]
        found.setdefault(f"{outcome['family']}-{outcome['landscape']}", []).append(0.0 if value is None else value)
    return {landscape: statistics.fmean(each) for landscape, each in found.items()}
