"""`spinenas leaderboard`: ranks the networks of a run and names the winner."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from spinenas.search.cli.options import format_options, note, number_option, run_argument
from spinenas.search.cli.table import print_rows

if TYPE_CHECKING:
    from spinenas.search.run.run import Run


@click.command()
@run_argument
@number_option("--top", default=10, help="Number of networks to print.")
@click.option("--front", is_flag=True, help="Print only the Pareto front of AP, multiply-adds and parameters.")
@click.option(
    "--target",
    metavar="SCALING@PIXELS",
    help="Detector to count costs in, such as 49@640. The default is that of the run.",
)
@format_options
def leaderboard(run: Path, top: int, front: bool, target: str | None, format: str | None) -> None:
    """Rank the networks of a run by their mean AP.

    A network that was trained several times has a mean and a 95 % interval. The last line names the winner, which
    other commands call `best`.
    """
    from spinenas.search.run.run import Run

    print_leaderboard(Run.open(run), top, format, front=front, target=target)


def print_leaderboard(
    run: Run, top: int, format: str | None, *, front: bool = False, target: str | None = None
) -> None:
    """Print the best networks of a run, and name the winner."""
    from spinenas.results.leaderboard import leaderboard_rows, winner_words
    from spinenas.results.pareto import front_rows
    from spinenas.space.limits import CostTarget

    columns = {
        "number": "text",
        "objective": "figure",
        "lower": "figure",
        "upper": "figure",
        "std": "figure",
        "n": "text",
        "status": "text",
        "params": "millions",
        "madds": "billions",
        "train_seconds": "seconds",
        "origin": "text",
        "key": "text",
    }
    state = run.state()
    records = list(state.trials.values())
    counted_in = run.cost_target() if target is None else CostTarget.published(target)
    rows = leaderboard_rows(records, None if front else top, target=counted_in)
    if front:
        rows = front_rows(rows)[:top]
    if format is None:
        rows = [{name: row[name] for name in columns} for row in rows]
    print_rows(rows, format, columns)
    if counted_in is not None:
        note(f"parameters and multiply-adds are those at {counted_in.name}")
    for sentence in winner_words(records, run.scalarized_objective()):
        note(sentence)
    if unfinished := run.unfinished(state):
        note(unfinished)
    elif advice := run.how_to_confirm(state):
        note(advice)
