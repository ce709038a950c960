"""Charts of all trainings of a run: AP, origins of the networks, and failures."""

from __future__ import annotations

from spinenas.results.pictures.charts import Axis, Bars, Chart, Mark, box, chart, histogram
from spinenas.results.report import facts as report_facts
from spinenas.results.report.facts import AP_AXIS, RunFacts

MOST_ORIGINS = 10
NUM_BINS = 30


def outcome_figures(facts: RunFacts, control: RunFacts | None) -> dict[str, Chart]:
    """Return charts of the distribution of AP, of AP by origin, and of failures."""
    found: dict[str, Chart] = {}
    own = report_facts.progress(facts).objectives
    other = report_facts.progress(control).objectives if control is not None else []
    if own and max(own) > min(own):
        low, high = min([*own, *other]), max([*own, *other])
        marks: list[Mark] = [histogram("this run", own, low, high, NUM_BINS, "first")]
        words = "Number of trainings by AP."
        if control is not None and other:
            marks.append(histogram("control", other, low, high, NUM_BINS, "second"))
            words += f" The control is {control.name}; overlapping bars mix their colours."
        counts = Axis("trainings", include=(0,), whole=True)
        found["distribution"] = chart(marks, AP_AXIS, counts, title="Distribution of results", description=words)
    origins = report_facts.by_origin(facts, MOST_ORIGINS)
    if len(origins) > 1:
        boxes = [mark for index, values in enumerate(origins.values()) for mark in box(values, float(index))]
        names = Axis("", categories=tuple(f"{origin} ({len(values)})" for origin, values in origins.items()))
        words = (
            "AP of single trainings by the origin of their networks, with the number of trainings. Boxes show the "
            "quartiles, and lines reach from the worst to the best single run. Small groups are shown as dots."
        )
        found["origins"] = chart(boxes, AP_AXIS, names, title="AP by origin", description=words)
    failed = report_facts.failures(facts)
    if failed:
        bars: list[Mark] = [
            Bars("failed trials", [(0, i - 0.3, n, i) for i, (n, _) in enumerate(failed.values())], "second"),
            Bars("retried attempts", [(0, i, n, i + 0.3) for i, (_, n) in enumerate(failed.values())], "quiet"),
        ]
        words = "Failures by cause. A retried attempt is not a failure of its trial."
        counts, kinds = Axis("number", include=(0,), whole=True), Axis("", categories=tuple(failed))
        found["failures"] = chart(bars, counts, kinds, title="Failures by kind", description=words)
    return found
