"""A configuration as TOML text, for people to read and to search with again; the standard library only reads TOML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def toml_text(tables: Mapping[str, Any]) -> str:
    """Return a line for each value, under its dotted key; TOML has no None, which becomes a comment.

    Args:
        tables: nested, with identifiers for keys; values that TOML has no form for here are given as strings.
    """
    return "".join(f"{line}\n" for line in _lines(tables, ""))


def _lines(tables: Mapping[str, Any], prefix: str) -> list[str]:
    lines = []
    for key, value in tables.items():
        name = prefix + key
        if isinstance(value, Mapping) and value:
            lines += _lines(value, f"{name}.")
        elif value is None:
            lines.append(f"# {name} is none")
        else:
            lines.append(f"{name} = {_value(value)}")
    return lines


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return "{}"  # a table with keys has lines of its own
    # A JSON string is a TOML one but for two things: pairs of \u for one character, and a bare DEL.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
