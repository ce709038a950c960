"""A Ray of this machine alone, where it is hard to start one. Each case really starts it, or really cannot."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from spinenas.search.executors.local_ray import folder_for_ray, provide_token, start_error
from spinenas.space import UserError

STARTS = """
import ray
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.executors.ray_session import ray_session
from spinenas.space import UserError
try:
    with ray_session(ExecutorConfig(workers=1), print):
        print("trained" if ray.get(ray.remote(lambda: 1).remote()) else "")
except UserError as error:
    print(error)
"""


def started(**environment: str) -> str:
    """Start Ray in a process of its own under these variables; return what it prints."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_") and name != "HOME"}
    done = subprocess.run(
        [sys.executable, "-c", STARTS], env=inherited | environment, capture_output=True, text=True, timeout=300
    )
    assert "Traceback" not in done.stderr
    return done.stdout


def test_ray_starts_where_neither_the_home_folder_nor_the_temporary_folder_can_be_used(tmp_path: Path) -> None:
    """A home in which nothing can be made, and a temporary folder with too long a path for a socket."""
    long = tmp_path / ("long" * 25)
    long.mkdir()
    printed = started(HOME="/proc", TMPDIR=str(long))
    assert printed.endswith("trained\n")
    assert f"the path {long} is too long for its sockets" in printed
    assert printed.startswith(f"Ray's temporary files are in /tmp/spinenas-ray-{os.getuid()}, because ")


def test_ray_starts_without_a_home_folder() -> None:
    assert started() == "trained\n"


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        printed = started(HOME="/proc", RAY_GCS_SERVER_PORT=str(port))
    assert printed == (
        f"Ray cannot start, because another program uses the port {port}; end that program, or unset "
        "RAY_GCS_SERVER_PORT to let Ray choose a free port\n"
    )


def test_without_any_usable_folder_each_reason_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("RAY_TMPDIR", str(file))
    monkeypatch.setattr("spinenas.search.executors.local_ray.MAX_SOCKET_PATH", 10_000)
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/proc")
    monkeypatch.setattr("spinenas.search.executors.local_ray.FALLBACKS", ())
    with pytest.raises(
        UserError, match=r"file cannot be written \(Not a directory\); /proc cannot be written .*; set TM"
    ):
        folder_for_ray(print)


def test_a_token_is_made_only_where_the_home_folder_keeps_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    provide_token()
    assert "RAY_AUTH_TOKEN_PATH" not in os.environ, "Ray itself writes it there"
    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    provide_token()
    assert "RAY_AUTH_TOKEN_PATH" not in os.environ
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "")  # is put back after the test
    provide_token()
    path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert len(path.read_text()) == 64
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_other_reasons_are_told_with_the_place_of_rays_logs() -> None:
    error = start_error(RuntimeError("The current node timed out during startup.\nmore"), Path("/tmp/spinenas-ray-0"))
    assert str(error) == (
        "Ray cannot start on this machine (The current node timed out during startup.); its logs are below "
        "/tmp/spinenas-ray-0; to search without Ray, set executor.kind=serial"
    )
    error = start_error(RuntimeError("Failed to start the grpc server. The specified port is 6379. This"), Path("x"))
    assert "another program uses the port 6379" in str(error)
