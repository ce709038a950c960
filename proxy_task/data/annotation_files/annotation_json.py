"""Loads the JSON of annotation files, and checks the parts that all lists of entries have in common."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from spinenas.space.errors import UserError

GZIP_MAGIC = b"\x1f\x8b"

OUTLINE_PATTERN = re.compile(rb'"(?:segmentation|counts|keypoints)"\s*:\s*\[[][\d\s.,eE+-]*\]')
"""Matches outlines, most of a COCO file: gigabytes as Python lists, and unused here.

It matches nothing inside a JSON string, where quotes are escaped."""


def load_json(path: Path, sha256: str | None, *, with_outlines: bool = False) -> dict[str, Any]:
    """Return the object in a file, by default with None in place of outlines. Raises UserError.

    A file whose SHA-256 is not the one given is refused.
    """
    text = _read_text(path, sha256)
    if not with_outlines:
        text = OUTLINE_PATTERN.sub(rb'"outline":null', text)
    try:
        try:
            data = orjson.loads(text)
        except orjson.JSONDecodeError:  # NaN or Infinity, perhaps: some tools write them, and Python reads them
            data = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); give a COCO annotation file") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} is not a COCO annotation file: it holds a {type(data).__name__}, not an object")
    return data


def _read_text(path: Path, sha256: str | None) -> bytes:
    """Return the text of a file, decompressed and without the byte order mark that some tools write."""
    try:
        text = path.read_bytes()
        if sha256 is not None and hashlib.sha256(text).hexdigest() != sha256:
            raise UserError(f"{path} was changed while it was read; start again when the file is complete")
        if text.startswith(GZIP_MAGIC):
            text = gzip.decompress(text)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is a damaged gzip file ({error}); copy it again") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    return text.removeprefix(b"\xef\xbb\xbf")


def entries_of(entries: list[Any], what: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the id and the fields of each entry of a list; ids are unique."""
    seen: set[int] = set()
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise UserError(f"{path}: {what} number {index} is a {type(entry).__name__}; it must be an object")
        entry_id = whole_number(entry, "id", f"{what} number {index}", path)
        if entry_id in seen:
            raise UserError(f"{path}: {what} id {entry_id} is used twice; ids must be unique")
        seen.add(entry_id)
        yield entry_id, entry


def whole_number(entry: dict[str, Any], name: str, what: str, path: Path, *, least: int = -(2**63)) -> int:
    """Return a whole number, which may be written as 1.0. Raises UserError, which names the entry by `what`."""
    value = entry.get(name)
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not least <= value < 2**63:
        problem = "has no" if name not in entry else f"has {value!r:.50} as"
        rule = "a whole number" if least < 0 else f"a whole number of at least {least}"
        raise UserError(f"{path}: {what} {problem} {name!r}; it must be {rule}")
    return value
