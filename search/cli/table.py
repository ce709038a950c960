"""Prints rows of data as a plain table for people, or as JSON or CSV for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

STYLES: dict[str, Callable[[Any], str]] = {
    "text": str,
    "figure": "{:.4f}".format,
    "digits": "{:.4g}".format,
    "seconds": "{:.1f}".format,
    "millions": lambda value: f"{value / 1e6:.3f} M",
    "gibibytes": lambda value: f"{value / 2**30:.2f} GiB",
    "billions": lambda value: f"{value / 1e9:.3f} G",
    "printed millions": lambda value: f"{value / 1e6} M",  # no digit that is not in the value
    "printed billions": lambda value: f"{value / 1e9} G",
    "three decimals": "{:.3f}".format,
}
"""Formats of a value in a table."""


def print_rows(rows: Sequence[Mapping[str, Any]], format: str | None, styles: Mapping[str, str] | None = None) -> None:
    """Print rows on stdout.

    Args:
        rows: each with the same fields.
        format: "json" or "csv" for every value in full; None for a table, with a dash for None.
        styles: the name of one of STYLES by field, for tables. Other fields are printed as text.
    """
    click.echo(_formatted(rows, format, styles or {}))


def print_facts(facts: Mapping[str, Any], format: str | None, styles: Mapping[str, str] | None = None) -> None:
    """Print named values on stdout, a row for each."""
    print_rows([{"what": what, "value": value} for what, value in facts.items()], format, styles)


def _formatted(rows: Sequence[Mapping[str, Any]], format: str | None, styles: Mapping[str, str]) -> str:
    if format == "json":
        return json.dumps(list(rows), indent=2, allow_nan=False)
    fields = list(rows[0]) if rows else []
    if format == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {key: json.dumps(value) if isinstance(value, list) else value for key, value in row.items()} for row in rows
        )
        return text.getvalue().rstrip("\n")
    columns = []
    for name in fields:
        values, style = [row[name] for row in rows], STYLES[styles.get(name, "text")]
        cells = [name, *("-" if value is None else style(value) for value in values)]
        width = max(map(len, cells))
        is_number = all(isinstance(value, int | float | None) for value in values)
        columns.append([cell.rjust(width) if is_number else cell.ljust(width) for cell in cells])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))
