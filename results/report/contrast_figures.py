"""Charts that compare the best quarter of the networks with the worst."""

from __future__ import annotations

from collections.abc import Sequence

from spinenas.results.pictures.charts import Axis, Bars, Mark, Whiskers, chart
from spinenas.results.report import contrast
from spinenas.results.report.contrast import Contrast
from spinenas.results.report.facts import RunFacts
from spinenas.results.report.figure import Figure


def contrast_figures(facts: RunFacts) -> list[Figure]:
    """Return charts of levels, spans, types and lost detail in the best and the worst quarter."""
    features: list[contrast.Feature] = [
        contrast.levels,
        contrast.spans,
        contrast.kinds,
        contrast.detail_lost,
    ]
    found = contrast.contrasts(facts, features)
    if not found:
        return []
    by_level, by_span, by_kind, by_output = found
    words = (
        "Means over the quarter of the networks with the best AP and the quarter with the worst, with 95 % intervals. "
        "Correlation is not causation here: a search proposes more of what scored well."
    )
    return [
        _contrast("levels", "Blocks by level", "level", "built blocks", by_level, "L{}", words),
        _contrast(
            "spans",
            "Connections by span",
            "level of the block minus level of its input",
            "connections",
            by_span,
            "{:+d}",
            f"+1 halves the side length of the feature map, -1 doubles it. {words}",
        ),
        _contrast("kinds", "Blocks by type", "type", "built blocks", by_kind, "{}", words),
        _contrast(
            "detail-lost",
            "Detail lost on the path to each output",
            "output",
            "levels",
            by_output,
            "P{}",
            "How many levels coarser than the output the finest path from the image to it gets. No later block "
            f"recovers detail that was lost there. {words}",
        ),
    ]


def _contrast(name: str, title: str, x: str, y: str, contrasts: Sequence[Contrast], form: str, words: str) -> Figure:
    best = [(i - 0.38, 0.0, i - 0.02, c.best) for i, c in enumerate(contrasts)]
    worst = [(i + 0.02, 0.0, i + 0.38, c.worst) for i, c in enumerate(contrasts)]
    halves = [(i - 0.2, c.best, c.best_half) for i, c in enumerate(contrasts)]
    halves += [(i + 0.2, c.worst, c.worst_half) for i, c in enumerate(contrasts)]
    marks: list[Mark] = [
        Bars("best quarter", best, "first"),
        Bars("worst quarter", worst, "second"),
        Whiskers("95 % interval", [(at, max(0.0, mean - half), at, mean + half) for at, mean, half in halves], "quiet"),
    ]
    names = tuple(form.format(c.category).replace("+0", "0") for c in contrasts)
    return Figure(name, chart(marks, Axis(x, categories=names), Axis(y, include=(0,)), title=title, description=words))
