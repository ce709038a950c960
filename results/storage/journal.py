"""The journal: one append-only file of events, and the state they add up to; nothing of how trials are run.

Each line is a JSON object `{"event": kind, ...}`, written by the driver alone as things happen:

| event | fields beside `at` (UTC, ISO 8601) |
|---|---|
| run_started | `schema`, `run`: what the run is |
| observed | `genotype`, `evaluation`, `sources`: what an earlier run knew, before anything is asked |
| asked | `proposal` (its JSON), `network_key`, `seed`, `task_key`, `num_told`: how many results its controller knew |
| started | `number`, `attempt`, `worker`, `device`, `dtype`, `accelerators`: how many, or the part of one, it uses |
| epoch | `number`, `attempt`, `epoch`, `metrics` |
| paused | `number`, `attempt`, `evaluation` without its curve: as it stands after a rung of halving |
| promoted | `number`, `attempt` (the new one), `epoch`, `objective`: it goes on after that rung |
| told | `number`, `attempt`, `status`, and `evaluation` without its curve, or `failure` |
| requeued | `number`, `attempt` (the new one), `reason`, `kind` of the failure, if one, `fidelity`, if another |
| refused | `number`, `attempt`, `reason`: a report that came too late or made no sense, and changed nothing |
| resumed | `changes`: what the run was continued with |
| stopped | `reason`: why the driver left before the end |

and ends with `"fence"`, the number of the driver's lease, and `"crc32"` of all that stands before it, so that any
damage is seen. The journal is the checkpoint: the state of a run is `fold(read_events(path))` and nothing else. A
line counts from its newline on; what stands behind the last sound line was half-written when the machine died, and
never was. A line of a lower fence than an earlier line's is of a driver that had lost the run, and never was
either. Schema 1 (spinenas 0.1.0) had neither fence nor checksum; its journals are read and continued.

Who continues a run opens the journal first, which makes it its owner (`lease.py`), and reads it then.
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
from types import TracebackType
from typing import Any

import orjson

from spinenas.results.storage.lease import Lease
from spinenas.results.storage.mirror import Mirror
from spinenas.space.errors import UserError

logger = logging.getLogger(__name__)

SCHEMA = "spinenas-journal/2"

READABLE = ("spinenas-journal/1", SCHEMA)


class Journal:
    """An open journal; while it is open, no other process can write it.

    Use as a context manager. Lines are on the disk when `append` returns.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, file: io.FileIO, lease: Lease, mirror: Mirror | None) -> None:
        """Take over an open, owned file; use `create` or `open`."""
        self.path = path
        self._file, self._lease, self._mirror = file, lease, mirror
        self._unmirrored = b""
        self._length = _sound_length(path, file)
        file.truncate(self._length)

    @classmethod
    def create(cls, path: Path, *, mirror: Mirror | None = None) -> Journal:
        """Begin a new journal; an empty file may stand already. Raises UserError."""
        journal = cls._owned(path, os.O_CREAT, mirror, lambda text: None)
        if journal._length:
            journal.close()
            raise UserError(f"{path} already holds a run; resume it, or choose another folder")
        return journal

    @classmethod
    def open(
        cls, path: Path, *, mirror: Mirror | None = None, on_wait: Callable[[str], None] = lambda text: None
    ) -> Journal:
        """Continue a journal; a half-written end is cut off first. Raises UserError.

        Args:
            mirror: another place that has every line before `append` returns, and may have more than this one.
            on_wait: told why this takes up to a minute, if it does.
        """
        return cls._owned(path, 0, mirror, on_wait)

    @classmethod
    def _owned(cls, path: Path, flags: int, mirror: Mirror | None, on_wait: Callable[[str], None]) -> Journal:
        _open(path, os.O_RDWR | flags).close()  # what cannot be written is not owned
        with ExitStack() as undo:
            above = _highest_fence(path)  # a run can be copied without the files of its leases
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
            # Opened last: whoever owned the run until now may have put another file in its place.
            file = undo.enter_context(_open(path, os.O_RDWR | os.O_APPEND))
            journal = cls(path, file, lease, mirror)
            if mirror is not None:
                mirror.begin(lease.fence, path.parent)
            undo.pop_all()
        return journal

    def append(self, event: dict[str, Any], *, sync: bool = True) -> None:
        """Write one event and wait until it is on the disk.

        Args:
            sync: False for an event that nobody acts on; it reaches the disk with the next one. It survives the
                end of this process in any case.

        Raises UserError when it cannot be written (the journal then ends as before) or the run has another owner,
        ValueError for NaN.
        """
        line = encode(event, self.fence)
        self._lease.check()
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
            if sync:
                os.fsync(self._file.fileno())
        except BaseException as error:
            # Without this a later event would follow half a line, and the file could not be read any more. A file
            # that is longer has been written by an owner after this one.
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
        """Keep a file of the run in its other place too, if it has one. Raises UserError."""
        if self._mirror is not None:
            self._mirror.store.write(path.relative_to(self.path.parent).as_posix(), path.read_bytes())

    @property
    def fence(self) -> int:
        """The number of its lease, which its lines carry."""
        return self._lease.fence

    def moved_to(self, path: Path) -> None:
        """Know that the folder was moved, and the open journal with it."""
        self.path = path
        self._lease.moved_to(path.parent / "lease")

    def unmirror_file(self, path: Path) -> None:
        """Remove a file of the run from its other place."""
        if self._mirror is not None:
            self._mirror.store.remove(path.relative_to(self.path.parent).as_posix())

    def close(self) -> None:
        """Let go of the file and of the run."""
        self._file.close()
        if self._mirror is not None:
            if self._unmirrored:
                with contextlib.suppress(UserError):  # lines that nobody acts on
                    self._push()
            self._mirror.release()
        self._lease.release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


_CHECKSUM_BYTES = len(',"crc32":"00000000"}\n')


def encode(event: dict[str, Any], fence: int) -> bytes:
    """Write an event as a line with fence and checksum. Raises ValueError for NaN."""
    body = json.dumps({**event, "fence": fence}, separators=(",", ":"), allow_nan=False).encode()[:-1]
    return b'%b,"crc32":"%08x"}\n' % (body, zlib.crc32(body))


def read_events(
    path: Path, *, epochs: bool = True, on_damage: Callable[[str], None] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield all events in order; event i stands in line i + 1. None for a run that never wrote one.

    A line that never was, because its driver had lost the run, comes as an event "stale". May be called while a
    driver writes. Raises UserError naming file, line and offset.

    Args:
        epochs: False to check the lines of epochs and read no further into them, which come as "unread": most lines
            are, and `fold` does without them.
        on_damage: told of each broken line, which is then passed over: for looking at a run, not for going on with it.
    """
    with _open(path, os.O_RDONLY) as file:
        offset = fence = 0
        checked = False
        for number, line in enumerate(io.BufferedReader(file, 2**20), start=1):
            if checked and not epochs and line.startswith(b'{"event":"epoch"') and _has_checksum(line):
                yield {"event": "unread"}
                offset += len(line)
                continue
            event = decode(line, checked=checked)
            if event is None:
                # Without a newline it may still grow, and then others may follow while this looks for them.
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
            if number == 1 and (event["event"], event.get("schema")) not in [
                ("run_started", name) for name in READABLE
            ]:
                raise UserError(
                    f"{path} line 1 has schema {event.get('schema')!r}; this version reads journals of "
                    f"{' and '.join(map(repr, READABLE))}; use the version that wrote it"
                )
            checked = event.pop("crc32", None) is not None
            of_driver = event.pop("fence", 0)
            if of_driver >= fence:
                fence = of_driver
                yield event
            else:
                yield {"event": "stale"}
            offset += len(line)


def decode(line: bytes, *, checked: bool) -> dict[str, Any] | None:
    """Return the event of a line with its fence and checksum, or None if it is damaged or half-written.

    Args:
        line: with its newline, if it has one.
        checked: whether it must have a checksum; those of schema 1 have none.
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
    """Whether a line ends with the checksum of what stands before it."""
    return line.endswith(b'"%08x"}\n' % zlib.crc32(line[:-_CHECKSUM_BYTES]))


def _open(path: Path, flags: int) -> io.FileIO:
    try:
        return os.fdopen(os.open(path, flags, 0o666), "rb" if flags == os.O_RDONLY else "r+b", buffering=0)
    except OSError as error:
        raise UserError(f"cannot open the journal {path}: {error.strerror}; name the folder of a run") from error


def _highest_fence(path: Path) -> int:
    """Return the highest fencing number in a journal, 0 in one of schema 1 and where there is none."""
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
    """Whether any line from there on is sound."""
    with open(path, "rb") as file:
        file.seek(offset)
        return any(decode(line, checked=False) is not None for line in file)


def _sound_length(path: Path, file: io.FileIO) -> int:
    """Bytes up to the end of the last sound line; read from the end, as journals get long and lines do not."""
    size = start = file.seek(0, os.SEEK_END)
    tail = b""  # what was read and may be the end of a longer line
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
    """The time as events have it: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
