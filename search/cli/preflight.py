"""`spinenas preflight`: try what a search needs before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from spinenas.search.cli.options import (
    configuration,
    data_option,
    data_settings,
    format_options,
    given,
    overrides_option,
    print_rows,
    watched,
)
from spinenas.space.errors import UserError

if TYPE_CHECKING:
    pass


@click.command()
@click.argument("source", metavar="PRESET|FILE.toml")
@data_option
@click.option("--address", help='Ray cluster to look at, or "auto".')
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("."), help="Where the run will be: can it be written?"
)
@overrides_option
@format_options
def preflight(
    source: str,
    data: Path | None,
    address: str | None,
    out: Path,
    overrides: tuple[str, ...],
    format: str | None,
) -> None:
    """Try, on each kind of machine, what a search needs: versions, data, storage, a training step, memory."""
    config, _ = configuration(source, given({"executor.address": address}) | data_settings(data), overrides)
    from spinenas.search.planning.preflight import preflight as look

    with watched(lambda: "nothing was begun"):
        machines, _ = look(config, out, lambda text: click.echo(text, err=True))
    print_rows(
        [machine.row() for machine in machines],
        format,
        {"step_seconds": "figure", "trial_minutes": "seconds", "peak_memory": "gibibytes"},
    )
    for machine in machines:
        if machine.traceback:
            click.echo(machine.traceback.rstrip(), err=True)
    problems = [f"{machine.name}: {problem}" for machine in machines for problem in machine.problems]
    if problems:
        raise UserError("; ".join(problems))
