"""The lease of a run's folder: only its holder may write the run.

The folder lease/ holds one small file per owner, named by its fencing number. The highest number owns the run. A new
owner takes the next number by creating a file that must not exist yet, once the last owner has ended
(`ownership.py`). On this machine, the lock on the file shows at once whether its owner is alive.

An owner that was only stalled finds the higher number before its next write. What it may have written meanwhile
carries its lower number, and readers of the journal leave it out.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spinenas.results.storage import ownership
from spinenas.results.storage.atomic_write import sync_folder
from spinenas.results.storage.ownership import Heartbeat, Owner, held, lost, owner_record, parse_owner, was_here
from spinenas.results.storage.utc import now
from spinenas.space.errors import UserError

SCHEMA = "spinenas-lease/1"

LOCKED_AFTER_SECONDS = 2.0
"""Age at which the owner of a lease file has surely locked it."""

_FILE_BYTES = 512
"""Every version of a file is padded to this length, so that one write replaces it whole."""


class Lease:
    """An owned run, made by `acquire`; a thread keeps it alive until it is released.

    Attributes:
        fence: the fencing number, 1 for the first owner of a run.
        killed_at: the last sign of life of an earlier owner that was killed; empty without one, and once the journal
            has it. The lease file keeps it until then.
    """

    def __init__(self, folder: Path, fence: int, descriptor: int, killed_at: str) -> None:
        """Take over the file just created; use `acquire`."""
        self.fence, self.killed_at = fence, killed_at
        self._folder, self._descriptor = folder, descriptor
        self._count = 0
        self._write(released=False)
        self._heartbeat = Heartbeat("lease", self._beat)

    @classmethod
    def acquire(cls, folder: Path, *, above: int = 0, on_wait: Callable[[str], None] = lambda text: None) -> Lease:
        """Become the owner of the run that `folder` belongs to; make the folder if needed. Raises UserError.

        Args:
            folder: the lease/ of the run.
            above: numbers up to this one were used, whether or not their files exist.
            on_wait: told why this takes up to EXPIRY_SECONDS, if it does.
        """
        try:
            folder.mkdir(exist_ok=True)
            fence = _highest(folder)
            if fence:
                ownership.wait_for_end(_LeaseFile(folder, fence), on_wait=on_wait, poll_seconds=1.0)
            lease = cls._create(folder, max(fence, above) + 1, last_sign_of_life(folder))
        except FileExistsError as error:
            raise held(str(folder.parent), _read(_path(folder, max(fence, above) + 1))) from error
        except OSError as error:
            raise UserError(
                f"cannot write {folder}: {error.strerror}; make the run's folder writable, with room on its disk"
            ) from error
        # Files of earlier owners are removed below, so a very slow rival may have created a number that was free.
        highest = _highest(folder)
        if highest > lease.fence:
            lease.release()
            raise held(str(folder.parent), _read(_path(folder, highest)))
        for number in _numbers(folder):
            if number < lease.fence:
                _path(folder, number).unlink(missing_ok=True)
        sync_folder(folder)
        return lease

    @classmethod
    def _create(cls, folder: Path, fence: int, killed_at: str) -> Lease:
        """Take a number, whole or not at all. Raises OSError; FileExistsError if another process has it."""
        path = _path(folder, fence)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with contextlib.suppress(OSError):  # a file system without locks: only the heartbeat shows a living owner
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            return cls(folder, fence, descriptor, killed_at)
        except OSError:
            os.close(descriptor)
            path.unlink()
            raise

    def check(self) -> None:
        """Raise UserError if the run has another owner by now, or its folder is gone."""
        try:
            os.stat(_path(self._folder, self.fence))
        except OSError as error:
            owner = _read(_path(self._folder, _highest(self._folder)))
            if owner:
                raise lost(str(self._folder.parent), owner) from error
            raise UserError(
                f"{self._folder.parent} is gone or cannot be read ({error.strerror}); "
                "what was running is stopped; bring the folder back and resume the run"
            ) from error
        owner = _read(_path(self._folder, self.fence + 1))
        if owner:
            raise lost(str(self._folder.parent), owner)

    def moved_to(self, folder: Path) -> None:
        """Follow the run to another folder, where this lease's file is now."""
        self._folder = folder

    def release(self) -> None:
        """Release the run; another process may take it at once. May be called twice."""
        if self._heartbeat.is_stopped:
            return
        self._heartbeat.stop()
        with contextlib.suppress(OSError):
            self._write(released=True)
        os.close(self._descriptor)

    def _beat(self, count: int) -> None:
        self._count = count
        with contextlib.suppress(OSError):  # the journal's own write will say what is wrong
            self._write(released=False)

    def _write(self, *, released: bool) -> None:
        owner = owner_record(SCHEMA, count=self._count, released=released)
        owner |= {"at": now(), "killed_at": self.killed_at}
        os.pwrite(self._descriptor, json.dumps(owner).encode().ljust(_FILE_BYTES - 1) + b"\n", 0)
        os.fsync(self._descriptor)  # so that other hosts see it now


@dataclass(frozen=True, slots=True)
class _LeaseFile:
    """The file of one owner, as an `OwnedPlace`."""

    folder: Path
    fence: int

    @property
    def place(self) -> str:
        return str(self.folder.parent)

    def read_owner(self) -> Owner:
        return _read(_path(self.folder, self.fence))

    def lives_here(self, owner: Owner) -> bool | None:
        return _is_locked(_path(self.folder, self.fence))


def is_owned(folder: Path) -> bool:
    """Whether a process writes the run that `folder`, its lease/, belongs to; changes nothing and does not wait.

    The end of an owner on this host is seen at once. On another host, where its process cannot be seen, an owner
    that did not release the run counts for EXPIRY_SECONDS after its last write.
    """
    path = _path(folder, _highest(folder))
    owner = _read(path)
    if not owner or owner.get("released"):
        return False
    try:
        age_seconds = time.time() - path.stat().st_mtime
    except OSError:
        return False
    # The lock of a file just made is not tried: trying shares it for a moment, in which its owner may need it.
    if was_here(owner) and (owner.get("count") or age_seconds > LOCKED_AFTER_SECONDS):
        locked = _is_locked(path)
        if locked is not None:
            return locked
    return age_seconds < ownership.EXPIRY_SECONDS


def last_sign_of_life(folder: Path) -> str:
    """Return when an owner that was killed was last alive, UTC, ISO 8601; empty if none was, or if it is unknown."""
    owner = _read(_path(folder, _highest(folder)))
    at = owner.get("killed_at") or ("" if owner.get("released") else owner.get("at"))
    return at if isinstance(at, str) else ""


def _is_locked(path: Path) -> bool | None:
    """Whether a living process of this host holds the lock of the file; None if the file system cannot say."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two processes may ask at the same time
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def _path(folder: Path, fence: int) -> Path:
    return folder / f"{fence:06d}.json"


def _numbers(folder: Path) -> list[int]:
    try:
        return [int(path.stem) for path in folder.iterdir() if path.stem.isdigit() and path.suffix == ".json"]
    except OSError:
        return []


def _highest(folder: Path) -> int:
    return max(_numbers(folder), default=0)


def _read(path: Path) -> Owner:
    """Read an owner's record; empty if there is no file, only the schema if its owner died while creating it."""
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    return parse_owner(data) or ({"schema": SCHEMA} if path.exists() else {})
