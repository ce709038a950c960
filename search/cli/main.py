"""The command line: each command is a thin layer over one function; data on stdout, everything else on stderr.

Modules that take long to load (torch, ray, pandas) are imported inside the commands that need them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from spinenas.search.cli.bench import bench
from spinenas.search.cli.config import config
from spinenas.search.cli.exchange import convert, export, import_file, to_optuna
from spinenas.search.cli.leaderboard import leaderboard
from spinenas.search.cli.preflight import preflight
from spinenas.search.cli.presets import presets
from spinenas.search.cli.proxy import proxy
from spinenas.search.cli.replay import replay
from spinenas.search.cli.report import compare, report
from spinenas.search.cli.search import resume, search
from spinenas.search.cli.show import show
from spinenas.search.cli.space import space
from spinenas.search.cli.validate import validate
from spinenas.space.errors import UserError

if TYPE_CHECKING:
    pass


class _Sentence(click.ClickException):
    """A UserError as click shows it."""

    def show(self, file: Any = None) -> None:
        click.echo(f"spinenas: error: {self.format_message()}", err=True)


class _Commands(click.Group):
    """A group in which what a user gave wrongly ends a command with one sentence and status 1."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except UserError as error:
            raise _Sentence(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="spinenas", prog_name="spinenas")
def main() -> None:
    """Search for scale-permuted detection backbones, as SpineNet was found."""


main.add_command(search)
main.add_command(resume)
main.add_command(config)
main.add_command(presets)
main.add_command(preflight)
main.add_command(import_file)
main.add_command(proxy)
main.add_command(validate)
main.add_command(report)
main.add_command(compare)
main.add_command(bench)
main.add_command(export)
main.add_command(to_optuna)
main.add_command(convert)
main.add_command(space)
main.add_command(leaderboard)
main.add_command(show)
main.add_command(replay)
