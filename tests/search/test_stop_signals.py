"""SIGTERM, SIGHUP and Ctrl-C end a search in order at any moment."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from journal_lines import json_events
from shared_fixtures import REPOSITORY

from spinenas.search.executors.ray_session import _connect
from spinenas.search.executors.stop_signals import Terminated, sigterm_waits, stopped_by_sigterm


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # where CI starts with SIGHUP ignored, children would inherit that
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_raises_at_once_and_a_second_one_is_ignored() -> None:
    with pytest.raises(Terminated, match="sent SIGTERM"), stopped_by_sigterm():  # noqa: PT012
        terminate()
        pytest.fail("it goes on")
    terminate()


def test_sigterm_waits_for_the_end_of_a_protected_block() -> None:
    steps = []
    with pytest.raises(Terminated), stopped_by_sigterm():  # noqa: PT012
        with sigterm_waits():
            with sigterm_waits():
                terminate()
                steps.append("inner")
            steps.append("outer")
        pytest.fail("it goes on")
    assert steps == ["inner", "outer"]
    with sigterm_waits():
        pass  # no signal is pending


def test_without_sigterm_or_in_another_thread_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stopped_by_sigterm(), sigterm_waits():
        pass
    seen = []

    def in_thread() -> None:
        with stopped_by_sigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert seen == [before]
    assert signal.getsignal(signal.SIGTERM) is before


def test_ray_does_not_replace_the_sigterm_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    with pytest.raises(Terminated), stopped_by_sigterm():  # noqa: PT012
        _connect()
        terminate()


def test_sigterm_may_arrive_while_ray_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    def exits(**_: object) -> None:
        raise SystemExit(15)

    monkeypatch.setattr(ray, "init", exits)
    with pytest.raises(Terminated):
        _connect()


def test_a_delayed_sigterm_is_dropped_if_its_block_fails() -> None:
    with pytest.raises(ZeroDivisionError), stopped_by_sigterm(), sigterm_waits():  # noqa: PT012
        terminate()
        raise ZeroDivisionError
    with sigterm_waits():
        pass


SEARCH = """
import sys
from pathlib import Path
from dataclasses import replace
from fake_task import FakeTask
from searches import configured
from spinenas.search.cli.options import resume_advice, watched
from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.monitoring.display import display_for
from spinenas.search.run.lifecycle import run_search

out, kind = Path(sys.argv[1]), sys.argv[2]
config = replace(configured(9, kind=kind, workers=1), controller=ControllerConfig("random"))
with watched(resume_advice(out)):
    run_search(config, out=out, task=FakeTask(num_epochs=1000, epoch_seconds=0.05), display=display_for(sys.stderr))
"""


def command(out: Path, kind: str) -> list[str]:
    return [sys.executable, "-c", SEARCH, str(out), kind]


ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPOSITORY / "tests"), "OMP_NUM_THREADS": "1"}


def wait_for(path: Path, kind: str) -> None:
    """Wait until the journal has an event of this kind."""
    deadline = time.monotonic() + 60
    while not (path.exists() and f'{{"event":"{kind}"'.encode() in path.read_bytes()):
        assert time.monotonic() < deadline, "the search has not begun"
        time.sleep(0.05)


def processes() -> dict[tuple[int, str], int]:
    """Return the parents of all processes that run, by their id and start time."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = file.read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                found[int(file.parent.name), fields[19]] = int(fields[1])
    return found


def descendants(process: int) -> set[tuple[int, str]]:
    """Return the processes that a process has started, with their start times."""
    found: set[tuple[int, str]] = set()
    parents = {process}
    while parents:
        children = {key for key, parent in processes().items() if parent in parents}
        found |= children
        parents = {key[0] for key in children}
    return found


def is_agent(process: int) -> bool:
    """Whether a process is one of Ray's agents, or gone."""
    try:
        return b"Agent" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return True


def test_ctrl_c_says_at_once_what_is_waited_for_and_then_how_to_resume(tmp_path: Path) -> None:
    out = tmp_path / "a run"
    search = subprocess.Popen(command(out, "ray"), stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    wait_for(out / "journal.jsonl", "epoch")
    search.send_signal(signal.SIGINT)
    _, said = search.communicate(timeout=60)
    assert search.returncode == 130
    assert said.splitlines()[-2:] == [
        "stopping: waiting for the workers to end; press Ctrl-C again to end at once",
        f"stopped; resume it with: spinenas resume '{out}'",
    ]
    assert json_events(out / "journal.jsonl")[-1]["event"] == "stopped"


def test_a_second_ctrl_c_ends_at_once_without_a_traceback_and_leaves_no_worker(tmp_path: Path) -> None:
    """Two helpers of a killed Ray ("agents") notice only after a minute or two that it is gone."""
    out = tmp_path / "run"
    search = subprocess.Popen(command(out, "ray"), stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    wait_for(out / "journal.jsonl", "epoch")
    started = descendants(search.pid)
    assert len(started) > 3, "Ray's processes"
    search.send_signal(signal.SIGINT)
    assert search.stderr is not None
    said = []
    for line in search.stderr:
        said.append(line.rstrip())
        if line.startswith("stopping"):
            search.send_signal(signal.SIGINT)
    assert search.wait(timeout=60) == 130
    assert said[-1] == f"ended at once; resume it with: spinenas resume {out}"
    assert not any("Traceback" in line for line in said)
    deadline = time.monotonic() + 60
    while any(not is_agent(number) for number, _ in started & processes().keys()):
        assert time.monotonic() < deadline, "Ray's processes outlive the search"
        time.sleep(0.1)
    json_events(out / "journal.jsonl")  # is valid


@pytest.mark.parametrize("kind", ["serial", "ray"])
def test_a_search_whose_terminal_is_closed_ends_in_order(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "run"
    process, terminal = pty.fork()
    if process == 0:
        os.execve(sys.executable, command(out, kind), ENVIRONMENT)
    wait_for(out / "journal.jsonl", "epoch")
    os.close(terminal)  # the system sends SIGHUP
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    last = json_events(out / "journal.jsonl")[-1]
    assert (last["event"], last["reason"]) == ("stopped", "it was sent SIGHUP")


def test_a_search_whose_output_pipe_ended_with_its_terminal_ends_in_order(tmp_path: Path) -> None:
    """As `spinenas search ... 2>&1 | tee log`, where SIGHUP ends both."""
    out = tmp_path / "run"
    search = subprocess.Popen(command(out, "serial"), stderr=subprocess.PIPE, env=ENVIRONMENT)
    wait_for(out / "journal.jsonl", "epoch")
    assert search.stderr is not None
    search.stderr.close()
    search.send_signal(signal.SIGHUP)
    assert search.wait(timeout=60) == 128 + signal.SIGHUP
    last = json_events(out / "journal.jsonl")[-1]
    assert (last["event"], last["reason"]) == ("stopped", "it was sent SIGHUP")


def test_a_search_under_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    out = tmp_path / "run"
    search = subprocess.Popen(["nohup", *command(out, "serial")], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    wait_for(out / "journal.jsonl", "epoch")
    search.send_signal(signal.SIGHUP)
    before = (out / "journal.jsonl").stat().st_size
    deadline = time.monotonic() + 60
    while (out / "journal.jsonl").stat().st_size < before + 1000 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert search.poll() is None
    search.terminate()
    _, said = search.communicate(timeout=60)
    assert search.returncode == 143
    assert "stopped by SIGTERM" in said
