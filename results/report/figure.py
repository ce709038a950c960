"""One chart of a report."""

from __future__ import annotations

from dataclasses import dataclass

from spinenas.results.pictures.charts import Chart

AP = "AP on the reward images"


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its name.

    Attributes:
        name: file name without suffix.
        chart: the drawing, with its title and description.
    """

    name: str
    chart: Chart
