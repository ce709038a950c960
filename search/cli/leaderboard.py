"""`spinenas leaderboard`: the networks of a run in order, and which one `best` means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from spinenas.search.cli.options import format_options, print_rows, run_argument

if TYPE_CHECKING:
    from spinenas.search.run.run import Run


@click.command()
@run_argument
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Networks at most.")
@click.option("--front", is_flag=True, help="Only those that none beats in AP, multiply-adds and parameters at once.")
@click.option(
    "--target",
    metavar="49@640",
    help="Scaling and pixels to count costs at; default: the run's own target or, without one, what it trains.",
)
@format_options
def leaderboard(run: Path, top: int, front: bool, target: str | None, format: str | None) -> None:
    """Rank the networks of a run, by the mean over their trainings."""
    from spinenas.search.run.run import Run

    print_leaderboard(Run.open(run), top, format, front=front, target=target)


def print_leaderboard(
    run: Run, top: int, format: str | None, *, front: bool = False, target: str | None = None
) -> None:
    """Print the best of its networks, and say which one `best` means."""
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
    records = run.records()
    counted_in = run.cost_target() if target is None else CostTarget.published(target)
    rows = leaderboard_rows(records, None if front else top, target=counted_in)
    if front:
        rows = front_rows(rows)[:top]
    if format is None:
        rows = [{name: row[name] for name in columns} for row in rows]
    print_rows(rows, format, columns)
    if counted_in is not None:
        click.echo(f"parameters and multiply-adds are those at {counted_in.name}", err=True)
    for sentence in winner_words(records, run.scalarized_objective()):
        click.echo(sentence, err=True)
