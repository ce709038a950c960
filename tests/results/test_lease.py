"""The lease allows one driver at a time, on this host or another."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import spinenas.results.storage.lease as lease_module
import spinenas.results.storage.ownership as ownership
from spinenas.results.storage.lease import Lease, is_owned, last_sign_of_life
from spinenas.space.errors import UserError

HOLDER = """
import sys, time
from pathlib import Path
import spinenas.results.storage.lease as lease
import spinenas.results.storage.ownership as ownership
ownership.HEARTBEAT_SECONDS = 0.05
held = lease.Lease.acquire(Path(sys.argv[1]))
print(held.fence, flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns the run."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "lease"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.parent.mkdir()
    monkeypatch.setattr(ownership, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(ownership, "EXPIRY_SECONDS", 0.5)


def another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "another-host")


def test_fencing_numbers_grow_and_old_lease_files_are_removed(folder: Path) -> None:
    for fence in (1, 2, 3):
        lease = Lease.acquire(folder)
        assert lease.fence == fence
        lease.check()
        lease.release()
        lease.release()
    assert [path.name for path in folder.iterdir()] == ["000003.json"]


def test_a_living_owner_on_this_host_is_named(folder: Path) -> None:
    with holder(folder) as process, pytest.raises(UserError, match=f"written by process {process.pid} on host"):
        Lease.acquire(folder)


def test_a_dead_owner_on_this_host_is_succeeded_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "EXPIRY_SECONDS", 60.0)
    with holder(folder) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        lease = Lease.acquire(folder, on_wait=pytest.fail)
        assert lease.fence == 2
        lease.release()


def test_a_living_owner_on_another_host_is_recognised_by_its_heartbeat(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    another_host(monkeypatch)
    monkeypatch.setattr(ownership, "EXPIRY_SECONDS", 60.0)
    said: list[str] = []
    with holder(folder) as process, pytest.raises(UserError, match=f"written by process {process.pid} on host"):
        Lease.acquire(folder, on_wait=said.append)
    assert "did not release it" in said[0]


def test_a_dead_owner_on_another_host_is_succeeded_after_a_while(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    another_host(monkeypatch)
    with holder(folder) as process:
        process.kill()
        process.wait()
        began = time.monotonic()
        lease = Lease.acquire(folder)
        assert time.monotonic() - began >= 0.5
        assert lease.fence == 2
        lease.release()


def test_a_stalled_owner_notices_its_successor_before_it_writes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stalled = Lease.acquire(folder)
    stalled._heartbeat.stop()
    another_host(monkeypatch)
    successor = Lease.acquire(folder)
    with pytest.raises(UserError, match=f"taken over by process {os.getpid()} on host another-host"):
        stalled.check()
    successor.check()
    successor.release()
    with pytest.raises(UserError, match="taken over"):
        stalled.check()


def test_one_of_two_competitors_gets_a_free_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both competitors have seen the same highest number. The file can be created only once."""
    Lease.acquire(folder).release()
    monkeypatch.setattr(lease_module, "_highest", lambda folder: 1)
    first = Lease.acquire(folder)
    with pytest.raises(UserError, match=f"written by process {os.getpid()}"):
        Lease.acquire(folder)
    first.release()


def test_a_removed_folder_is_noticed(folder: Path) -> None:
    lease = Lease.acquire(folder)
    folder.parent.rename(folder.parent.with_name("elsewhere"))
    with pytest.raises(UserError, match="is gone"):
        lease.check()
    lease.release()


def test_an_empty_lease_file_uses_up_its_number(folder: Path) -> None:
    """A process may have died or stalled while it created the file."""
    folder.mkdir()
    (folder / "000001.json").touch()
    lease = Lease.acquire(folder)
    assert lease.fence == 2
    lease.release()


def test_a_lease_file_is_plain_json(folder: Path) -> None:
    lease = Lease.acquire(folder)
    owner = json.loads((folder / "000001.json").read_text())
    assert (owner["schema"], owner["pid"], owner["released"]) == ("spinenas-lease/1", os.getpid(), False)
    lease.release()
    assert json.loads((folder / "000001.json").read_text())["released"]


def test_a_reader_sees_whether_the_run_is_owned(folder: Path) -> None:
    assert not is_owned(folder)
    lease = Lease.acquire(folder)
    assert is_owned(folder)
    lease.release()
    assert not is_owned(folder)


def test_a_reader_sees_within_two_heartbeats_that_the_owner_was_killed(folder: Path) -> None:
    with holder(folder):
        time.sleep(0.2)
        assert is_owned(folder)
    time.sleep(0.2)
    assert not is_owned(folder)


def test_a_silent_owner_on_another_host_counts_as_dead_for_a_reader_after_a_while(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holder(folder):
        pass
    another_host(monkeypatch)
    monkeypatch.setattr(ownership, "EXPIRY_SECONDS", 1000.0)
    (file,) = folder.iterdir()
    os.utime(file, (time.time() - 500, time.time() - 500))
    assert is_owned(folder)
    os.utime(file, (time.time() - 1001, time.time() - 1001))
    assert not is_owned(folder)


def test_a_reader_sees_at_once_that_the_owner_was_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with holder(folder):
        time.sleep(0.2)  # until its first heartbeat
        monkeypatch.setattr(ownership, "HEARTBEAT_SECONDS", 1000.0)
        monkeypatch.setattr(ownership, "EXPIRY_SECONDS", 1000.0)
        assert is_owned(folder)
    assert not is_owned(folder)


def test_the_last_sign_of_life_of_a_killed_owner_is_kept_until_the_journal_has_it(folder: Path) -> None:
    assert last_sign_of_life(folder) == ""
    with holder(folder):
        time.sleep(0.2)
    killed_at = last_sign_of_life(folder)
    assert abs((datetime.now(UTC) - datetime.fromisoformat(killed_at)).total_seconds()) < 60
    for _ in range(2):  # an owner that could not resume the run, such as without its data
        lease = Lease.acquire(folder)
        assert lease.killed_at == killed_at
        lease.release()
        assert last_sign_of_life(folder) == killed_at
    lease = Lease.acquire(folder)
    lease.killed_at = ""
    lease.release()
    assert last_sign_of_life(folder) == ""
