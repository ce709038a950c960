"""The figures of a report, each with words that say what it shows; it knows nothing of pages and files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spinenas.results.pictures.charts import (
    Axis,
    Band,
    Bars,
    Chart,
    Dots,
    Line,
    Mark,
    Rule,
    Whiskers,
    box,
    chart,
    histogram,
)
from spinenas.results.report import facts as report_facts
from spinenas.results.report.facts import Contrast, Progress, RunFacts

MOST_LEADERS = 10
MOST_ORIGINS = 10
NUM_BINS = 30

AP = "AP on the reward images"

_UNITS = {"madds": 1e9, "params": 1e6}

_NO_RESULT = "best single run so far (no result)"


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart of a report.

    Attributes:
        name: of its file, without a suffix.
        chart: what is drawn.
    """

    name: str
    chart: Chart

    @property
    def words(self) -> str:
        """What it shows, for below it."""
        return self.chart.description


def progress_figures(facts: RunFacts, rows: Sequence[dict[str, Any]], control: RunFacts | None) -> list[Figure]:
    """How the search went, by finished trials and by accelerator-hours."""
    own = report_facts.progress(facts)
    other = report_facts.progress(control) if control is not None else None
    if not own.counts:
        return []
    words = (
        "Each dot is one training. The line is the best single training so far; it can only rise, and rises by luck as "
        "well, so that its height is no result."
    )
    winner = facts.winner
    if winner is not None and winner["n"] > 1:
        words += (
            f" The band is the winner's 95 % interval, from {winner['n']} trainings: where it lies below the line, the "
            "line was luck."
        )
    if control is not None:
        words += f" Dashed: the same of the control, {control.name}."
    trials, hours = Axis("finished trials", include=(0,), whole=True), Axis("accelerator-hours", include=(0,))
    by_trials = _progress_marks(own, own.counts, other, other.counts if other else [], winner)
    figures = [
        Figure("progress-trials", chart(by_trials, trials, Axis(AP), title="Progress by trials", description=words))
    ]
    if own.hours[-1] > 0:
        by_hours = _progress_marks(own, own.hours, other, other.hours if other else [], winner)
        figures.append(
            Figure("progress-hours", chart(by_hours, hours, Axis(AP), title="Progress by time", description=words))
        )
    return figures


def _progress_marks(
    own: Progress,
    at: Sequence[float],
    other: Progress | None,
    other_at: Sequence[float],
    winner: dict[str, Any] | None,
) -> list[Mark]:
    """One curve beside another; `at` and `other_at` are their places on the x axis."""
    marks: list[Mark] = [Dots("a training", list(zip(at, own.objectives, strict=True)), "quiet", "faint")]
    if winner is not None and winner["n"] > 1:
        ends = (at[0], at[-1])
        band = [(x, winner["lower"], winner["upper"]) for x in ends]
        marks += [
            Band("the winner's interval", band, "third"),
            Line("the winner's mean", [(x, winner["objective"]) for x in ends], "third"),
        ]
    if other is not None and other.counts:
        marks.append(Line("control, the same", risen(other_at, other.best), "second", stepped=True, dashed=True))
    return [*marks, Line(_NO_RESULT, risen(at, own.best), "first", stepped=True)]


def risen(at: Sequence[float], best: Sequence[float]) -> list[tuple[float, float]]:
    """Return a curve where it rises, and its end."""
    pairs = list(zip(at, best, strict=True))
    kept = [pair for index, pair in enumerate(pairs) if index == 0 or pair[1] > pairs[index - 1][1]]
    return [*kept, pairs[-1]]


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


def outcome_figures(facts: RunFacts, control: RunFacts | None) -> list[Figure]:
    """How results are distributed, where they are from, and what failed."""
    figures = []
    own = report_facts.progress(facts).objectives
    other = report_facts.progress(control).objectives if control is not None else []
    if own and max(own) > min(own):
        low, high = min([*own, *other]), max([*own, *other])
        marks: list[Mark] = [histogram("this run", own, low, high, NUM_BINS, "first")]
        words = "How many single trainings ended with which AP."
        if control is not None and other:
            marks.append(histogram("control", other, low, high, NUM_BINS, "second"))
            words += f" The control is {control.name}; where both are, the colours mix."
        figures.append(
            Figure(
                "distribution",
                chart(
                    marks,
                    Axis(AP),
                    Axis("trainings", include=(0,), whole=True),
                    title="Distribution of results",
                    description=words,
                ),
            )
        )
    origins = report_facts.by_origin(facts, MOST_ORIGINS)
    if len(origins) > 1:
        boxes = [mark for index, values in enumerate(origins.values()) for mark in box(values, float(index))]
        names = tuple(f"{origin} ({len(values)})" for origin, values in origins.items())
        words = (
            "AP of single trainings by how their networks came about, with how many there are. Boxes are the middle "
            "halves with the median, lines reach from the worst to the best single run; few trainings are dots."
        )
        figures.append(
            Figure(
                "origins",
                chart(boxes, Axis(AP), Axis("", categories=names), title="Where results are from", description=words),
            )
        )
    failed = report_facts.failures(facts)
    if failed:
        bars: list[Mark] = [
            Bars("trials without a result", [(0, i - 0.3, n, i) for i, (n, _) in enumerate(failed.values())], "second"),
            Bars(
                "attempts that another one followed",
                [(0, i, n, i + 0.3) for i, (_, n) in enumerate(failed.values())],
                "quiet",
            ),
        ]
        words = "Why trainings failed. A lost attempt does not count against its trial, which was tried again."
        figures.append(
            Figure(
                "failures",
                chart(
                    bars,
                    Axis("number", include=(0,), whole=True),
                    Axis("", categories=tuple(failed)),
                    title="Failures by kind",
                    description=words,
                ),
            )
        )
    return figures


def contrast_figures(facts: RunFacts, rows: Sequence[dict[str, Any]]) -> list[Figure]:
    """What the best quarter of the networks has more or less of than the worst."""
    features: list[report_facts.Feature] = [
        report_facts.levels,
        report_facts.spans,
        report_facts.kinds,
        report_facts.detail_lost,
    ]
    found = report_facts.contrasts(facts, rows, features)
    if not found:
        return []
    by_level, by_span, by_kind, by_output = found
    words = (
        "Mean over the quarter of the networks with the best AP and over the quarter with the worst; lines are 95 % "
        "intervals of either mean. What goes along with a good result need not be what makes it: a search tries more "
        "of what did well."
    )
    return [
        _contrast("levels", "Blocks by level", "level", "blocks that are built", by_level, "L{}", words),
        _contrast(
            "spans",
            "Connections by span",
            "levels from input to block",
            "connections",
            by_span,
            "{:+d}",
            f"+1 halves the side of the feature map, -1 doubles it. {words}",
        ),
        _contrast("kinds", "Blocks by type", "type", "blocks that are built", by_kind, "{}", words),
        _contrast(
            "detail-lost",
            "Detail lost on the way to each output",
            "output",
            "levels",
            by_output,
            "P{}",
            "How many levels coarser than the output the least coarse way from the image to it gets: what is lost "
            f"there, no later block gets back. {words}",
        ),
    ]


def _contrast(name: str, title: str, x: str, y: str, contrasts: Sequence[Contrast], form: str, words: str) -> Figure:
    best = [(i - 0.38, 0.0, i - 0.02, contrast.best) for i, contrast in enumerate(contrasts)]
    worst = [(i + 0.02, 0.0, i + 0.38, contrast.worst) for i, contrast in enumerate(contrasts)]
    halves = [(i - 0.2, c.best, c.best_half) for i, c in enumerate(contrasts)]
    halves += [(i + 0.2, c.worst, c.worst_half) for i, c in enumerate(contrasts)]
    marks: list[Mark] = [
        Bars("best quarter", best, "first"),
        Bars("worst quarter", worst, "second"),
        Whiskers("95 %", [(at, max(0.0, mean - half), at, mean + half) for at, mean, half in halves], "quiet"),
    ]
    names = tuple(form.format(contrast.category).replace("+0", "0") for contrast in contrasts)
    return Figure(name, chart(marks, Axis(x, categories=names), Axis(y, include=(0,)), title=title, description=words))


def leader_figures(facts: RunFacts, rows: Sequence[dict[str, Any]]) -> list[Figure]:
    """Networks that were trained more than once, with all their trainings and the interval of the mean."""
    leaders = [row for row in rows if row["n"] > 1][:MOST_LEADERS]
    if not leaders:
        return []
    records = facts.by_number()
    runs = [
        (objective, float(index))
        for index, row in enumerate(leaders)
        for number in row["numbers"]
        if (objective := report_facts.objective_of(records[number])) is not None
    ]
    means = [(row["objective"], float(index)) for index, row in enumerate(leaders)]
    intervals = [(row["lower"], float(index), row["upper"], float(index)) for index, row in enumerate(leaders)]
    marks: list[Mark] = [
        Whiskers("95 % interval of the mean", intervals, "first"),
        Dots("a training", runs, "quiet", "hollow"),
        Dots("mean", means, "first"),
    ]
    names = tuple(f"trial {row['number']} (n={row['n']})" for row in leaders)
    words = (
        "Networks that were trained more than once, best mean first. The intervals are of the means, with the spread "
        "of single trainings pooled over all of them; where they overlap widely, the order is not settled."
    )
    return [
        Figure(
            "leaders",
            chart(marks, Axis(AP), Axis("", categories=names), title="Leaders, trained again", description=words),
        )
    ]
