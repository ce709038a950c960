"""Prepares what a Ray on this machine alone needs: a folder for its sockets and logs, and a token."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
from functools import cache
from pathlib import Path

from spinenas.search.executors.base import Note
from spinenas.search.executors.ray_address import PRIVATE_FOLDER
from spinenas.space.errors import UserError, first_line

MAX_SOCKET_PATH = 103 if sys.platform == "darwin" else 107
"""Longest path of a Unix socket, in bytes."""

SOCKET_NAME = "session_2026-01-31_12-00-00_000000_4194304/sockets/plasma_store.9"
"""What Ray appends to its folder for the longest of its sockets."""

FALLBACKS = ("/tmp", "/var/tmp")
"""Folders that are tried when the user's temporary folder cannot be used."""

GCS_PORT = "RAY_GCS_SERVER_PORT"
"""Environment variable that fixes the port of a local Ray."""


def folder_for_ray(note: Note) -> Path:
    """Return the folder in which a local Ray makes its session. Its name marks the Ray as this search's own.

    It is in RAY_TMPDIR or TMPDIR if that can be used, and else in a folder with a short path. Raises UserError if
    there is none.
    """
    asked = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()
    problems: list[str] = []
    for parent in dict.fromkeys([asked, tempfile.gettempdir(), *FALLBACKS]):
        folder = Path(parent) / f"{PRIVATE_FOLDER}{os.getuid()}"
        problem = _problem(folder)
        if problem is None:
            if problems:
                note(f"Ray's temporary files are in {folder}, because {problems[0]}")
            return folder
        problems.append(problem)
    raise UserError(f"Ray cannot start, because {'; '.join(problems)}; set TMPDIR to a folder that fits, such as /tmp")


def _problem(folder: Path) -> str | None:
    """Return why Ray cannot use this folder, which is made if needed; None if it can."""
    length = len(os.fsencode(folder / SOCKET_NAME))
    if length > MAX_SOCKET_PATH:
        most = MAX_SOCKET_PATH - (length - len(os.fsencode(folder.parent)))
        return f"the path {folder.parent} is too long for its sockets (at most {most} characters)"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"{folder.parent} cannot be written ({error.strerror})"


def provide_token() -> None:
    """Make a token for this process if a local Ray needs one, and the home folder has none and cannot keep one."""
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: the user has no home folder
        folder = Path.home() / ".ray"
        if (folder / "auth_token").is_file():
            return
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(_own_token())


@cache
def _own_token() -> Path:
    """Write a token into a private folder that is removed when the process ends; Ray reads it once per process."""
    folder = tempfile.mkdtemp(prefix="spinenas-token-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "auth_token"
    path.write_text(secrets.token_hex(32), encoding="ascii")
    return path


def check_port() -> None:
    """Raise UserError if the user has fixed the port of a local Ray, and another program uses it."""
    port = os.environ.get(GCS_PORT, "")
    if not port.isdecimal():
        return
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("", int(port)))
        except (OSError, OverflowError) as error:
            raise _port_in_use(port) from error


def start_error(error: Exception, folder: Path) -> UserError:
    """Return the error that explains why a Ray on this machine did not start."""
    text = str(error)
    if (port := re.search(r"The specified port is (\d+)|[Aa]ddress already in use.*?:(\d+)", text)) is not None:
        return _port_in_use(port[1] or port[2])
    return UserError(
        f"Ray cannot start on this machine ({first_line(error)}); its logs are below {folder}; "
        "to search without Ray, set executor.kind=serial"
    )


def _port_in_use(port: str) -> UserError:
    return UserError(
        f"Ray cannot start, because another program uses the port {port}; end that program, or unset {GCS_PORT} to let "
        "Ray choose a free port"
    )
