"""Reads, writes and merges configuration documents in TOML or JSON. It does not know what the keys mean."""

from __future__ import annotations

import codecs
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spinenas.space.errors import UserError, explained_os_errors

NONE = "none"
"""The text that means no value, in a configuration file and in an override."""


def read_document(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the text and the tables of a TOML file, or of the config.json of a run. Raises UserError."""
    with explained_os_errors(f"cannot read the configuration {path}", "name a preset, a TOML file or a run"):
        data = path.read_bytes()
    try:
        text = _decoded(data)
        document = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not {path.suffix[1:].upper() or 'TOML'}: {error}; correct the file") from error
    if isinstance(document, dict) and str(document.get("schema", "")).startswith("spinenas-"):
        raise UserError(f"{path} is an exported architecture; name a preset, a TOML file or a run as the configuration")
    if not isinstance(document, dict):
        raise UserError(f"{path} holds a {type(document).__name__}; a configuration is a table of keys and values")
    return text, document


def _decoded(data: bytes) -> str:
    """Decode UTF-8, or UTF-16 as some Windows programs write it, without its byte order mark. Raises ValueError."""
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if is_utf16 else "utf-8-sig")


def with_overrides(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested tables of a document with values by dotted key laid over them; later values win."""
    merged = dict(document)
    for key, value in overrides.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        merged = merged_tables(merged, value)
    return merged


def parse_override(text: str) -> tuple[str, Any]:
    """Split "task.train.epochs=2" into key and value: TOML, `none`, or else plain text. Raises UserError."""
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not key:
        raise UserError(f"override {text!r} is not of the form key=value, such as task.train.epochs=2")
    if value == NONE:
        return key, None
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def flattened(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value of nested tables with its dotted key; an empty table is a value."""
    for key, value in tables.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def value_at(tables: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """Return the value of nested tables at a dotted key, or the default."""
    value: Any = tables
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return default
        value = value[part]
    return value


def without_none(value: Any) -> Any:
    """Return plain data with every text "none" replaced by None."""
    if isinstance(value, Mapping):
        return {key: without_none(item) for key, item in value.items()}
    return None if value == NONE else value


def toml_text(tables: Mapping[str, Any]) -> str:
    """Write tables as TOML, a line for each value under its dotted key.

    Args:
        tables: nested, with identifiers for keys; values of other types are written as text.
    """
    return "".join(f"{key} = {toml_value(value)}\n" for key, value in flattened(tables))


def toml_value(value: Any) -> str:
    """Write a plain value as TOML, which has no null: None becomes the text "none"."""
    if value is None:
        return f'"{NONE}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key} = {toml_value(item)}' for key, item in value.items())}}}"
    # A JSON string is a TOML string with two exceptions: surrogate pairs and a bare DEL.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def merged_tables(base: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested tables with the values of another layer laid over them."""
    merged = dict(base)
    for key, value in layer.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = merged_tables(below, value)
        merged[key] = value
    return merged
