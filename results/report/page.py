"""The report of a run: one page that needs no network, from its facts alone; it writes no file.

The winner is named as the leaderboard names it, confirmed by further trainings or called unconfirmed; a single training
is never given as a result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from spinenas.results.leaderboard import winner_words
from spinenas.results.pictures.architecture import Subject, draw, draw_pair
from spinenas.results.record import Status
from spinenas.results.report import facts as report_facts
from spinenas.results.report.contrast_figures import contrast_figures
from spinenas.results.report.facts import RunFacts
from spinenas.results.report.figure import Figure
from spinenas.results.report.front_figures import front_figures
from spinenas.results.report.lineage import changes, lineage
from spinenas.results.report.outcome_figures import outcome_figures
from spinenas.results.report.progress_figures import leader_figures, progress_figures
from spinenas.results.report.render import render
from spinenas.space.published import SPINENET_49

TOP = 10
MOST_ANCESTORS = 30
"""Of a long lineage the latest, and the first."""
MOST_REASONS = 20


def figures(facts: RunFacts, control: RunFacts | None = None) -> list[Figure]:
    """Return all charts of a report. Raises UserError for trials of different tasks."""
    rows = facts.rows
    return [figure for _, of_section in _sections(facts, rows, control) for figure in of_section]


def drawings(facts: RunFacts, most: int = 3) -> dict[str, str]:
    """Return the best architectures as SVG by name: the winner beside SpineNet-49, the next ones by themselves."""
    rows = facts.rows
    records = facts.by_number()
    winner = facts.winner_of(rows)
    ranked = [row for row in rows if row["n"] > 1] or [row for row in rows if row["n"] > 0]
    found = {}
    for row in ranked[:most]:
        genotype = records[row["number"]].genotype
        if genotype is None:
            continue
        subject = Subject(f"trial {row['number']}", genotype, _result_words(row))
        if row is winner:
            found["winner-and-spinenet-49"] = draw_pair(subject, Subject("SpineNet-49", SPINENET_49, "published"))
        else:
            found[f"trial-{row['number']}"] = draw(subject)
    return found


def report_page(facts: RunFacts, control: RunFacts | None = None, *, refresh_seconds: float | None = None) -> str:
    """Return the report as HTML. Raises UserError for trials of different tasks.

    Args:
        facts: of the run.
        control: another run through the same task, such as a random search.
        refresh_seconds: how often the open page shall look for a newer one; None for a page that is final.
    """
    rows = facts.rows
    return render(
        "report.html.j2",
        refresh_seconds=refresh_seconds,
        facts=facts,
        winner=[f"{words[0].upper()}{words[1:]}." for words in winner_words(facts.records, facts.worth)],
        status=status_words(facts),
        num_networks=sum(row["n"] > 0 for row in rows),
        num_replicated=sum(row["n"] > 1 for row in rows),
        control=control,
        control_status=None if control is None else status_words(control),
        leaders=_leaders(facts, rows),
        sections=_sections(facts, rows, control),
        validation=_validation(facts),
        drawings=drawings(facts),
        lineage=_lineage(facts, rows),
        costs=_costs(facts),
        refusals=sorted(facts.refused.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_REASONS],
        about=_about(facts),
        configuration=json.dumps(facts.config, indent=1),
    )


def _sections(
    facts: RunFacts, rows: Sequence[dict[str, Any]], control: RunFacts | None
) -> list[tuple[str, list[Figure]]]:
    return [
        ("How sure the order is", leader_figures(facts, rows)),
        ("How it went", progress_figures(facts, rows, control)),
        ("What it costs", front_figures(facts, rows)),
        ("What came out", outcome_figures(facts, control)),
        ("What good networks have in common", contrast_figures(facts, rows)),
    ]


def status_words(facts: RunFacts) -> str:
    """How far a run is, in one sentence."""
    counts = {status: sum(record.status is status for record in facts.records) for status in Status}
    words = [f"{counts[Status.COMPLETE]} complete"]
    words += [
        f"{counts[status]} {word}"
        for status, word in (
            (Status.PRUNED, "stopped early"),
            (Status.FAILED, "without a result"),
            (Status.RUNNING, "running"),
            (Status.PAUSED, "paused at a rung"),
            (Status.ASKED, "waiting"),
        )
        if counts[status]
    ]
    unfinished = counts[Status.RUNNING] + counts[Status.PAUSED] + counts[Status.ASKED]
    budget = f" of {facts.num_trials}" if facts.num_trials is not None else ""
    state = "The search is going on" if not facts.is_over else "The search is over"
    if facts.is_over and unfinished:
        state = "The search was stopped before its end"
    return f"{state}: {len(facts.told)}{budget} trials are finished ({', '.join(words)})."


def _leaders(facts: RunFacts, rows: Sequence[dict[str, Any]]) -> list[tuple[object, ...]]:
    """The networks as the leaderboard has them, and what each figure is worth."""
    winner = facts.winner_of(rows)
    replicated = [row for row in rows if row["n"] > 1]
    shown = replicated[:TOP] + [row for row in rows if row["n"] == 1][: max(0, TOP - len(replicated))]
    return [
        (
            row["number"],
            f"{row['objective']:.4f}",
            _standing(row, winner),
            row["n"],
            f"{row['lower']:.4f}\u00a0to\u00a0{row['upper']:.4f}" if row["n"] > 1 else None,
            _scaled(row["params"], 1e6, "M"),
            _scaled(row["madds"], 1e9, "G"),
            row["origin"],
            row["key"] or row["architecture"],
        )
        for row in shown
    ]


def _standing(row: Mapping[str, Any], winner: Mapping[str, Any] | None) -> str:
    if row["n"] == 1:
        return "winner, unconfirmed (single run)" if row is winner else "single run, no result"
    return "winner" if row is winner else "trained again"


def _result_words(row: Mapping[str, Any]) -> str:
    if row["n"] == 1:
        return f"a single run with AP {row['objective']:.4f}, which is no result"
    return f"mean AP {row['objective']:.4f} over {row['n']} runs, 95 %: {row['lower']:.4f} to {row['upper']:.4f}"


def _scaled(value: float | None, unit: float, suffix: str) -> str | None:
    return None if value is None else f"{value / unit:.3f} {suffix}"


def _validation(facts: RunFacts) -> dict[str, Any] | None:
    """What was found on val, as `spinenas validate` says it."""
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
    """Those of a list that are objects; a file can hold anything."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _figure(value: Any) -> Any:
    return f"{value:.4f}" if isinstance(value, float) else value


def _lineage(facts: RunFacts, rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Where the winner is from, the latest step first."""
    record = report_facts.winner_record(facts, rows)
    if record is None:
        return None
    by_network = {number: row for row in rows for number in row["numbers"]}
    steps = lineage(facts, record.number)
    shown = steps if len(steps) <= MOST_ANCESTORS else [*steps[: MOST_ANCESTORS - 1], steps[-1]]
    found = []
    for step in shown:
        row = by_network[step.number]
        parent = facts.by_number().get(step.parent) if step.parent is not None else None
        changed = None
        if parent is not None and parent.genotype is not None and step.genotype is not None:
            changed = changes(step.genotype, parent.genotype)
        mean = None if row["objective"] is None else f"{row['objective']:.4f}"
        found.append((step.number, step.origin, mean, row["n"], changed))
    return {"length": len(steps), "rows": found}


def _costs(facts: RunFacts) -> list[tuple[str, object]]:
    """Time, memory, money, repeats and refusals."""
    found = report_facts.totals(facts)
    rows: list[tuple[str, object]] = [
        ("accelerator-hours", f"{facts.total_hours:.4g}"),
        ("hours in training", f"{found.train_seconds / 3600:.4g}"),
        ("hours in evaluation", f"{found.eval_seconds / 3600:.4g}"),
    ]
    if found.largest_memory_bytes is not None:
        rows.append(("largest memory of a trial", f"{found.largest_memory_bytes / 2**30:.2f} GiB"))
    if facts.price_per_hour is not None:
        rows.append(("cost, at the configured price", f"{facts.total_hours * facts.price_per_hour:.2f}"))
    rows += [(f"trials on {device}", count) for device, count in found.devices.most_common(10)]
    rows += [
        ("networks", len({record.network_key for record in facts.records})),
        ("trainings that repeat another exactly", report_facts.num_duplicates(facts)),
        ("reports refused as late or senseless", sum(facts.refused.values())),
    ]
    return rows


def _about(facts: RunFacts) -> list[tuple[str, str | None]]:
    """Data and versions, as the run's own files have them."""
    info = dict(facts.info)
    rows: list[tuple[str, str | None]] = []
    rows += [(name, _shown(info[name])) for name in ("kind", "platform", "device") if name in info]
    rows += [(f"version of {name}", _shown(value)) for name, value in _items(info.get("versions"))]
    rows += [(f"data: {name}", _shown(value)) for name, value in _items(info.get("data"))]
    rows.append(("task key", facts.task_key or None))
    return rows


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else []


def _shown(value: Any, most: int = 300) -> str:
    words = value if isinstance(value, str) else json.dumps(value)
    return words if len(words) <= most else f"{words[:most]} ... ({len(words)} characters)"
