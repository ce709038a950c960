"""The command line. Each command is a thin layer over one function: data on stdout, everything else on stderr.

Modules that take long to load (torch, ray, pandas) are imported inside the commands that need them.
"""

from __future__ import annotations

from typing import Any

import click

from spinenas.search.cli.bench import bench
from spinenas.search.cli.config import config
from spinenas.search.cli.controllers import controllers
from spinenas.search.cli.convert import convert
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
    "Prepare a search": (presets, controllers, config, preflight),
    "Run a search": (search, resume),
    "Look at the results": (leaderboard, show, report, compare, validate, replay),
    "Exchange files with other programs": (export, import_file, convert, to_optuna),
    "Study tasks, spaces and controllers": (proxy, space, bench),
}
"""The commands in the order of their use."""


class _Commands(CommandGroup):
    """The commands in sections. A UserError ends a command with its sentence and status 1."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except UserError as error:
            note(f"spinenas: error: {error}")
            raise SystemExit(1) from error

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(f"{command.name:{width}}", command.get_short_help_str(limit=100)) for command in commands]
                )


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="spinenas", prog_name="spinenas")
def main() -> None:
    """Search for scale-permuted detection backbones, as SpineNet was found."""


for _commands in SECTIONS.values():
    for _command in _commands:
        main.add_command(_command)
