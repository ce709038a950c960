"""`spinenas validate`: compares the winner of a search with SpineNet-49 and a random genotype on val."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from spinenas.search.cli.options import (
    check_overrides,
    configuration,
    format_options,
    note,
    number_option,
    overrides_of,
    overrides_option,
    path_option,
    run_argument,
    watched,
    workers_option,
)
from spinenas.search.cli.table import print_rows
from spinenas.space.errors import UserError


@click.command(short_help="Compare the winner with SpineNet-49 and a random one on val.")
@run_argument
@number_option("--seeds", least=2, default=3, help="Trainings of each architecture.")
@path_option("--out", "Folder of the trainings; default: RUN/validation.", metavar="PATH")
@workers_option
@click.option("--address", help='Another Ray cluster: its address, "auto" to find one, or "local" for none.')
@overrides_option
@format_options
def validate(run: Path, seeds: int, out: Path | None, format: str | None, **options: Any) -> None:
    """Test on val whether a search's winner is better than SpineNet-49 and than a random genotype.

    The winner, SpineNet-49 (if the space contains it) and a random genotype without dead blocks are trained on the
    run's own task with fresh seeds. A paired bootstrap over images compares them on val. The same command resumes a
    validation that was stopped. Once it is complete, the command prints its figures again.
    """
    from spinenas.search.monitoring.display import display_for
    from spinenas.search.run.continuation import elsewhere, missing_data
    from spinenas.search.run.run import Run
    from spinenas.search.studies.validation import validate as validate_winner
    from spinenas.search.studies.validation import validation_folder

    opened = Run.open(run)
    rule = "the task is the run's own, so only executor settings have an effect"
    check_overrides(options["overrides"], rule, "executor.")
    config, _ = configuration(str(run / "config.json"), overrides_of(options))
    if unfinished := opened.unfinished(opened.state()):
        note(unfinished)
    folder = out or validation_folder(opened)
    with watched(lambda: "resume it with the same command"):
        try:
            found = validate_winner(opened, seeds=seeds, out=folder, config=config, display=display_for(sys.stderr))
        except UserError as error:
            if (missing := missing_data(config.task.data)) is None:
                raise
            raise UserError(elsewhere(run, missing)) from error
    if format == "json":
        click.echo(json.dumps(found, indent=2))
    else:
        columns = {"reward_AP": "figure", "sd": "figure", "val_AP": "figure", "lower": "figure", "upper": "figure"}
        shown = ("architecture", "origin", "key", "reward_AP", "sd", "n", "val_AP", "lower", "upper")
        print_rows([{name: row[name] for name in shown} for row in found["architectures"]], format, columns)
    if "evaluated_by" in found:  # not in validations by earlier versions
        note(f"figures on val are by {found['evaluated_by']}")
    for pair in found["comparisons"]:
        note(pair["sentence"])
    control = found["architectures"][-1]
    note(
        f"the random control is a single draw from the space, not its mean: spinenas show {shlex.quote(str(folder))} "
        f"{control['number']}"
    )
