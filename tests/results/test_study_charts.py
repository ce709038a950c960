"""The chart of the savings and losses of early stopping."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from shared_fixtures import REPOSITORY

from spinenas.results.pictures.charts.study_charts import halving_plot
from spinenas.search.cli.main import main

TABLE = REPOSITORY / "benchmarks/tables/digits.csv.gz"

ROWS = [
    {
        "rungs": rungs,
        "reduction": reduction,
        "epochs saved": saved,
        "best is stopped": lost,
        "AP lost": 0.01,
        "AP lost, worst order": 0.1,
        "n": 12,
    }
    for rungs, reduction, saved, lost in (("1", 2.0, 0.4, 0.1), ("1", 3.0, 0.5, 0.3), ("1 2", 2.0, 0.6, 0.2))
]


def test_each_choice_of_rungs_is_named_and_has_its_points() -> None:
    picture = halving_plot(ROWS)
    assert "after epoch 1<" in picture.elements
    assert "after epochs 1 2<" in picture.elements
    assert "12 complete trainings" in picture.description
    assert "1 of 2, 3" in picture.description
    assert [line.count("h0") for line in picture.elements.splitlines() if 'class="dots' in line][:2] == [2, 1]


def test_the_command_writes_the_chart_and_prints_the_table(tmp_path: Path) -> None:
    plot = tmp_path / "halving.svg"
    command = ["proxy", "halving", str(TABLE), "--plot", str(plot)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert plot.read_text().startswith("<svg")
    assert "epochs saved" in result.stdout
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 1
    assert "exists already" in refused.output
    assert CliRunner().invoke(main, [*command, "--force"]).exit_code == 0
    assert CliRunner().invoke(main, ["proxy", "halving", str(TABLE), "--force"]).exit_code == 2
