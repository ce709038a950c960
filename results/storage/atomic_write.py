"""Writing a file whole or not at all; knows nothing of what is in it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_text_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text as `write_bytes_atomically` writes bytes."""
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, finds the old one or the new one, never a part.

    Each of several writers has a part of its own; one that is killed leaves it behind, for `remove_partials`.
    """
    # Beside the target, so that the replacement stays within one file system; not by tempfile, whose files
    # only the owner can read; random, as writers on two machines may have the same process id.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def remove_partials(path: Path) -> None:
    """Remove the parts that killed writers of a file left; a writer that is still at it fails with an OSError."""
    for partial in path.parent.glob(f".{path.name}.*.partial"):
        partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make names created, renamed or replaced in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
