"""Charts of studies: controllers compared on landscapes, and what halving saves and loses."""

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


def halving_plot(rows: Sequence[Mapping[str, Any]]) -> Chart:
    """Return the chart of some settings, a line for each choice of rungs, its points by reduction.

    Args:
        rows: at least one, with "rungs", "reduction", "epochs saved" and "best is stopped", shares from 0 to 1, and "n"
            trainings.
    """
    by_rungs: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_rungs.setdefault(row["rungs"], []).append(row)
    marks: list[Mark] = []
    for index, (rungs, of_rungs) in enumerate(by_rungs.items()):
        points = sorted((100 * row["epochs saved"], 100 * row["best is stopped"]) for row in of_rungs)
        colour, dashed = COLOURS[index % len(COLOURS)], index >= len(COLOURS)
        name = f"after epoch {rungs}" if " " not in rungs else f"after epochs {rungs}"
        marks += dots_on_line(name, points, colour, dashed=dashed)
    reductions = ", ".join(f"{value:g}" for value in sorted({row["reduction"] for row in rows}))
    words = (
        f"{rows[0]['n']} trainings, all trained to their end, judged in random orders. Further right, more epochs are "
        "saved; further up, the best training is lost more often. Along a line the share that goes on at each rung "
        f"changes: 1 of {reductions}."
    )
    axes = Axis("epochs saved, %", include=(0,)), Axis("orders in which the best is stopped, %", include=(0,))
    return chart(marks, *axes, title="What stopping early saves and loses", description=words)
