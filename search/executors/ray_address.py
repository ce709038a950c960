"""Finds the Ray cluster of an address, and checks that it answers before Ray itself tries it for minutes."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray._private.services import psutil  # type: ignore[attr-defined]  # bundled by Ray
from ray._private.utils import read_ray_address

from spinenas.search.executors.base import Note
from spinenas.space.errors import UserError

AUTO = "auto"
"""The address that stands for a cluster of this machine."""

CLIENT = "ray://"
"""Beginning of an address of the Ray client, whose server only has to listen."""

PRIVATE_FOLDER = "spinenas-ray-"
"""Beginning of the folder name in which a search starts a Ray of its own; no other search joins such a Ray."""

REACH_SECONDS, IMPORT_SECONDS, ANSWER_SECONDS = 4.0, 60.0, 5.0
"""Time limits for the port to open, for this machine to load Ray, and for the cluster to answer."""

HEAD_CHECK_SECONDS, HEAD_SECONDS = 3.0, 10.0
"""Interval of checks that the head answers, and the time after which it counts as lost."""

_PROBE = """
import socket, sys
host, port, asks = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def answer(word, said=""):
    print(word, str(said).replace(chr(10), " "), flush=True)
try:
    socket.create_connection((host, port), timeout=2).close()
except OSError as error:
    answer("closed", error.strerror or error)
    sys.exit()
answer("open")
if asks:
    from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
    from ray._raylet import GcsClient
    from ray.exceptions import AuthenticationError
    answer("loaded")
    try:
        ensure_token_if_auth_enabled(create_token_if_missing=False)
    except AuthenticationError as error:
        answer("unreadable", error)
        sys.exit()
    try:
        GcsClient(address=asks)
    except AuthenticationError as error:
        answer("refused", error)
    except Exception as error:
        answer("silent", error)
    else:
        answer("answers")
"""


def found_address(address: str, note: Note) -> str:
    """Return the address that "auto" stands for on this machine; any other address is returned unchanged.

    It is that of RAY_ADDRESS, else of a cluster that has a node here. A Ray that a search started for itself is left
    out. Raises UserError if there is none.
    """
    if address != AUTO:
        return address
    if given := os.environ.get("RAY_ADDRESS"):
        return given
    running, private = _addresses_here()
    latest: str | None = read_ray_address(None)
    if latest in private:
        latest = None
    if latest is None or (running and latest not in running):
        latest = min(running, default=None)
    if latest is None:
        belongs = "; the Ray that runs here belongs to another search, which does not share it" if private else ""
        raise UserError(
            f"the address is 'auto', and no Ray cluster runs on this machine{belongs}; start one with "
            "`ray start --head`, give its HOST:PORT, or leave the address out"
        )
    if len(running) > 1:
        note(f"several Ray clusters run on this machine, and 'auto' takes {latest}; give the address of another one")
    return latest


def _addresses_here() -> tuple[set[str], set[str]]:
    """Return the addresses of clusters with a node on this machine, and those of Rays that searches started."""
    running: set[str] = set()
    private: set[str] = set()
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or [""]
        if Path(command[0]).name == "raylet":
            options = dict(word.lstrip("-").split("=", 1) for word in command if word.startswith("--") and "=" in word)
            folder = Path(options.get("temp_dir", "")).name
            (private if folder.startswith(PRIVATE_FOLDER) else running).add(options.get("gcs-address", ""))
    return running - {""}, private - {""}


def check_answers(address: str, place: str) -> None:
    """Raise UserError unless a Ray cluster answers at HOST:PORT with the token of this process.

    The probe is a process of its own, so that neither a slow name server nor Ray's own patience can delay a signal.

    Args:
        place: the address in the words of a message.
    """
    is_client = address.startswith(CLIENT)
    host, _, port = address.removeprefix(CLIENT).partition("?")[0].rpartition(":")
    if not host or "/" in host or not (port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(f"the address {address!r} is not HOST:PORT, such as 127.0.0.1:6379; give that, or 'auto'")
    command = [sys.executable, "-c", _PROBE, host.strip("[]"), port, "" if is_client else address]
    probe = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        lines = _Lines(probe)
        word, _, said = lines.next(REACH_SECONDS).partition(" ")
        if word != "open":
            raise _no_answer(place, said or "it cannot be reached")
        if is_client:
            return
        lines.next(IMPORT_SECONDS)
        word, _, said = lines.next(ANSWER_SECONDS).partition(" ")
        if word in ("unreadable", "refused"):
            raise _token_error(place, said, is_refused=word == "refused")
        if word != "answers":
            raise _no_answer(place, "something listens there, but it does not answer like Ray")
    finally:
        probe.kill()
        probe.wait()
        if probe.stdout is not None:
            probe.stdout.close()


class _Lines:
    """Reads lines of a process with a time limit."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._stream = process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stream, selectors.EVENT_READ)
        self._buffer = ""

    def next(self, seconds: float) -> str:
        """Return the next line; an empty one if there is none in this time."""
        deadline = time.monotonic() + seconds
        while "\n" not in self._buffer:
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                return ""
            text = os.read(self._stream.fileno(), 4096).decode(errors="replace")
            if not text:
                return ""
            self._buffer += text
        line, _, self._buffer = self._buffer.partition("\n")
        return line


def listens(address: str) -> bool:
    """Whether something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except OSError:
        return False
    return True


_ASK_WITHOUT_TOKEN = """
import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1])
except AuthenticationError:
    sys.exit(3)
"""


def asks_for_token(gcs_address: str) -> bool | None:
    """Whether a cluster refuses clients without a token, tried in a separate process; None if unknown."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    command = [sys.executable, "-c", _ASK_WITHOUT_TOKEN, gcs_address]
    try:
        ended = subprocess.run(
            command, env=environment | {"RAY_AUTH_MODE": "disabled"}, capture_output=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {0: False, 3: True}.get(ended.returncode)


@contextmanager
def watched_head(address: str, note: Note) -> Iterator[None]:
    """Tell the user when the head of a cluster, HOST:PORT, is lost.

    Ray's native code would end the process after about a minute, with a line that only its own log has.
    """
    ended = threading.Event()

    def watch() -> None:
        heard, is_told = time.monotonic(), False
        while not ended.wait(HEAD_CHECK_SECONDS):
            if listens(address):
                heard, is_told = time.monotonic(), False
            elif not is_told and time.monotonic() - heard > HEAD_SECONDS and not ended.is_set():
                is_told = True
                note(
                    f"WARNING: the head of Ray at {address} is lost. Ray ends this search within a minute unless the "
                    "head returns. Every result is kept, and this never counts against a trial; continue with "
                    "`spinenas resume`"
                )

    threading.Thread(target=watch, name="watch Ray's head", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _no_answer(place: str, said: str) -> UserError:
    return UserError(
        f"no Ray cluster answers at {place} ({said}); start one with `ray start --head`, check the port, or leave the "
        "address out"
    )


def _token_error(place: str, said: str, *, is_refused: bool) -> UserError:
    if not is_refused:
        return UserError(
            f"the token of the Ray cluster at {place} cannot be read here ({said.partition('. ')[0]}); copy "
            "it from the head node into ~/.ray/auth_token, or name its file in RAY_AUTH_TOKEN_PATH"
        )
    if os.environ.get("RAY_AUTH_MODE") == "token":
        return UserError(
            f"the Ray cluster at {place} rejects the token of this process; copy the cluster's token "
            "from its head node into ~/.ray/auth_token, or name its file in RAY_AUTH_TOKEN_PATH"
        )
    return UserError(
        f"the Ray cluster at {place} needs a token, and this process sends none; set "
        "RAY_AUTH_MODE=token, and copy the cluster's token into ~/.ray/auth_token"
    )
