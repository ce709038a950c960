"""The command line. Each command is a thin layer over one function: data on stdout, everything else on stderr.

Modules that take long to load (torch, ray, pandas) are imported inside the commands that need them.
"""

from __future__ import annotations

import errno
import os
from typing import Any

import click

from spinenas.search.cli.bench import bench
from spinenas.search.cli.config import config
from spinenas.search.cli.controllers import controllers
from spinenas.search.cli.convert import convert
from spinenas.search.cli.data import data
from spinenas.search.cli.export import export
from spinenas.search.cli.import_file import import_file
from spinenas.search.cli.leaderboard import leaderboard
from spinenas.search.cli.options import CommandGroup, note
from spinenas.search.cli.preflight import preflight
from spinenas.search.cli.presets import presets
from spinenas.search.cli.proxy import proxy
from spinenas.search.cli.replay import replay
from spinenas.search.cli.report import compare, report
from spinenas.search.cli.search import resume, search
from spinenas.search.cli.show import show
from spinenas.search.cli.space import space
from spinenas.search.cli.to_optuna import to_optuna
from spinenas.search.cli.validate import validate
from spinenas.space.errors import UserError

SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Prepare a search": (presets, controllers, config, data, preflight),
    "Run a search": (search, resume),
    "Look at the results": (leaderboard, show, report, compare, validate, replay),
    "Exchange files with other programs": (export, import_file, convert, to_optuna),
    "Study tasks, spaces and controllers": (proxy, space, bench),
}
"""The commands in the order of their use."""


class _Commands(CommandGroup):
    """The commands in sections. A UserError ends a command with its sentence and status 1.

    So does a path that the system cannot have, which no command checks by itself.
    """

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (UserError, OSError, UnicodeEncodeError) as error:
            sentence = str(error) if isinstance(error, UserError) else _impossible_path(error)
            if sentence is None:
                raise
            note(f"spinenas: error: {sentence}")
            raise SystemExit(1) from error

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(f"{command.name:{width}}", command.get_short_help_str(limit=100)) for command in commands]
                )


def _impossible_path(error: OSError | UnicodeEncodeError) -> str | None:
    """Return why the system cannot have a path; None for an error with another cause."""
    if isinstance(error, UnicodeEncodeError):
        character = error.object[error.start]
        return f"the encoding {error.encoding} of this locale has no character {character!a}; set LC_ALL=C.UTF-8"
    if error.errno == errno.ENAMETOOLONG:
        part = max(os.fsdecode(error.filename or "").split(os.sep), key=len)
        return f"{part[:30]!r}... has {len(part)} characters, too many for a file name here; choose a shorter one"
    return None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="spinenas", prog_name="spinenas")
def main() -> None:
    """Search for scale-permuted detection backbones, as SpineNet was found."""


for _commands in SECTIONS.values():
    for _command in _commands:
        main.add_command(_command)
