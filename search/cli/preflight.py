"""`spinenas preflight`: checks every kind of machine before a search starts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from spinenas.search.cli.options import (
    PATH,
    address_option,
    check_data_is_here,
    configuration,
    data_option,
    format_options,
    note,
    overrides_of,
    overrides_option,
    source_argument,
    watched,
)
from spinenas.search.cli.table import print_rows
from spinenas.space.errors import UserError

_LONGEST_TRAINING_SECONDS = {None: 300.0, True: math.inf, False: 0.0}
"""How long the one training may take, by the option --train."""


@click.command()
@source_argument
@data_option
@address_option
@click.option(
    "--out",
    type=PATH,
    default=Path("."),
    metavar="FOLDER",
    help="Folder of the future run, to check that it is writable.",
)
@click.option(
    "--train/--no-train",
    "train",
    default=None,
    help="Train one network to its end, and judge by it whether a search can learn anything. By default only if it "
    "takes at most 5 minutes.",
)
@overrides_option
@format_options
def preflight(source: str, out: Path, train: bool | None, format: str | None, **options: Any) -> None:
    """Check that every machine can run a search.

    On each kind of machine the command checks versions, storage or mirror, data, and the space for the image cache. It
    measures memory and the time of a training step in float32 and bfloat16. The table has one row per machine and
    check. One network is trained to its end, to see whether it learns. The command starts no search.
    """
    config, _ = configuration(source, overrides_of(options))
    check_data_is_here(source, config)
    from spinenas.proxy_task.data.findings import not_logged
    from spinenas.search.planning.preflight import preflight as look

    with watched(lambda: "nothing was started"), not_logged():
        machines, _ = look(config, out, note, longest_training_seconds=_LONGEST_TRAINING_SECONDS[train])
    print_rows([row for machine in machines for row in machine.rows()], format, {"seconds": "digits"})
    for machine in machines:
        for sentence in machine.notes:
            note(f"{machine.name}: {sentence}")
        if machine.traceback:
            note(machine.traceback.rstrip())
    for sentence in dict.fromkeys(sentence for machine in machines for sentence in machine.findings):
        note(f"data: {sentence}")
    problems = [f"{machine.name}: {problem}" for machine in machines for problem in machine.problems]
    if problems:
        raise UserError("; ".join(problems))
