"""Turns the facts of a run into its report: one HTML page that loads nothing else.

The text of the page is in templates/report.html.j2; this module computes the figures that it shows. A winner with a
single training is always marked unconfirmed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from spinenas.results.pictures.architecture import Subject, draw, draw_pair
from spinenas.results.pictures.charts import Chart
from spinenas.results.record import Status
from spinenas.results.report import facts as report_facts
from spinenas.results.report.contrast_figures import contrast_figures
from spinenas.results.report.facts import RunFacts
from spinenas.results.report.front_figures import front_figures
from spinenas.results.report.lineage import changes, lineage
from spinenas.results.report.outcome_figures import outcome_figures
from spinenas.results.report.progress_figures import leader_figures, progress_figures
from spinenas.results.report.render import render
from spinenas.results.storage.epoch_count import trainings_words
from spinenas.space.published import SPINENET_49

MOST_LEADERS = 10
MOST_DRAWINGS = 3
MOST_ANCESTORS = 30
"""A longer lineage shows its latest steps and its first one."""
MOST_REASONS = 20


def figures(facts: RunFacts, control: RunFacts | None = None) -> dict[str, Chart]:
    """Return all charts of a report by name. Raises UserError for trials of different tasks."""
    return {name: figure for of_section in _sections(facts, control).values() for name, figure in of_section.items()}


def drawings(facts: RunFacts) -> dict[str, str]:
    """Return drawings of the best architectures as SVG by name: the winner with SpineNet-49, the next ones alone.

    There are none if the results name no winner.
    """
    if facts.no_winner is not None:
        return {}
    ranked = [row for row in facts.rows if row["n"] > 1] or [row for row in facts.rows if row["n"] > 0]
    ranked.sort(key=lambda row: row is not facts.winner)  # a scalarized objective may rank it lower by AP
    found = {}
    for row in ranked[:MOST_DRAWINGS]:
        genotype = facts.by_number[row["number"]].genotype
        if genotype is None:
            continue
        subject = Subject(f"trial {row['number']}", genotype, _result_words(row))
        if row is facts.winner:
            found["winner-and-spinenet-49"] = draw_pair(subject, Subject("SpineNet-49", SPINENET_49, "published"))
        else:
            found[f"trial-{row['number']}"] = draw(subject)
    return found


def report_page(facts: RunFacts, control: RunFacts | None = None, *, refresh_seconds: float | None = None) -> str:
    """Return the report as HTML. Raises UserError for trials of different tasks.

    Args:
        facts: facts of the run.
        control: facts of another run of the same task, such as a random search.
        refresh_seconds: interval at which the open page reloads itself; None for a final page.
    """
    return render(
        "report.html.j2",
        refresh_seconds=refresh_seconds,
        facts=facts,
        winner=[f"{words[0].upper()}{words[1:]}." for words in facts.winner_words],
        status=status_words(facts),
        num_networks=sum(row["n"] > 0 for row in facts.rows),
        num_parts=sum(row["epochs_seen"] is not None for row in facts.rows) if facts.num_epochs else 0,
        num_replicated=sum(row["n"] > 1 for row in facts.rows),
        control=control,
        control_status=None if control is None else status_words(control),
        leaders=_leaders(facts),
        sections=_sections(facts, control),
        validation=_validation(facts),
        drawings=drawings(facts),
        lineage=_lineage(facts),
        costs=_costs(facts),
        refusals=sorted(facts.refused.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_REASONS],
        findings=_findings(facts),
        about=_about(facts),
        configuration=json.dumps(facts.config, indent=1),
    )


def _sections(facts: RunFacts, control: RunFacts | None) -> dict[str, dict[str, Chart]]:
    """Return the charts of each section by its title."""
    return {
        "How certain the order is": leader_figures(facts),
        "Progress": progress_figures(facts, control),
        "AP and cost": front_figures(facts),
        "All trainings": outcome_figures(facts, control),
        "What good networks have in common": {} if facts.no_winner else contrast_figures(facts),
    }


def status_words(facts: RunFacts) -> str:
    """Describe the state of a run in one sentence."""
    counts = {status: sum(record.status is status for record in facts.records) for status in Status}
    words = [f"{counts[Status.COMPLETE]} complete"]
    words += [
        f"{counts[status]} {word}"
        for status, word in (
            (Status.PRUNED, "pruned" if facts.num_epochs is None else "ended at a pause"),
            (Status.FAILED, "failed"),
            (Status.RUNNING, "running"),
            (Status.INTERRUPTED, "interrupted"),
            (Status.PAUSED, "paused at a rung"),
            (Status.ASKED, "waiting"),
        )
        if counts[status]
    ]
    unfinished = sum(counts[s] for s in (Status.RUNNING, Status.INTERRUPTED, Status.PAUSED, Status.ASKED))
    budget = f" of {facts.num_trials}" if facts.num_trials is not None else ""
    state = "The search is running" if not facts.is_over else "The search is over"
    if facts.is_over and unfinished:
        state = "The search was stopped before its end"
    if facts.num_epochs is not None and facts.whole_epochs is not None:
        return f"{state}: {_epochs_words(facts, facts.num_epochs, facts.whole_epochs)} ({', '.join(words)})."
    return f"{state}: {len(facts.told)}{budget} trials are finished ({', '.join(words)})."


def _epochs_words(facts: RunFacts, budget: int, whole: int) -> str:
    """Describe the budget of a search that pauses trainings, in complete trainings."""
    return (
        f"epochs worth {trainings_words(facts.total_epochs, whole)} of {trainings_words(budget, whole)} complete "
        f"trainings are used, on {len(facts.records)} trainings"
    )


def _leaders(facts: RunFacts) -> list[tuple[object, ...]]:
    """Return the table of leaders: replicated networks first, then single runs."""
    replicated = [row for row in facts.rows if row["n"] > 1]
    single = [row for row in facts.rows if row["n"] == 1]
    parts = [row for row in facts.rows if row["epochs_seen"] is not None and facts.num_epochs is not None]
    shown = [*replicated, *single, *parts][:MOST_LEADERS]
    return [
        (
            row["number"],
            _objective_words(row),
            _standing(row, facts.winner, facts.whole_epochs),
            row["n"],
            f"{row['lower']:.4f}\u00a0to\u00a0{row['upper']:.4f}" if row["n"] > 1 else None,
            _scaled(row["params"], 1e6, "M"),
            _scaled(row["madds"], 1e9, "G"),
            row["origin"],
            row["key"] or row["architecture"],
        )
        for row in shown
    ]


def _objective_words(row: Mapping[str, Any]) -> str | None:
    """Return the mean AP of a network, or what is predicted of it."""
    if row["predicted"] is not None:
        return f"{row['predicted']:.4f}\u00a0±\u00a0{row['predicted_std']:.4f} (predicted)"
    return None if row["objective"] is None else f"{row['objective']:.4f}"


def _standing(row: Mapping[str, Any], winner: Mapping[str, Any] | None, whole: int | None) -> str:
    if row["epochs_seen"] is not None:
        of = "" if whole is None else f" of {whole}"
        return f"AP {row['objective_so_far']:.4f} after {row['epochs_seen']}{of} epochs"
    if row["n"] == 1:
        return "winner, unconfirmed (single run)" if row is winner else "unconfirmed (single run)"
    return "winner" if row is winner else "replicated"


def _result_words(row: Mapping[str, Any]) -> str:
    if row["n"] == 1:
        return f"AP {row['objective']:.4f} in a single run, unconfirmed"
    return f"mean AP {row['objective']:.4f} over {row['n']} runs, 95 %: {row['lower']:.4f} to {row['upper']:.4f}"


def _scaled(value: float | None, unit: float, suffix: str) -> str | None:
    return None if value is None else f"{value / unit:.3f} {suffix}"


def _validation(facts: RunFacts) -> dict[str, Any] | None:
    """Return the tables and sentences of `spinenas validate`; None if it has not run."""
    found = facts.validation
    if not found:
        return None
    columns = ("architecture", "origin", "reward_AP", "n", "val_AP", "lower", "upper")
    return {
        "columns": columns,
        "rows": [[_figure(row.get(name)) for name in columns] for row in _objects(found.get("architectures"))],
        "sentences": [pair.get("sentence", "") for pair in _objects(found.get("comparisons"))],
    }


def _objects(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a list; a damaged file can hold anything."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _figure(value: Any) -> Any:
    return f"{value:.4f}" if isinstance(value, float) else value


def _lineage(facts: RunFacts) -> dict[str, Any] | None:
    """Return the ancestry of the winner, the latest step first; None without a winner."""
    if facts.winner is None:
        return None
    by_network = {number: row for row in facts.rows for number in row["numbers"]}
    steps = lineage(facts, facts.winner["number"])
    shown = steps if len(steps) <= MOST_ANCESTORS else [*steps[: MOST_ANCESTORS - 1], steps[-1]]
    found = []
    for step in shown:
        row = by_network[step.number]
        parent = facts.by_number.get(step.parent) if step.parent is not None else None
        changed = None
        if parent is not None and parent.genotype is not None and step.genotype is not None:
            changed = changes(step.genotype, parent.genotype)
        mean = None if row["objective"] is None else f"{row['objective']:.4f}"
        if row["epochs_seen"] is not None:
            mean = f"{row['objective_so_far']:.4f} after epoch {row['epochs_seen']}"
        found.append((step.number, step.origin, mean, row["n"], changed))
    return {"length": len(steps), "rows": found}


def _costs(facts: RunFacts) -> list[tuple[str, object]]:
    """Return time, memory, money, repeated trainings and refused reports."""
    found = report_facts.totals(facts)
    rows: list[tuple[str, object]] = [
        (facts.hours_name, f"{facts.total_hours:.4g}"),
        ("hours of training", f"{found.train_seconds / 3600:.4g}"),
        ("hours of evaluation", f"{found.eval_seconds / 3600:.4g}"),
    ]
    if found.largest_memory_bytes is not None:
        rows.append(("peak memory of a trial", f"{found.largest_memory_bytes / 2**30:.2f} GiB"))
    if facts.price_per_hour is not None:
        rows.append(("cost, at the configured price", f"{facts.total_hours * facts.price_per_hour:.2f}"))
    if facts.num_epochs is not None:
        rows.insert(0, (report_facts.EQUIVALENTS, f"{facts.in_trainings(facts.total_epochs):.4g}"))
    rows += [(f"trials on {device}", count) for device, count in found.devices.most_common(10)]
    rows += [
        ("networks", len({record.network_key for record in facts.records})),
        ("exactly repeated trainings", report_facts.num_duplicates(facts)),
        ("stale or invalid worker reports (ignored)", sum(facts.refused.values())),
    ]
    return rows


def _findings(facts: RunFacts) -> list[tuple[str, Any, Any, str]]:
    """Return what was found in the data: kind, count, total, and the first one with advice."""
    rows = []
    for finding in _objects(facts.info.get("findings")):
        detail = "; ".join(str(finding[name]) for name in ("first", "advice") if finding.get(name))
        rows.append((str(finding.get("what", "")), finding.get("count") or None, finding.get("total") or None, detail))
    return rows


def _about(facts: RunFacts) -> list[tuple[str, str | None]]:
    """Return platform, versions of all sessions, data and task key."""
    info = dict(facts.info)
    rows: list[tuple[str, str | None]] = []
    rows += [(name, _shown(info[name])) for name in ("kind", "platform", "device") if name in info]
    sessions = [_items(info.get("versions")), *(_items(each) for each in facts.resumed_with)]
    versions: dict[str, list[str]] = {}
    for name, value in (item for session in sessions for item in session):
        known = versions.setdefault(name, [])
        if known[-1:] != [_shown(value)]:
            known.append(_shown(value))
    rows += [(f"version of {name}", ", then ".join(known)) for name, known in versions.items()]
    rows += [(f"data: {name}", _shown(value)) for name, value in _items(info.get("data"))]
    rows.append(("task key", facts.task_key or None))
    return rows


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else []


def _shown(value: Any, most: int = 300) -> str:
    words = value if isinstance(value, str) else json.dumps(value)
    return words if len(words) <= most else f"{words[:most]} ... ({len(words)} characters)"
