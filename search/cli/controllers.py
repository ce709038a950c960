"""`spinenas controllers`: lists the search algorithms and their options."""

from __future__ import annotations

from typing import Any

import click

from spinenas.search.cli.options import format_options, note
from spinenas.search.cli.table import print_rows


@click.command("controllers")
@click.argument("name", metavar="[NAME]", required=False)
@format_options
def controllers(name: str | None, format: str | None) -> None:
    """List the search algorithms, or the options of one.

    Choose one with `spinenas search --controller NAME`. Change an option with --set controller.NAME.OPTION=VALUE.
    """
    from spinenas.controller.former_names import current_name, table_name
    from spinenas.controller.registry import CONTROLLERS, check_controller_name
    from spinenas.search.config.document import toml_value
    from spinenas.search.config.reference import controller_tables

    tables = controller_tables()
    rows: list[dict[str, Any]]
    if name is None:
        rows = [{"controller": controller, "summary": entry.summary} for controller, entry in CONTROLLERS.items()]
        if format == "json":
            for row in rows:
                row["options"] = {key.name.rpartition(".")[2]: key.default for key in tables[row["controller"]].keys}
        else:
            note("list the options of a controller with: spinenas controllers NAME")
    else:
        name = current_name(name)
        check_controller_name(name)
        rows = [
            {
                "option": key.name.rpartition(".")[2],
                "default": key.default if format == "json" else toml_value(key.default),
                "meaning": key.meaning,
            }
            for key in tables[name].keys
        ]
        if format is None and rows:
            note(f"change an option with: --set controller.{table_name(name)}.{rows[0]['option']}=VALUE")
    print_rows(rows, format)
