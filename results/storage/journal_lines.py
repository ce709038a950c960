"""Lines of a journal as bytes: the JSON of an event, the number of the driver's lease, and a checksum.

The checksum decides what is valid. Line ends of other systems (CRLF), a byte order mark and a missing last newline are
therefore accepted: they change no event.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

import orjson

_CHECKSUM_BYTES = len(',"crc32":"00000000"}\n')

_BEGIN = b'{"event":'

_END = re.compile(rb',"crc32":"[0-9a-f]{8}"\}')

_AROUND = b" \t\r\n\xef\xbb\xbf"
"""Bytes around a line that change no event: white space, and those of a byte order mark."""


def encode(event: dict[str, Any], fence: int) -> bytes:
    """Return the line of an event's JSON, with fence and checksum. Raises ValueError for NaN."""
    body = json.dumps({**event, "fence": fence}, separators=(",", ":"), allow_nan=False).encode()[:-1]
    return b'%b,"crc32":"%08x"}\n' % (body, zlib.crc32(body))


def decode(line: bytes, *, checked: bool) -> dict[str, Any] | None:
    """Return the JSON of a line with its fence and checksum, or None if it is damaged or half-written.

    Args:
        line: with or without its newline.
        checked: whether a checksum is required; lines of schema 1 have none.
    """
    if not line.endswith(b'"}\n') or not line.startswith(b"{"):
        line = _trimmed(line)
    try:
        event = orjson.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return None
    if "crc32" not in event:
        return None if checked else event
    return event if has_checksum(line) else None


def has_checksum(line: bytes) -> bool:
    """Whether a line ends with the checksum of the bytes before it."""
    return line.endswith(b'"%08x"}\n' % zlib.crc32(line[:-_CHECKSUM_BYTES]))


def events_within(line: bytes) -> list[dict[str, Any]]:
    """Return the valid events inside a damaged line; only events with a checksum can be found.

    There are some where a newline was lost, or where the bytes before an event were overwritten.
    """
    found = []
    start = line.find(_BEGIN)
    while start >= 0 and (end := _END.search(line, start)):
        event = decode(line[start : end.end()], checked=True)
        if event is not None:
            found.append(event)
        start = line.find(_BEGIN, start + 1 if event is None else end.end())
    return found


def highest_fence(path: Path) -> int:
    """Return the highest fencing number in a journal; 0 for schema 1 and without a file."""
    highest = 0
    if not path.exists():
        return 0
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b'"}\n'):
                line = _trimmed(line)
            digits = line[line.rfind(b'"fence":') + len(b'"fence":') : -_CHECKSUM_BYTES]
            if digits.isdigit():
                highest = max(highest, int(digits))
    return highest


def _trimmed(line: bytes) -> bytes:
    return line.strip(_AROUND) + b"\n"
