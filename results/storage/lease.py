"""Who may write a run: one driver at a time, on whatever host; nothing of what is written.

The folder lease/ of a run holds one small file for each owner there was, numbered: the fencing number. The highest
number owns the run. An owner rewrites its file every HEARTBEAT_SECONDS with a growing count, so that others see it
alive without comparing clocks; who wants the run takes the next number, by creating a file that must not exist yet,
when the owner

- has let go (`released`), or
- ran on this host and is dead, which the lock on its file tells at once, or
- ran elsewhere, and its count stood still for EXPIRY_SECONDS.

An owner that was only stalled finds the higher number before its next write, and what it may have written meanwhile
carries its lower number, by which readers of the journal leave it out.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spinenas.results.storage.atomic_write import sync_folder
from spinenas.space.errors import UserError

SCHEMA = "spinenas-lease/1"

HEARTBEAT_SECONDS = 10.0

EXPIRY_SECONDS = 60.0
"""How long a count on another host must stand still; six missed heartbeats."""

_FILE_BYTES = 512
"""Every version of a file is padded to this, so that one write replaces it whole."""


class Lease:
    """An owned run, made by `acquire`; keeps itself alive in a thread until it is released.

    Attributes:
        fence: the fencing number, 1 for the first owner of a run.
    """

    def __init__(self, folder: Path, fence: int, descriptor: int) -> None:
        """Take over the file just created; use `acquire`."""
        self.fence = fence
        self._folder, self._descriptor = folder, descriptor
        self._count = 0
        self._stop = threading.Event()
        self._write(released=False)
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    @classmethod
    def acquire(cls, folder: Path, *, above: int = 0, on_wait: Callable[[str], None] = lambda text: None) -> Lease:
        """Become the owner of the run that `folder` belongs to, made if need be. Raises UserError.

        Args:
            folder: the lease/ of the run.
            above: numbers up to this one were used, whether or not their files are there.
            on_wait: told why this takes up to EXPIRY_SECONDS, if it does.
        """
        try:
            folder.mkdir(exist_ok=True)
            fence = _highest(folder)
            if fence:
                _wait_for_end(folder, fence, on_wait)
            lease = cls._create(folder, max(fence, above) + 1)
        except FileExistsError as error:
            raise _held(folder, _read(_path(folder, max(fence, above) + 1))) from error
        except OSError as error:
            raise UserError(
                f"cannot write {folder}: {error.strerror}; make the run's folder writable, with room on its disk"
            ) from error
        # Files of earlier owners are removed below; a very slow rival may have taken a number from under us.
        highest = _highest(folder)
        if highest > lease.fence:
            lease.release()
            raise _held(folder, _read(_path(folder, highest)))
        for number in _numbers(folder):
            if number < lease.fence:
                _path(folder, number).unlink(missing_ok=True)
        sync_folder(folder)
        return lease

    @classmethod
    def _create(cls, folder: Path, fence: int) -> Lease:
        """Take a number, whole or not at all. Raises OSError, FileExistsError if another one has it."""
        path = _path(folder, fence)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with contextlib.suppress(OSError):  # a file system without locks: the heartbeat alone tells
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            return cls(folder, fence, descriptor)
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
                raise self._lost(owner) from error
            raise UserError(
                f"{self._folder.parent} is gone or cannot be read ({error.strerror}); "
                "what was running is stopped; bring the folder back and resume the run"
            ) from error
        owner = _read(_path(self._folder, self.fence + 1))
        if owner:
            raise self._lost(owner)

    def moved_to(self, folder: Path) -> None:
        """Know that the run was moved, and this file with it."""
        self._folder = folder

    def release(self) -> None:
        """Let go; another may take the run at once. May be called twice."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._write(released=True)
        os.close(self._descriptor)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            self._count += 1
            with contextlib.suppress(OSError):  # the journal's own write will say what is wrong
                self._write(released=False)

    def _write(self, *, released: bool) -> None:
        owner = {
            "schema": SCHEMA,
            "host": socket.gethostname(),
            "boot": boot_id(),
            "pid": os.getpid(),
            "count": self._count,
            "released": released,
        }
        os.pwrite(self._descriptor, json.dumps(owner).encode().ljust(_FILE_BYTES - 1) + b"\n", 0)
        os.fsync(self._descriptor)  # other hosts see it then, not when the system gets round to it

    def _lost(self, owner: dict[str, Any]) -> UserError:
        return UserError(f"{self._folder.parent} was taken over by {in_words(owner)}; this process leaves it alone")


def is_owned(folder: Path) -> bool:
    """Whether somebody writes the run that `folder`, its lease/, belongs to; nothing is changed or waited for.

    An owner that did not let go counts until its file was not written for two heartbeats, and on another host, where
    nobody can see whether it lives, for EXPIRY_SECONDS.
    """
    path = _path(folder, _highest(folder))
    owner = _read(path)
    if not owner or owner.get("released"):
        return False
    try:
        age_seconds = time.time() - path.stat().st_mtime
    except OSError:
        return False
    # Not asked of a fresh file: the question takes the lock for a moment, in which its owner might want it.
    if age_seconds < 2 * HEARTBEAT_SECONDS:
        return True
    if (owner.get("host"), owner.get("boot")) == (socket.gethostname(), boot_id()):
        locked = _is_locked(path)
        if locked is not None:
            return locked
    return age_seconds < EXPIRY_SECONDS


def _wait_for_end(folder: Path, fence: int, on_wait: Callable[[str], None]) -> None:
    """Return once the owner of that number is known to have ended; raise UserError if it lives."""
    path = _path(folder, fence)
    owner = _read(path)
    if owner.get("released"):
        return
    if (owner.get("host"), owner.get("boot")) == (socket.gethostname(), boot_id()):
        locked = _is_locked(path)
        if locked is False:
            return
        if locked:
            raise _held(folder, owner)
    on_wait(
        f"{folder.parent} was last written by {in_words(owner)}, which did not let go of it; "
        f"waiting {EXPIRY_SECONDS:.0f} s for a sign of life"
    )
    deadline = time.monotonic() + EXPIRY_SECONDS
    while time.monotonic() < deadline:
        time.sleep(min(1.0, EXPIRY_SECONDS / 10))
        now = _read(path)
        if now.get("released"):
            return
        if now != owner:
            raise _held(folder, now)


def _is_locked(path: Path) -> bool | None:
    """Whether a living process of this host has the file locked; None if the file system cannot say."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def _held(folder: Path, owner: dict[str, Any]) -> UserError:
    return UserError(f"{folder.parent} is being written by {in_words(owner)}; wait for it or stop it first")


def in_words(owner: dict[str, Any]) -> str:
    """Name an owner by what it says of itself."""
    return f"process {owner.get('pid', 'unknown')} on host {owner.get('host', 'unknown')}"


def _path(folder: Path, fence: int) -> Path:
    return folder / f"{fence:06d}.json"


def _numbers(folder: Path) -> list[int]:
    try:
        return [int(path.stem) for path in folder.iterdir() if path.stem.isdigit() and path.suffix == ".json"]
    except OSError:
        return []


def _highest(folder: Path) -> int:
    return max(_numbers(folder), default=0)


def _read(path: Path) -> dict[str, Any]:
    """What an owner says of itself; empty if there is none, or if it died while creating the file."""
    try:
        owner = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {"schema": SCHEMA} if path.exists() else {}
    return owner if isinstance(owner, dict) else {}


def boot_id() -> str:
    """Identity of this boot of this machine; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
