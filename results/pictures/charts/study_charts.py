"""Charts of studies: controllers on landscapes, and the savings and losses of successive halving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spinenas.results.pictures.charts import COLOURS, Axis, Chart, Mark, chart, dots_on_line


def controller_plot(rows: Sequence[Mapping[str, Any]], num_landscapes: int) -> Chart:
    """Return the chart of a controller comparison, one line per controller.

    Args:
        rows: at least one, each with "controller" and a median or None under each number of trainings, as text.
        num_landscapes: number of landscapes behind each median.
    """
    marks: list[Mark] = []
    for index, row in enumerate(rows):
        values = [(float(key), float(value)) for key, value in row.items() if key.isdecimal() and value is not None]
        colour, dashed = COLOURS[index % len(COLOURS)], index >= len(COLOURS)
        marks += dots_on_line(row["controller"], values, colour, dashed=dashed)
    words = (
        f"Medians over {num_landscapes} landscapes: the true value of the network that a search of this many trainings "
        "would choose, in standard deviations over random networks."
    )
    axes = Axis("trainings", include=(0,)), Axis("true value of the chosen network, sd", include=(0,))
    return chart(marks, *axes, title="Value of the chosen network", description=words)


def halving_plot(rows: Sequence[Mapping[str, Any]]) -> Chart:
    """Return the chart of halving settings: one line per choice of rungs, one point per reduction.

    Args:
        rows: at least one, each with "rungs", "reduction", the shares "epochs saved" and "best is stopped" from 0 to
            1, and "n" trainings.
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
        f"{rows[0]['n']} complete trainings, replayed in random orders. Points further right save more epochs; points "
        "further up stop the best training more often. The points of a line differ in reduction: 1 of "
        f"{reductions} trainings continues at each rung."
    )
    axes = Axis("epochs saved, %", include=(0,)), Axis("orders that stop the best training, %", include=(0,))
    return chart(marks, *axes, title="Savings and losses of early stopping", description=words)
