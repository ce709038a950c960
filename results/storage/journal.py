"""The journal of a run: one append-only file of events.

Each line is the JSON of an event (`events.py`), and ends with `"fence"`, the number of the driver's lease, and
`"crc32"`, the checksum of everything before it (`journal_lines.py`). The driver alone writes lines, as things happen.

The journal is the checkpoint: the state of a run is `fold(read_events(path))` and nothing else. A driver that is
killed while it writes leaves at most one half-written line without a newline. Readers ignore this line, and the next
driver removes it after it has kept a copy of the file. Any other invalid line is damage, which is never removed
without being asked (`salvage.py`). A line with a lower fence than an earlier one was written by a driver that had
lost the run, and does not count. Schema 1 (spinenas 0.1.0) had neither fence nor checksum; its journals are read and
continued.

To continue a run, open the journal first, which makes this process the owner (`lease.py`), and then read it.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from spinenas.results.storage.events import Event, Resumed, Skipped, event_from_json
from spinenas.results.storage.journal_lines import decode, encode, events_within, has_checksum, highest_fence
from spinenas.results.storage.journal_rescue import keep_copy, why_unreadable
from spinenas.results.storage.lease import Lease
from spinenas.results.storage.mirror import Mirror
from spinenas.space.errors import UserError, explained_os_errors

SCHEMA = "spinenas-journal/2"

_EPOCH = b'{"event":"epoch","at":"'
"""Begin of the line of an epoch, before its time."""

READABLE = ("spinenas-journal/1", SCHEMA)


class Journal:
    """An open journal; no other process can write it meanwhile.

    Use as a context manager. Lines are on the disk when `append` returns.

    Attributes:
        path: the file.
        copy: what the file held before its half-written last line was removed; None if there was no such line.
    """

    def __init__(
        self, path: Path, file: io.FileIO, lease: Lease, mirror: Mirror | None, note: Callable[[str], None]
    ) -> None:
        """Take over an open file that this process owns; use `create` or `open`."""
        self.path = path
        self.copy: Path | None = None
        self._file, self._lease, self._mirror = file, lease, mirror
        self._unmirrored = b""
        self._newline = b""  # ends the last line, if it has no newline
        self._length = os.fstat(file.fileno()).st_size
        if (problem := why_unreadable(path)) is not None:
            raise UserError(problem)
        last = _last_line(file)
        if not last:
            return
        if decode(last, checked=False) is not None or events_within(last):
            self._newline = b"\n"
            return
        self.copy = keep_copy(path)
        self._length -= len(last)
        file.truncate(self._length)
        note(
            f"the last line of {path} was half-written, and its {len(last)} bytes were removed; the file as it was is "
            f"kept as {self.copy}"
        )

    @classmethod
    def create(cls, path: Path, *, mirror: Mirror | None = None) -> Journal:
        """Begin a new journal; an empty file may exist already. Raises UserError."""
        if path.exists() and path.stat().st_size:
            raise UserError(f"{path} already holds a run; resume it, or choose another folder")
        return cls._owned(path, os.O_CREAT, mirror, lambda text: None)

    @classmethod
    def open(
        cls, path: Path, *, mirror: Mirror | None = None, note: Callable[[str], None] = lambda text: None
    ) -> Journal:
        """Continue a journal, without a half-written last line. Raises UserError.

        Args:
            mirror: a second place that has every line before `append` returns; it may hold more lines than this file.
            note: told why this takes up to a minute, and what was changed in the file.
        """
        return cls._owned(path, 0, mirror, note)

    @classmethod
    def _owned(cls, path: Path, flags: int, mirror: Mirror | None, note: Callable[[str], None]) -> Journal:
        _open(path, os.O_RDWR | flags).close()  # an unwritable journal is not taken over
        with ExitStack() as undo:
            above = highest_fence(path)  # a run may have been copied without its lease files
            lease = Lease.acquire(path.parent / "lease", above=above, on_wait=note)
            undo.callback(lease.release)
            if mirror is not None:
                mirror_fence = mirror.acquire(on_wait=note)
                undo.callback(mirror.release)
                if flags & os.O_CREAT and mirror.journal():
                    raise UserError(f"{mirror.store.uri} already holds a run; give another storage.mirror")
                mirror.catch_up(path, above, note=note)
                if mirror_fence > lease.fence:
                    lease.release()
                    lease = Lease.acquire(path.parent / "lease", above=mirror_fence - 1, on_wait=note)
                    undo.callback(lease.release)
            # Opened last: the previous owner, or the mirror, may have replaced the file.
            file = undo.enter_context(_open(path, os.O_RDWR | os.O_APPEND))
            journal = cls(path, file, lease, mirror, note)
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
        line = self._newline + encode(event.to_json(), self.fence)
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
        self._newline = b""
        self._length += len(line)
        if isinstance(event, Resumed):
            self._lease.killed_at = ""
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

    @property
    def killed_at(self) -> str:
        """The last sign of life of a driver that was killed, until a Resumed event is appended; empty without one."""
        return self._lease.killed_at

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
        for number, line in enumerate(io.BufferedReader(file, 2**20), start=1):
            if checked and not epochs and line.startswith(_EPOCH) and has_checksum(line):
                yield Skipped(line[len(_EPOCH) : line.index(b'"', len(_EPOCH))].decode())
                offset += len(line)
                continue
            data = decode(line, checked=checked)
            if data is None:
                if number == 1 and (problem := why_unreadable(path)) is not None:
                    raise UserError(problem)
                if not line.endswith(b"\n") and not events_within(line):
                    return  # a half-written end, which may still grow
                if on_damage is not None:
                    on_damage(f"line {number}, at byte {offset}, is broken")
                    offset += len(line)
                    continue
                raise UserError(
                    f"{path} line {number}, at byte {offset}, is broken: {line[:60].decode(errors='replace')!r}; "
                    f"restore the file from a copy, or keep what can be kept: "
                    f"spinenas resume {shlex.quote(str(path.parent))} --salvage"
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
                yield Skipped()
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


def _open(path: Path, flags: int) -> io.FileIO:
    with explained_os_errors(f"cannot open the journal {path}", "name the folder of a run"):
        return os.fdopen(os.open(path, flags, 0o666), "rb" if flags == os.O_RDONLY else "r+b", buffering=0)


def _last_line(file: io.FileIO) -> bytes:
    """Return the bytes after the last newline, which are usually none."""
    start = file.seek(0, os.SEEK_END)
    tail = b""
    while start > 0:
        end, start = start, max(0, start - 65536)
        file.seek(start)
        _, newline, after = file.read(end - start).rpartition(b"\n")
        tail = after + tail
        if newline:
            break
    return tail
