"""Runs the user's data command once per machine, for any number of workers there."""

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
    """Return a name for this process. A driver passes its own to its workers, so that each session fetches once."""
    return uuid.uuid4().hex


def run_once_per_machine(command: str | None, session: str) -> None:
    """Run the command unless it has run here in this session; wait for another process that is running it.

    Without a command, do nothing. If it fails, raises UserError with the last line of its output; the next worker then
    tries again.
    """
    if command is None:
        return
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
                "run it by hand on that machine"
            )
        done.touch()
