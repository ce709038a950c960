"""Explains a journal that cannot be read, and keeps its bytes before anything changes them."""

from __future__ import annotations

import shlex
from pathlib import Path

from spinenas.results.storage.atomic_write import write_bytes_atomically
from spinenas.results.storage.journal_lines import decode, events_within
from spinenas.space.errors import explained_os_errors

_HEAD_BYTES = 65536

_PACKED = {
    b"\x1f\x8b": ("gzip", "gz", "gzip -dc"),
    b"\xfd7zXZ\x00": ("xz", "xz", "xz -dc"),
    b"BZh": ("bzip2", "bz2", "bzip2 -dc"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zst", "zstd -dc"),
    b"PK\x03\x04": ("zip", "zip", "unzip -p"),
}
"""By the first bytes of a compressed file: name of the format, suffix, and the command that prints what is inside."""

_ENCODINGS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"{\x00\x00\x00": "UTF-32LE",
    b"\x00\x00\x00{": "UTF-32BE",
    b"{\x00": "UTF-16LE",
    b"\x00{": "UTF-16BE",
}
"""By the first bytes of a text file: its encoding, as `iconv` names it. The longer beginnings come first."""


def why_unreadable(path: Path) -> str | None:
    """Return in a sentence why a journal holds no valid event, and what to do; None if it holds one or is empty.

    Raises OSError.
    """
    with open(path, "rb") as file:
        if not file.read(1):
            return None
        file.seek(0)
        if any(decode(line, checked=False) is not None for line in file):
            return None
        file.seek(0)
        head = file.read(_HEAD_BYTES)
        file.seek(0)
        if not _has_old_line_ends(head) and any(map(events_within, file)):
            return None
    what, remedy = _explanation(path)
    return f"{path} {what}, so that no event of it can be read; it was left as it is; {remedy}"


def _explanation(path: Path) -> tuple[str, str]:
    """Return what a file without any valid event is, and what to do about it."""
    name = shlex.quote(str(path))
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(0)
        size, blank, zero, altered = 0, True, True, False
        for line in file:
            size += len(line)
            blank = blank and not line.strip()
            zero = zero and not line.strip(b"\x00\r\n")
            altered = altered or b'"crc32":' in line
    for begin, (format_name, suffix, unpack) in _PACKED.items():
        if head.startswith(begin):
            packed = shlex.quote(f"{path}.{suffix}")
            return (
                f"is compressed with {format_name}",
                f"unpack it with: mv {name} {packed} && {unpack} {packed} > {name}",
            )
    if blank:
        return f"is {size} bytes of blank lines", "restore it from a copy of the run"
    if zero:
        return (
            f"is {size} zero bytes, as a power failure or a failing disk leaves it",
            "restore it from a copy of the run",
        )
    for begin, encoding in _ENCODINGS.items():
        if head.startswith(begin):
            old = shlex.quote(f"{path}.{encoding.lower()}")
            convert = f"mv {name} {old} && iconv -f {encoding} -t UTF-8 {old} > {name}"
            return f"is in {encoding}", f"convert it with: {convert}"
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, without the file itself", "fetch the file with: git lfs pull"
    if _has_old_line_ends(head):
        old = shlex.quote(f"{path}.cr")
        return (
            "has carriage returns without newlines",
            f"convert it with: mv {name} {old} && tr '\\r' '\\n' < {old} > {name}",
        )
    if altered:
        return "was changed by another program: no line has its checksum any more", "restore it from a copy of the run"
    return f"has {size} bytes, which begin with {head[:24]!r}", "restore it from a copy of the run"


def _has_old_line_ends(head: bytes) -> bool:
    """Whether a file has lines that end in a carriage return alone."""
    return any(decode(line, checked=False) for line in head.split(b"\r")[:2])


def keep_copy(path: Path) -> Path:
    """Copy a journal that is about to be changed, and return the copy, a file beside it. Raises UserError."""
    remedy = "make the run's folder writable, with room on its disk; nothing was changed"
    with explained_os_errors(f"cannot keep a copy of {path}", remedy):
        data = path.read_bytes()
        number = 1
        copy = path.with_name(f"{path.name}.damaged")
        while copy.exists():
            if copy.stat().st_size == len(data) and copy.read_bytes() == data:
                return copy
            number += 1
            copy = path.with_name(f"{path.name}.damaged-{number}")
        write_bytes_atomically(copy, data)
    return copy
