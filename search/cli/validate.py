"""`spinenas validate`: compares the winner of a search with SpineNet-49 and a random genotype on val."""

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
@click.option(
    "--seeds", type=click.IntRange(min=2), default=3, show_default=True, help="Trainings of each architecture."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the trainings; default: RUN/validation.")
@click.option("--workers", type=click.IntRange(min=1), help="Trainings at the same time.")
@click.option("--address", help='Another Ray cluster: its address, "auto" to find one, or "local" for none.')
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
    """Test on val whether a search's winner is better than SpineNet-49 and than a random genotype.

    The winner, SpineNet-49 (if the space contains it) and a random genotype without dead blocks are trained on the
    run's own task with fresh seeds. A paired bootstrap over images compares them on val. The same command resumes a
    validation that was stopped. Once it is complete, the command prints its figures again.
    """
    from spinenas.search.monitoring.display import display_for
    from spinenas.search.run.run import Run
    from spinenas.search.studies.validation import validate as validate_winner
    from spinenas.search.studies.validation import validation_folder

    opened = Run.open(run)
    useless = [word for word in overrides if not word.startswith("executor.")]
    if useless:
        raise click.UsageError(
            f"the task is the run's own, so only executor settings have an effect; leave out {useless[0]}"
        )
    settings = given({"executor.workers": workers, "executor.address": address})
    config, _ = configuration(str(run / "config.json"), settings, overrides)
    state = opened.state()
    if state.unfinished:
        click.echo(f"the search is not finished: {len(state.unfinished)} trials have no result yet", err=True)
    folder = out or validation_folder(opened)
    with watched(lambda: "resume it with the same command"):
        found = validate_winner(opened, seeds=seeds, out=folder, config=config, display=display_for(sys.stderr))
    if format == "json":
        click.echo(json.dumps(found, indent=2))
    else:
        columns = {"reward_AP": "figure", "sd": "figure", "val_AP": "figure", "lower": "figure", "upper": "figure"}
        shown = ("architecture", "origin", "key", "reward_AP", "sd", "n", "val_AP", "lower", "upper")
        print_rows([{name: row[name] for name in shown} for row in found["architectures"]], format, columns)
    if "evaluated_by" in found:  # not in validations by earlier versions
        click.echo(f"figures on val are by {found['evaluated_by']}", err=True)
    for pair in found["comparisons"]:
        click.echo(pair["sentence"], err=True)
    control = found["architectures"][-1]
    click.echo(
        f"the random control is a single draw from the space, not its mean: spinenas show {shlex.quote(str(folder))} "
        f"{control['number']}",
        err=True,
    )
