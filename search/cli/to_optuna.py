"""`spinenas to-optuna`: writes a run as an Optuna study."""

from __future__ import annotations

from pathlib import Path

import click

from spinenas.search.cli.options import force_option, note, path_option, run_argument


@click.command("to-optuna")
@run_argument
@path_option("--out", "SQLite file to write, such as run.db.", required=True)
@force_option
def to_optuna(run: Path, out: Path, force: bool) -> None:
    """Write a run as an Optuna study.

    The file serves optuna-dashboard and Optuna's plots.
    """
    from spinenas.search.outputs.optuna_study import write_optuna_study
    from spinenas.search.run.run import Run

    write_optuna_study(Run.open(run), out, force=force)
    note(f"wrote {run} to {out}; view it with: optuna-dashboard sqlite:///{out}")
