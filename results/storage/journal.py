"""The journal of a run: one append-only file of events.

Each line is the JSON of an event (`events.py`), and ends with `"fence"`, the number of the driver's lease, and
`"crc32"`, the checksum of everything before it. The driver alone writes lines, as things happen.

The journal is the checkpoint: the state of a run is `fold(read_events(path))` and nothing else. A line counts once
its newline is written; bytes after the last valid line are discarded. A line with a lower fence than an earlier one
was written by a driver that had lost the run, and does not count. Schema 1 (spinenas 0.1.0) had neither fence nor
checksum; its journals are read and continued.

To continue a run, open the journal first, which makes this process the owner (`lease.py`), and then read it.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from spinenas.results.storage.events import Event, Skipped, event_from_json
from spinenas.results.storage.lease import Lease
from spinenas.results.storage.mirror import Mirror
from spinenas.space.errors import UserError, explained_os_errors

logger = logging.getLogger(__name__)

SCHEMA = "spinenas-journal/2"

READABLE = ("spinenas-journal/1", SCHEMA)


class Journal:
    """An open journal; no other process can write it meanwhile.

    Use as a context manager. Lines are on the disk when `append` returns.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, file: io.FileIO, lease: Lease, mirror: Mirror | None) -> None:
        """Take over an open file that this process owns; use `create` or `open`."""
        self.path = path
        self._file, self._lease, self._mirror = file, lease, mirror
        self._unmirrored = b""
        self._length = _sound_length(path, file)
        file.truncate(self._length)

    @classmethod
    def create(cls, path: Path, *, mirror: Mirror | None = None) -> Journal:
        """Begin a new journal; an empty file may exist already. Raises UserError."""
        journal = cls._owned(path, os.O_CREAT, mirror, lambda text: None)
        if journal._length:
            journal.close()
            raise UserError(f"{path} already holds a run; resume it, or choose another folder")
        return journal

    @classmethod
    def open(
        cls, path: Path, *, mirror: Mirror | None = None, on_wait: Callable[[str], None] = lambda text: None
    ) -> Journal:
        """Continue a journal, after cutting off a half-written end. Raises UserError.

        Args:
            mirror: a second place that has every line before `append` returns; it may hold more lines than this file.
            on_wait: told why this takes up to a minute, if it does.
        """
        return cls._owned(path, 0, mirror, on_wait)

    @classmethod
    def _owned(cls, path: Path, flags: int, mirror: Mirror | None, on_wait: Callable[[str], None]) -> Journal:
        _open(path, os.O_RDWR | flags).close()  # an unwritable journal is not taken over
        with ExitStack() as undo:
            above = _highest_fence(path)  # a run may have been copied without its lease files
            lease = Lease.acquire(path.parent / "lease", above=above, on_wait=on_wait)
            undo.callback(lease.release)
            if mirror is not None:
                mirror_fence = mirror.acquire(on_wait=on_wait)
                undo.callback(mirror.release)
                if flags & os.O_CREAT and mirror.journal():
                    raise UserError(f"{mirror.store.uri} already holds a run; give another storage.mirror")
                mirror.catch_up(path, above)
                if mirror_fence > lease.fence:
                    lease.release()
                    lease = Lease.acquire(path.parent / "lease", above=mirror_fence - 1, on_wait=on_wait)
                    undo.callback(lease.release)
            # Opened last: the previous owner, or the mirror, may have replaced the file.
            file = undo.enter_context(_open(path, os.O_RDWR | os.O_APPEND))
            journal = cls(path, file, lease, mirror)
            if mirror is not None:
                mirror.begin(lease.fence, path.parent)
            undo.pop_all()
        return journal

    def append(self, event: Event, *, sync: bool = True) -> None:
        """Write one event and wait until it is on the disk.

        Args:
            sync: False for an event that nothing depends on yet; it reaches the disk with the next one. It survives
                the end of this process in any case.

        Raises UserError if it cannot be written (the journal then ends as before) or the run has another owner,
        and ValueError for NaN.
        """
        line = encode(event.to_json(), self.fence)
        self._lease.check()
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
            if sync:
                os.fsync(self._file.fileno())
        except BaseException as error:
            # Otherwise a later event would follow half a line, and the file would become unreadable. A file that is
            # longer has been written by a later owner.
            if os.fstat(self._file.fileno()).st_size <= self._length + len(line):
                os.ftruncate(self._file.fileno(), self._length)
            if isinstance(error, OSError):
                raise UserError(f"cannot write {self.path}: {error.strerror}; make room and resume the run") from error
            raise
        self._length += len(line)
        if self._mirror is not None:
            self._unmirrored += line
            if sync:
                self._push()

    def _push(self) -> None:
        assert self._mirror is not None
        self._mirror.push(self._unmirrored)
        self._unmirrored = b""

    def mirror_file(self, path: Path) -> None:
        """Copy a file of the run to its mirror, if it has one. Raises UserError."""
        if self._mirror is not None:
            self._mirror.store.write(path.relative_to(self.path.parent).as_posix(), path.read_bytes())

    @property
    def fence(self) -> int:
        """Fencing number of its lease, which its lines carry."""
        return self._lease.fence

    def moved_to(self, path: Path) -> None:
        """Follow the run to another folder, together with the open file."""
        self.path = path
        self._lease.moved_to(path.parent / "lease")

    def unmirror_file(self, path: Path) -> None:
        """Remove a file of the run from its mirror."""
        if self._mirror is not None:
            self._mirror.store.remove(path.relative_to(self.path.parent).as_posix())

    def close(self) -> None:
        """Close the file and release the run."""
        self._file.close()
        if self._mirror is not None:
            if self._unmirrored:
                with contextlib.suppress(UserError):  # nothing depends on these lines
                    self._push()
            self._mirror.release()
        self._lease.release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


_CHECKSUM_BYTES = len(',"crc32":"00000000"}\n')


def encode(event: dict[str, Any], fence: int) -> bytes:
    """Return the line of an event's JSON, with fence and checksum. Raises ValueError for NaN."""
    body = json.dumps({**event, "fence": fence}, separators=(",", ":"), allow_nan=False).encode()[:-1]
    return b'%b,"crc32":"%08x"}\n' % (body, zlib.crc32(body))


def read_events(
    path: Path, *, epochs: bool = True, on_damage: Callable[[str], None] | None = None
) -> Iterator[Event | Skipped]:
    """Yield all events in order; event i is line i + 1. Nothing is yielded for a run that wrote none.

    Lines that do not count, because their driver had lost the run, are yielded as Skipped. May be called while a
    driver writes. Raises UserError naming file, line and offset.

    Args:
        epochs: False to check the lines of epochs and yield them as Skipped: most lines are epochs, and `fold` does
            not need them.
        on_damage: called for each broken line, which is then left out: for inspecting a run, not for continuing it.
    """
    with _open(path, os.O_RDONLY) as file:
        offset = fence = 0
        checked = False
        skipped = Skipped()
        for number, line in enumerate(io.BufferedReader(file, 2**20), start=1):
            if checked and not epochs and line.startswith(b'{"event":"epoch"') and _has_checksum(line):
                yield skipped
                offset += len(line)
                continue
            data = decode(line, checked=checked)
            if data is None:
                # A line without newline may still be growing, and more lines may follow meanwhile.
                if not line.endswith(b"\n") or not _any_sound(path, offset + len(line)):
                    return  # a half-written end
                if on_damage is not None:
                    on_damage(f"line {number}, at byte {offset}, is broken")
                    offset += len(line)
                    continue
                raise UserError(
                    f"{path} line {number}, at byte {offset}, is broken: {line[:60].decode(errors='replace')!r}; "
                    f"restore the file from a copy, or keep what can be kept: spinenas resume {path.parent} --salvage"
                )
            if number == 1 and (data["event"], data.get("schema")) not in [("run_started", name) for name in READABLE]:
                raise UserError(
                    f"{path} line 1 has schema {data.get('schema')!r}; this version reads journals of "
                    f"{' and '.join(map(repr, READABLE))}; use the version that wrote it"
                )
            checked = "crc32" in data
            of_driver = data.get("fence", 0)
            offset += len(line)
            if of_driver < fence:
                yield skipped
                continue
            fence = of_driver
            try:
                event = event_from_json(data)
            except UserError as error:
                if on_damage is None:
                    raise UserError(f"line {number} of the journal does not fit: {error}") from error
                on_damage(f"line {number} of the journal does not fit: {error}")
                continue
            yield event


def decode(line: bytes, *, checked: bool) -> dict[str, Any] | None:
    """Return the JSON of a line with its fence and checksum, or None if it is damaged or half-written.

    Args:
        line: with its newline, if it has one.
        checked: whether a checksum is required; lines of schema 1 have none.
    """
    if not line.endswith(b"\n"):
        return None
    try:
        event = orjson.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return None
    if "crc32" not in event:
        return None if checked else event
    return event if _has_checksum(line) else None


def _has_checksum(line: bytes) -> bool:
    """Whether a line ends with the checksum of the bytes before it."""
    return line.endswith(b'"%08x"}\n' % zlib.crc32(line[:-_CHECKSUM_BYTES]))


def _open(path: Path, flags: int) -> io.FileIO:
    with explained_os_errors(f"cannot open the journal {path}", "name the folder of a run"):
        return os.fdopen(os.open(path, flags, 0o666), "rb" if flags == os.O_RDONLY else "r+b", buffering=0)


def _highest_fence(path: Path) -> int:
    """Return the highest fencing number in a journal; 0 for schema 1 and without a file."""
    highest = 0
    if not path.exists():
        return 0
    with open(path, "rb") as file:
        for line in file:
            digits = line[line.rfind(b'"fence":') + len(b'"fence":') : -_CHECKSUM_BYTES]
            if digits.isdigit():
                highest = max(highest, int(digits))
    return highest


def _any_sound(path: Path, offset: int) -> bool:
    """Whether any line from there on is valid."""
    with open(path, "rb") as file:
        file.seek(offset)
        return any(decode(line, checked=False) is not None for line in file)


def _sound_length(path: Path, file: io.FileIO) -> int:
    """Bytes up to the end of the last valid line, found from the end because journals are long and lines are short."""
    size = start = file.seek(0, os.SEEK_END)
    tail = b""  # bytes that may be the end of a longer line
    while start > 0:
        end, start = start, max(0, start - 65536)
        file.seek(start)
        block = file.read(end - start) + tail
        lines = block.split(b"\n")
        length = start + len(block)
        for index in range(len(lines) - 1, 0 if start else -1, -1):
            line = lines[index] + b"\n" if index < len(lines) - 1 else lines[index]
            if decode(line, checked=False) is not None:
                if length < size:
                    logger.warning("%s ended in %d bytes of half-written lines", path, size - length)
                return length
            length -= len(line)
        tail = block[: length - start]
    return 0


def now() -> str:
    """Current time in the format of events: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
