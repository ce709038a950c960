"""Fetching the data on each machine: a shell command of the user's, run once there however many workers start."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import tempfile
import uuid
from functools import cache
from pathlib import Path

from spinenas.space.errors import UserError


@cache
def this_session() -> str:
    """Return a name for this process; a driver gives its own to its workers, so that each session fetches once."""
    return uuid.uuid4().hex


def run_once_per_machine(command: str, session: str) -> None:
    """Run the command unless it has run here in this session; wait for it where another process runs it.

    Raises UserError with the last line it printed if it fails; the next worker then tries again.
    """
    name = hashlib.sha256(f"{session} {command}".encode()).hexdigest()[:16]
    done = Path(tempfile.gettempdir()) / f"spinenas-data-{name}"
    with open(done.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return
        ended = subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if ended.returncode != 0:
            said = (ended.stdout.decode(errors="replace").strip().splitlines() or ["it printed nothing"])[-1]
            raise UserError(
                f"executor.data_command {command!r} ended with status {ended.returncode} ({said}); "
                "try it by hand on that machine"
            )
        done.touch()
