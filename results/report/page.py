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
from spinenas.results.pictures.charts import STYLE as CHART_STYLE
from spinenas.results.record import Status
from spinenas.results.report import facts as report_facts
from spinenas.results.report import figures as report_figures
from spinenas.results.report.facts import RunFacts
from spinenas.results.report.figures import Figure
from spinenas.results.report.html import Markup, folded, page, paragraph, picture, section, table, tag, text
from spinenas.space.published import SPINENET_49

TOP = 10
MOST_ANCESTORS = 30
"""Of a long lineage the latest, and the first."""


def figures(facts: RunFacts, control: RunFacts | None = None) -> list[Figure]:
    """Return all charts of a report. Raises UserError for trials of different tasks."""
    rows = facts.rows
    return [figure for _, of_section in _sections(facts, rows, control) for figure in of_section]


def drawings(facts: RunFacts, most: int = 3) -> dict[str, str]:
    """Return the best architectures as SVG by name: the winner beside SpineNet-49, the next ones by themselves."""
    rows = facts.rows
    records = facts.by_number()
    winner = facts.winner
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
    content = [
        tag("h1", text(f"Search report: {facts.name}")),
        *_summary(facts, rows, control, refresh_seconds),
        _leaders(facts, rows),
    ]
    for title, of_section in _sections(facts, rows, control):
        if of_section:
            content.append(section(title, figure_grid(of_section)))
    content += [_validation(facts), _drawings(facts), _lineage(facts, rows), _cost(facts), _about(facts)]
    return page(f"{facts.name}: search report", *content, style=CHART_STYLE, refresh_seconds=refresh_seconds)


def figure_grid(of_section: Sequence[Figure]) -> Markup:
    """Return figures side by side where there is room, their words below them."""
    return tag(
        "div",
        *(
            tag("figure", Markup(figure.chart.svg(styled=False)), tag("figcaption", text(figure.words)))
            for figure in of_section
        ),
        css="figures",
    )


def _sections(
    facts: RunFacts, rows: Sequence[dict[str, Any]], control: RunFacts | None
) -> list[tuple[str, list[Figure]]]:
    return [
        ("How sure the order is", report_figures.leader_figures(facts, rows)),
        ("How it went", report_figures.progress_figures(facts, rows, control)),
        ("What it costs", report_figures.front_figures(facts, rows)),
        ("What came out", report_figures.outcome_figures(facts, control)),
        ("What good networks have in common", report_figures.contrast_figures(facts, rows)),
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


def _summary(
    facts: RunFacts, rows: Sequence[dict[str, Any]], control: RunFacts | None, refresh_seconds: float | None
) -> list[Markup]:
    found = [
        paragraph(sentence[0].upper() + sentence[1:] + ".", "result")
        for sentence in winner_words(facts.records, facts.scalarize)
    ]
    if not found:
        found.append(paragraph("No training has come to its end yet.", "result"))
    found.append(paragraph(status_words(facts)))
    networks = sum(row["n"] > 0 for row in rows)
    found.append(
        paragraph(
            f"{networks} networks have a result, {sum(row['n'] > 1 for row in rows)} of them from more than one "
            f"training. It took {facts.total_hours:.4g} accelerator-hours. Single trainings are shown pale or hollow: "
            "the best of many is mostly the luckiest."
        )
    )
    if control is not None:
        found.append(paragraph(f"The control is {control.name}: {status_words(control)}"))
    if refresh_seconds is not None:
        found.append(
            paragraph(
                f"As of {facts.read_at}; this page loads itself again every {refresh_seconds:g} s while the search "
                "goes on.",
                "quiet",
            )
        )
    if facts.damage:
        found.append(
            paragraph(
                f"The journal is damaged: {len(facts.damage)} lines could not be read or no longer fit, and what they "
                "said is missing here. spinenas resume --salvage mends it.",
                "warn",
            )
        )
        found.append(folded("which lines", *(paragraph(words, "quiet") for words in facts.damage[:20])))
    return found


def _leaders(facts: RunFacts, rows: Sequence[dict[str, Any]]) -> Markup:
    """The networks as the leaderboard has them, and what each figure is worth."""
    complete = [row for row in rows if row["n"] > 0]
    if not complete:
        return section("Leaders", paragraph("None yet."))
    winner = facts.winner
    replicated = [row for row in complete if row["n"] > 1]
    shown = replicated[:TOP] + [row for row in complete if row["n"] == 1][: max(0, TOP - len(replicated))]
    body = [
        (
            f"{row['number']}",
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
    header = ("trial", "mean AP", "standing", "n", "95 % interval", "params", "madds", "origin", "key")
    words = (
        "First those trained more than once, best mean first; then single runs, which are no results: most of what "
        "puts them on top is luck. On a narrow screen a table moves sideways."
    )
    if facts.cost_target is not None:
        words += f" Parameters and multiply-adds are those of {facts.detector}."
    return section("Leaders", table(header, body), paragraph(words, "quiet"))


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


def _validation(facts: RunFacts) -> Markup:
    """What was found on val, as `spinenas validate` says it."""
    found = facts.validation
    if not found:
        return Markup("")
    columns = ("architecture", "origin", "reward_AP", "n", "val_AP", "lower", "upper")
    rows = [[_figure(row.get(name)) for name in columns] for row in _objects(found.get("architectures"))]
    sentences = [paragraph(str(pair.get("sentence", ""))) for pair in _objects(found.get("comparisons"))]
    return section("On val, trained anew", table(columns, rows), *sentences)


def _objects(value: Any) -> list[Mapping[str, Any]]:
    """Those of a list that are objects; a file can hold anything."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _figure(value: Any) -> Any:
    return f"{value:.4f}" if isinstance(value, float) else value


def _drawings(facts: RunFacts) -> Markup:
    shown = [picture(svg, name.replace("-", " ")) for name, svg in drawings(facts).items()]
    if not shown:
        return Markup("")
    words = (
        "Blocks stand in order from left to right, level 2 on top. The winner is compared with SpineNet-49 position by "
        "position; the next ones stand by themselves. On a narrow screen a drawing moves sideways."
    )
    return section("The best architectures", *shown, paragraph(words, "quiet"))


def _lineage(facts: RunFacts, rows: Sequence[dict[str, Any]]) -> Markup:
    """Where the winner is from, the latest step first."""
    record = report_facts.winner_record(facts, rows)
    if record is None:
        return Markup("")
    by_network = {number: row for row in rows for number in row["numbers"]}
    steps = report_facts.lineage(facts, record.number)
    shown = steps if len(steps) <= MOST_ANCESTORS else [*steps[: MOST_ANCESTORS - 1], steps[-1]]
    body = []
    for step in shown:
        row = by_network[step.number]
        parent = facts.by_number().get(step.parent) if step.parent is not None else None
        changed = None
        if parent is not None and parent.genotype is not None and step.genotype is not None:
            changed = report_facts.changes(step.genotype, parent.genotype)
        mean = None if row["objective"] is None else f"{row['objective']:.4f}"
        body.append((f"{step.number}", step.origin, mean, row["n"], changed))
    words = (
        f"The winner and what it was derived from, {len(steps)} network{'' if len(steps) == 1 else 's'}"
        + (f", of which {len(shown)} are shown" if len(shown) < len(steps) else "")
        + ". AP is the mean of a network's own trainings, n how many there were; one is no result."
    )
    header = ("trial", "origin", "mean AP", "n", "what changed")
    return section("Where the winner is from", table(header, body), paragraph(words, "quiet"))


def _cost(facts: RunFacts) -> Markup:
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
    parts = [table(("what", "how much"), rows)]
    if facts.refused:
        ranked = sorted(facts.refused.items(), key=lambda pair: (-pair[1], pair[0]))
        parts.append(folded("which reports were refused", table(("reason", "how often"), ranked[:20])))
    parts.append(
        paragraph(
            "Candidates that were proposed before are refused before they are asked, and no journal counts them; a "
            "training that repeats another one exactly would be one that slipped through.",
            "quiet",
        )
    )
    return section("What it took", *parts)


def _about(facts: RunFacts) -> Markup:
    """Configuration, data and versions, as the run's own files have them."""
    info = dict(facts.info)
    rows: list[tuple[str, str | None]] = []
    rows += [(name, _shown(info[name])) for name in ("kind", "platform", "device") if name in info]
    rows += [(f"version of {name}", _shown(value)) for name, value in _items(info.get("versions"))]
    rows += [(f"data: {name}", _shown(value)) for name, value in _items(info.get("data"))]
    rows.append(("task key", facts.task_key or None))
    settings = tag("pre", text(json.dumps(facts.config, indent=1)), css="wide")
    return section("Data, versions, configuration", table(("what", "value"), rows), folded("configuration", settings))


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else []


def _shown(value: Any, most: int = 300) -> str:
    words = value if isinstance(value, str) else json.dumps(value)
    return words if len(words) <= most else f"{words[:most]} ... ({len(words)} characters)"
