"""A chart of a report under a name."""

from __future__ import annotations

from dataclasses import dataclass

from spinenas.results.pictures.charts import Chart

AP = "AP on the reward images"


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart of a report.

    Attributes:
        name: of its file, without a suffix.
        chart: what is drawn.
    """

    name: str
    chart: Chart

    @property
    def words(self) -> str:
        """What it shows, for below it."""
        return self.chart.description
