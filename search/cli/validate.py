"""`spinenas validate`: what a search ends with."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import click

from spinenas.search.cli.options import (
    configuration,
    format_options,
    given,
    overrides_option,
    print_rows,
    run_argument,
    watched,
)


@click.command(short_help="Compare the winner with SpineNet-49 and a random one on val.")
@run_argument
@click.option("--seeds", type=click.IntRange(min=2), default=3, show_default=True, help="Trainings of each.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the trainings; RUN/validation by default.")
@click.option("--workers", type=click.IntRange(min=1), help="Trainings at a time.")
@click.option("--address", help='Another Ray cluster to run on, "auto", or "local" for none.')
@overrides_option
@format_options
def validate(
    run: Path,
    seeds: int,
    out: Path | None,
    workers: int | None,
    address: str | None,
    overrides: tuple[str, ...],
    format: str | None,
) -> None:
    """Is a search's winner better than SpineNet-49 and than a random genotype? Train each anew, and look at val, once.

    The winner, SpineNet-49 (where the space has it) and a random genotype without dead blocks are trained through the
    run's own task, with seeds that the search has not used, and compared on val by a paired bootstrap over images. The
    same command goes on with it when it was stopped; once it is complete, the command only prints what was found.
    """
    from spinenas.search.monitoring.display import display_for
    from spinenas.search.run.run import Run
    from spinenas.search.studies.validation import validate as validate_winner
    from spinenas.search.studies.validation import validation_folder

    opened = Run.open(run)
    useless = [word for word in overrides if not word.startswith("executor.")]
    if useless:
        raise click.UsageError(f"the task is the run's own: only executor settings can be changed, not {useless[0]}")
    settings = given({"executor.workers": workers, "executor.address": address})
    config, _ = configuration(str(run / "config.json"), settings, overrides)
    state = opened.state()
    if state.unfinished:
        click.echo(f"the search was not finished: {len(state.unfinished)} trials have no result yet", err=True)
    folder = out or validation_folder(opened)
    with watched(lambda: "resume it with the same command"):
        found = validate_winner(opened, seeds=seeds, out=folder, config=config, display=display_for(sys.stderr))
    if format == "json":
        click.echo(json.dumps(found, indent=2))
    else:
        columns = {"reward_AP": "figure", "sd": "figure", "val_AP": "figure", "lower": "figure", "upper": "figure"}
        shown = ("architecture", "origin", "key", "reward_AP", "sd", "n", "val_AP", "lower", "upper")
        print_rows([{name: row[name] for name in shown} for row in found["architectures"]], format, columns)
    if "evaluated_by" in found:  # by earlier versions it is not
        click.echo(f"figures on val are by {found['evaluated_by']}", err=True)
    for pair in found["comparisons"]:
        click.echo(pair["sentence"], err=True)
    control = found["architectures"][-1]
    click.echo(
        f"the random control is one draw from the space, not the mean of all: spinenas show {shlex.quote(str(folder))} "
        f"{control['number']}",
        err=True,
    )
