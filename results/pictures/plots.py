"""How good what controllers choose is, against the trainings they took: one chart of a comparison on landscapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spinenas.results.pictures.charts import COLOURS, Axis, Chart, Mark, chart, dots_on_line


def controller_plot(rows: Sequence[Mapping[str, Any]], points: Sequence[int], num_landscapes: int) -> Chart:
    """Return the chart of some controllers, a line each.

    Args:
        rows: at least one, with "controller" and, under each of the points as text, a median.
        points: numbers of trainings.
        num_landscapes: that the medians are over.
    """
    marks: list[Mark] = []
    for index, row in enumerate(rows):
        values = [(float(point), float(row[str(point)])) for point in points]
        colour, dashed = COLOURS[index % len(COLOURS)], index >= len(COLOURS)
        marks += dots_on_line(row["controller"], values, colour, dashed=dashed)
    words = (
        f"Medians over {num_landscapes} landscapes. What is shown is the true value of the network that a search with "
        "so many trainings would end with, in standard deviations over random networks."
    )
    axes = Axis("trainings", include=(0,)), Axis("true value of the chosen one, sd", include=(0,))
    return chart(marks, *axes, title="What controllers choose", description=words)
