"""Charts that compare the best quarter of the networks with the worst."""

from __future__ import annotations

from collections.abc import Sequence

from spinenas.results.pictures.charts import Axis, Bars, Chart, Mark, Whiskers, chart
from spinenas.results.report import contrast
from spinenas.results.report.contrast import Contrast
from spinenas.results.report.facts import RunFacts

_WORDS = (
    "Means over the quarter of the networks with the best AP and the quarter with the worst, with 95 % intervals. "
    "Correlation is not causation here: a search proposes more of what scored well."
)


def contrast_figures(facts: RunFacts) -> dict[str, Chart]:
    """Return charts of levels, spans, types and lost detail in the best and the worst quarter."""
    features = (contrast.levels, contrast.spans, contrast.kinds, contrast.detail_lost)
    found = contrast.contrasts(facts, features)
    if not found:
        return {}
    by_level, by_span, by_kind, by_output = found
    parts = "Networks without a complete training count by what is predicted of them. "
    parts = "" if facts.num_epochs is None else parts
    span = "level of the block minus level of its input"
    span_note = "+1 halves the side length of the feature map, -1 doubles it. "
    detail_note = (
        "How many levels coarser than the output the finest path from the image to it gets. No later block recovers "
        "detail that was lost there. "
    )
    return {
        "levels": _contrast("Blocks by level", "level", "built blocks", by_level, "L{}", parts),
        "spans": _contrast("Connections by span", span, "connections", by_span, "{:+d}", span_note + parts),
        "kinds": _contrast("Blocks by type", "type", "built blocks", by_kind, "{}", parts),
        "detail-lost": _contrast(
            "Detail lost on the path to each output", "output", "levels", by_output, "P{}", detail_note + parts
        ),
    }


def _contrast(title: str, x: str, y: str, contrasts: Sequence[Contrast], form: str, note: str = "") -> Chart:
    best = [(i - 0.38, 0.0, i - 0.02, c.best) for i, c in enumerate(contrasts)]
    worst = [(i + 0.02, 0.0, i + 0.38, c.worst) for i, c in enumerate(contrasts)]
    halves = [(i - 0.2, c.best, c.best_half) for i, c in enumerate(contrasts)]
    halves += [(i + 0.2, c.worst, c.worst_half) for i, c in enumerate(contrasts)]
    marks: list[Mark] = [
        Bars("best quarter", best, "first"),
        Bars("worst quarter", worst, "second"),
        Whiskers("95 % interval", [(at, max(0.0, mean - half), at, mean + half) for at, mean, half in halves], "quiet"),
    ]
    names = Axis(x, categories=tuple(form.format(c.category).replace("+0", "0") for c in contrasts))
    return chart(marks, names, Axis(y, include=(0,)), title=title, description=note + _WORDS)
