"""Atomic file writes: a file is written whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from spinenas.space.errors import UserError, explained_os_errors


def check_destination(path: Path, *, force: bool) -> None:
    """Raise UserError if a file cannot be written: its folder is missing, or it exists and may not be replaced."""
    if not path.parent.is_dir():
        raise UserError(f"the folder {path.parent} does not exist; create it first")
    if path.exists() and not force:
        raise UserError(f"{path} exists already; choose another file, or add --force")


def write_chosen_file(path: Path, data: bytes) -> None:
    """Write a file that the user named as `write_bytes_atomically` does. Raises UserError."""
    with explained_os_errors(f"cannot write {path}", "choose a file in a folder that can be written"):
        write_bytes_atomically(path, data)


def write_text_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text as `write_bytes_atomically` writes bytes."""
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Replace a file so that a reader, or a crash, finds the old content or the new content, never a part.

    Each writer has a partial file of its own. A killed writer leaves it behind, for `remove_partials`.
    """
    # The partial file is beside the target, so that the replacement stays within one file system. Files of `tempfile`
    # are readable by their owner only. The name is random: writers on two machines may have the same process id.
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
    """Remove the partial files of killed writers; a writer that is still running fails with an OSError."""
    for partial in path.parent.glob(f".{path.name}.*.partial"):
        partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make created, renamed or replaced names in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
