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
    from spinenas.results.leaderboard import leaderboard_rows
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
        "epochs_seen": "text",
        "objective_so_far": "figure",
        "predicted": "figure",
        "predicted_std": "figure",
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
    parts = [row for row in rows if row["epochs_seen"] is not None]
    is_predicted = any(row["predicted"] is not None for row in parts)
    if format is None:
        hidden = _OF_PARTS[2 * bool(parts) + 2 * is_predicted :]
        rows = [{name: row[name] for name in columns if name not in hidden} for row in rows]
    print_rows(rows, format, columns)
    if counted_in is not None:
        note(f"parameters and multiply-adds are those at {counted_in.name}")
    if parts:
        note(_parts_words(run.whole_epochs(), is_predicted))
    for sentence in run.winner_words():
        note(sentence)
    if words := run.unfinished(state) or run.used_words(state):
        note(words)
    if not run.unfinished(state) and (advice := run.how_to_confirm(state)):
        note(advice)


_OF_PARTS = ("epochs_seen", "objective_so_far", "predicted", "predicted_std")
"""Columns of networks without a complete training; the last two need a prediction."""


def _parts_words(whole: int, is_predicted: bool) -> str:
    from spinenas.results.foretold import MIN_PAIRS  # numpy

    words = f"epochs_seen and objective_so_far are of networks that were not trained for all {whole} epochs; "
    if is_predicted:
        return words + "predicted is their expected final AP, and predicted_std the spread of one training"
    return words + f"their final AP is predicted once {MIN_PAIRS} trainings are complete"
