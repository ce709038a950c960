"""Ownership of a run: one process at a time writes it. The rules are the same on disk and in an object store.

An owner keeps a record that names its host and process, with a count that grows every HEARTBEAT_SECONDS, so that
others can see it alive without comparing clocks. Another process may take over when the owner

- has released the run, or
- ran on this machine and is known to have ended, or
- ran elsewhere, and its count did not change for EXPIRY_SECONDS.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from spinenas.space.errors import UserError

HEARTBEAT_SECONDS = 10.0

EXPIRY_SECONDS = 60.0
"""How long a count on another host must not change; six missed heartbeats."""

Owner = dict[str, Any]
"""The record of an owner; empty where there is none."""


class OwnedPlace(Protocol):
    """A place that holds the record of its owner."""

    @property
    def place(self) -> str:
        """Name of the place, for messages."""

    def read_owner(self) -> Owner:
        """Read the record of the last owner. Raises UserError."""

    def lives_here(self, owner: Owner) -> bool | None:
        """Say whether an owner of this machine is still running; None if that cannot be told."""


def owner_record(schema: str, *, count: int, released: bool, **more: Any) -> Owner:
    """Return the record of this process.

    Args:
        more: fields between schema and host.
    """
    process = {"host": socket.gethostname(), "boot": boot_id(), "pid": os.getpid()}
    return {"schema": schema, **more, **process, "count": count, "released": released}


def parse_owner(data: bytes) -> Owner:
    """Read a record; empty if it is damaged."""
    try:
        owner = json.loads(data)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def wait_for_end(of: OwnedPlace, *, on_wait: Callable[[str], None], poll_seconds: float) -> None:
    """Return when the owner of a place is known to have ended. Raises UserError if it lives.

    Args:
        on_wait: told why this takes up to EXPIRY_SECONDS, if it does.
    """
    owner = of.read_owner()
    if not owner or owner.get("released"):
        return
    if was_here(owner):
        lives = of.lives_here(owner)
        if lives is False:
            return
        if lives:
            raise held(of.place, owner)
    on_wait(
        f"{of.place} was last written by {in_words(owner)}, which did not release it; "
        f"waiting {EXPIRY_SECONDS:.0f} s for a sign of life"
    )
    deadline = time.monotonic() + EXPIRY_SECONDS
    while time.monotonic() < deadline:
        time.sleep(min(poll_seconds, EXPIRY_SECONDS / 10))
        seen = of.read_owner()
        if seen.get("released"):
            return
        if seen != owner:
            raise held(of.place, seen)


class Heartbeat:
    """A thread that calls `beat` with a growing count every HEARTBEAT_SECONDS, until it is stopped."""

    def __init__(self, name: str, beat: Callable[[int], None]) -> None:
        """Start the thread."""
        self._beat, self._stop = beat, threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_stopped(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        count = 0
        while not self._stop.wait(HEARTBEAT_SECONDS):
            count += 1
            self._beat(count)


def was_here(owner: Owner) -> bool:
    """Whether an owner ran on this machine, since its last boot."""
    return (owner.get("host"), owner.get("boot")) == (socket.gethostname(), boot_id())


def held(place: str, owner: Owner) -> UserError:
    """The error that another process owns a place."""
    return UserError(f"{place} is being written by {in_words(owner)}; wait for it or stop it first")


def lost(place: str, owner: Owner) -> UserError:
    """The error that another process has taken a place over."""
    return UserError(f"{place} was taken over by {in_words(owner)}; this process leaves it alone")


def in_words(owner: Owner) -> str:
    """Name an owner by its record."""
    return f"process {owner.get('pid', 'unknown')} on host {owner.get('host', 'unknown')}"


def boot_id() -> str:
    """Identity of this boot of this machine; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
