"""Keeps the lines that Ray's libraries print out of a search's own output, in a file of the run.

Native code writes on file descriptor 2, whatever `sys.stderr` is. So the command line first gives `sys.stderr` another
descriptor. Afterwards descriptor 2 can be diverted without hiding a line of the search.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import BinaryIO, TextIO

RAY_LOG = "ray.log"
"""Name of the file in the run's folder."""

DESCRIPTOR = 2
"""Where native code writes its messages."""


class OwnStderr(io.TextIOWrapper):
    """A `sys.stderr` that writes to the same place as descriptor 2, by a descriptor of its own."""


@contextmanager
def separate_stderr() -> Iterator[None]:
    """Make `sys.stderr` an OwnStderr; nothing changes if it does not write on descriptor 2, as within a test."""
    before = sys.stderr
    if not _writes_there(before):
        yield
        return
    before.flush()
    # Not closed at the end: handlers of loggers may still hold it.
    binary = open(os.dup(DESCRIPTOR), "wb")  # noqa: SIM115
    sys.stderr = OwnStderr(binary, encoding=before.encoding, errors=before.errors, line_buffering=True)
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = before


def _writes_there(stream: object) -> bool:
    try:
        return bool(stream.fileno() == DESCRIPTOR)  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False


@contextmanager
def raw_output_in(folder: Path | None) -> Iterator[Callable[[], None]]:
    """Divert descriptor 2, Ray's logger and stdout to the file RAY_LOG of a folder.

    The folder need not exist at first. Nothing is diverted without a folder, or outside `separate_stderr`, as in a
    Python program whose own lines would be diverted too.

    Yields:
        A function that writes the file as soon as its folder exists; it is called at the end as well.
    """
    own = sys.stderr
    if folder is None or not isinstance(own, OwnStderr):
        yield lambda: None
        return
    path = folder / RAY_LOG
    with contextlib.ExitStack() as stack:
        early = stack.enter_context(tempfile.TemporaryFile())
        # From sys.stderr rather than a copy of descriptor 2, as a lost terminal may have been replaced meanwhile.
        stack.callback(lambda: os.dup2(own.fileno(), DESCRIPTOR))
        os.dup2(early.fileno(), DESCRIPTOR)
        settled: list[Path] = []

        def settle() -> None:
            with contextlib.suppress(OSError):  # the lines are of use only after a failure
                if not settled and folder.is_dir():
                    _continue_in(path, early)
                    settled.append(path)

        raw = open(DESCRIPTOR, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        stack.enter_context(_ray_logs_to(raw))
        stack.enter_context(redirect_stdout(raw))  # results are printed after the search
        try:
            yield settle
        finally:
            settle()
            with contextlib.suppress(OSError):
                if settled and not path.stat().st_size:
                    path.unlink()


def _continue_in(path: Path, early: BinaryIO) -> None:
    """Append to a file what the temporary one holds, and let descriptor 2 write there from now on."""
    with open(path, "ab") as file:
        os.dup2(file.fileno(), DESCRIPTOR)
        file.write(os.pread(early.fileno(), os.fstat(early.fileno()).st_size, 0))


@contextmanager
def _ray_logs_to(stream: TextIO) -> Iterator[None]:
    """Send the records of Ray's Python logger to this stream alone."""
    logger = logging.getLogger("ray")
    before, propagates = logger.handlers, logger.propagate
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(filename)s: %(message)s"))
    logger.handlers, logger.propagate = [handler], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before, propagates
