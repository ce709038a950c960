"""Formats rows of data as a plain table for people, or as JSON or CSV for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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


def format_rows(rows: Sequence[Mapping[str, Any]], format: str | None, styles: Mapping[str, str]) -> str:
    """Return rows as text.

    Args:
        rows: each with the same fields.
        format: "json" or "csv" for every value in full; None for a table, with a dash for None.
        styles: the name of one of STYLES by field, for tables. Other fields are printed as text.
    """
    if format == "json":
        return json.dumps(list(rows), indent=2, allow_nan=False)
    fields = list(rows[0]) if rows else []
    if format == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, fields, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {key: json.dumps(value) if isinstance(value, list) else value for key, value in row.items()}
            )
        return text.getvalue().rstrip("\n")
    cells = [fields]
    for row in rows:
        cells.append(["-" if row[name] is None else STYLES[styles.get(name, "text")](row[name]) for name in fields])
    # Numbers are aligned right, words left.
    numeric = [all(isinstance(row[name], int | float | None) for row in rows) for name in fields]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    )
