"""Writes docs/cli.md from the commands and docs/configuration.md from the configuration dataclasses.

Run it after a change of either: python docs/generate.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from spinenas.search.cli.main import main
from spinenas.search.config.document import toml_value, value_at
from spinenas.search.config.presets import PRESETS
from spinenas.search.config.reference import Key, configuration_tables

DOCS = Path(__file__).parent
GENERATED = "<!-- Written by docs/generate.py; edit the help texts and docstrings in the code. -->"


def pages() -> dict[Path, str]:
    """Return the text of each generated page."""
    return {DOCS / "cli.md": cli_page(), DOCS / "configuration.md": configuration_page()}


def cli_page() -> str:
    """Return the help of every command."""
    blocks = [
        "# Commands",
        GENERATED,
        "Results are printed on stdout, everything else on stderr. A command that fails says why in one sentence. Its "
        "exit status is 1, or 2 for a wrong option. A search that is stopped with Ctrl-C, SIGTERM "
        "or SIGHUP ends with 130, 143 or 129.",
    ]
    for name, command in (("spinenas", main), *_commands(main, "spinenas")):
        context = click.Context(command, info_name=name, terminal_width=100, help_option_names=["-h", "--help"])
        blocks += [f"## `{name}`", f"```text\n{command.get_help(context)}\n```"]
    return "\n\n".join(blocks) + "\n"


def _commands(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{prefix} {name}", command
        if isinstance(command, click.Group):
            yield from _commands(command, f"{prefix} {name}")


def configuration_page() -> str:
    """Return every configuration key with its type, unit, default, values in presets and meaning."""
    blocks = [
        "# Configuration",
        GENERATED,
        "`spinenas config PRESET` prints a complete configuration file with these explanations. A file may begin with "
        '`preset = "NAME"`; other keys then default to the values of that preset. On the command line, `--set '
        'KEY=VALUE` overrides any key. The text "none" means no value.',
    ]
    for table in configuration_tables():
        blocks.append(f"## {f'`{table.name}`' if table.name else 'Top level'}\n\n{table.meaning}")
        if table.keys:
            header = "| key | type | unit | default | presets | meaning |\n|---|---|---|---|---|---|"
            blocks.append("\n".join([header, *map(_key_row, table.keys)]))
    return "\n\n".join(blocks) + "\n"


def _key_row(key: Key) -> str:
    values = {name: value_at(config.to_json(), key.name) for name, config in PRESETS.items()}
    of_presets = "; ".join(f"{name}: `{toml_value(value)}`" for name, value in values.items() if value != key.default)
    cells = (f"`{key.name}`", key.type, key.unit, f"`{toml_value(key.default)}`", of_presets, key.meaning)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
