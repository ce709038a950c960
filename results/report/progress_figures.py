"""Charts of the progress of a search, and of its leaders with all their trainings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spinenas.results.pictures.charts import Axis, Band, Chart, Colour, Dots, Line, Mark, Whiskers, chart
from spinenas.results.report import facts as report_facts
from spinenas.results.report.facts import AP_AXIS, Pause, Progress, RunFacts

MOST_LEADERS = 10

_BEST_SO_FAR = "best single run so far (unconfirmed)"


def progress_figures(facts: RunFacts, control: RunFacts | None) -> dict[str, Chart]:
    """Return charts of AP over finished trials and over hours of accelerators or workers."""
    own = report_facts.progress(facts)
    other = report_facts.progress(control) if control is not None else None
    is_in_epochs = report_facts.any_pauses([facts, control])
    if not own.counts and not facts.pauses:
        return {}
    words = (
        "Each dot is one training. The line is the best single training so far. It can only rise, and it also rises "
        "by luck, so its height is not a result."
    )
    winner = facts.winner
    if winner is not None and winner["n"] > 1:
        words += (
            f" The band is the winner's 95 % interval from {winner['n']} trainings. Where the line is above the band, "
            "it was luck."
        )
    if control is not None:
        words += f" Dashed: best single training of the control, {control.name}."
    if facts.pauses:
        words += (
            " Trainings that paused have a dot at each pause. Their AP there is below that of a complete training, so "
            "only complete trainings count for the line."
        )
    trials, hours = Axis("finished trials", include=(0,), whole=True), Axis(facts.hours_name, include=(0,))
    title, at, other_at = "Progress by trials", list[float](own.counts), list[float](other.counts if other else [])
    if is_in_epochs:
        trials, title = Axis(report_facts.EQUIVALENTS, include=(0,)), "Progress by whole-training equivalents"
        at, other_at = own.trainings, other.trainings if other else []
    by_trials = _progress_marks(own, at, other, other_at, winner)
    paused = [(facts.in_trainings(pause.epochs), pause) for pause in facts.pauses]
    by_trials = [*_pause_marks(paused, facts.whole_epochs), *by_trials]
    found = {"progress-trials": chart(by_trials, trials, AP_AXIS, title=title, description=words)}
    if any(hour > 0 for hour in (*own.hours, *(pause.hours for pause in facts.pauses))):
        by_hours = _progress_marks(own, own.hours, other, other.hours if other else [], winner)
        by_hours = [*_pause_marks([(pause.hours, pause) for pause in facts.pauses], facts.whole_epochs), *by_hours]
        found["progress-hours"] = chart(by_hours, hours, AP_AXIS, title="Progress by time", description=words)
    return found


def _pause_marks(paused: Sequence[tuple[float, Pause]], whole: int | None) -> list[Mark]:
    """Return dots for trainings at their pauses, in a colour for each of the last two epochs of these."""
    of = "" if whole is None else f" of {whole}"
    last_two = sorted({pause.epoch for _, pause in paused}, reverse=True)[:2]
    colours: tuple[Colour, ...] = ("third", "second")
    return [
        Dots(
            f"at a pause, after {epoch}{of} epochs",
            [(x, pause.objective) for x, pause in paused if pause.epoch == epoch],
            colour,
            "faint",
        )
        for epoch, colour in zip(last_two, colours, strict=False)
    ]


def _progress_marks(
    own: Progress,
    at: Sequence[float],
    other: Progress | None,
    other_at: Sequence[float],
    winner: dict[str, Any] | None,
) -> list[Mark]:
    """Return the marks of a run and its control; `at` and `other_at` are their x values."""
    marks: list[Mark] = []
    if own.counts:
        marks.append(Dots("a training", list(zip(at, own.objectives, strict=True)), "quiet", "faint"))
    if winner is not None and winner["n"] > 1:
        ends = (at[0], at[-1])
        band = [(x, winner["lower"], winner["upper"]) for x in ends]
        marks += [
            Band("the winner's interval", band, "third"),
            Line("the winner's mean", [(x, winner["objective"]) for x in ends], "third"),
        ]
    if other is not None and other.counts:
        marks.append(Line("control, best single run", risen(other_at, other.best), "second", stepped=True, dashed=True))
    if not own.counts:
        return marks
    return [*marks, Line(_BEST_SO_FAR, risen(at, own.best), "first", stepped=True)]


def risen(at: Sequence[float], best: Sequence[float]) -> list[tuple[float, float]]:
    """Return the points at which a curve rises, and its last point."""
    pairs = list(zip(at, best, strict=True))
    kept = [pair for index, pair in enumerate(pairs) if index == 0 or pair[1] > pairs[index - 1][1]]
    return [*kept, pairs[-1]]


def leader_figures(facts: RunFacts) -> dict[str, Chart]:
    """Return a chart of the replicated networks: every training, the mean, and its interval."""
    leaders = [row for row in facts.rows if row["n"] > 1][:MOST_LEADERS]
    if not leaders:
        return {}
    runs = [
        (objective, float(index))
        for index, row in enumerate(leaders)
        for number in row["numbers"]
        if (objective := report_facts.objective_of(facts.by_number[number])) is not None
    ]
    means = [(row["objective"], float(index)) for index, row in enumerate(leaders)]
    intervals = [(row["lower"], float(index), row["upper"], float(index)) for index, row in enumerate(leaders)]
    marks: list[Mark] = [
        Whiskers("95 % interval of the mean", intervals, "first"),
        Dots("a training", runs, "quiet", "hollow"),
        Dots("mean", means, "first"),
    ]
    names = Axis("", categories=tuple(f"trial {row['number']} (n={row['n']})" for row in leaders))
    words = (
        "Networks that were trained more than once, best mean first, with 95 % intervals of the means. The spread of "
        "single trainings is pooled over all networks. Where intervals overlap widely, the order is not settled."
    )
    return {"leaders": chart(marks, AP_AXIS, names, title="Leaders, all trainings", description=words)}
