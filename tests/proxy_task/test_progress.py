"""Progress of long work on data: a bar on a terminal, otherwise lines, and nothing for short work."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from spinenas.proxy_task.data import progress as progress_module
from spinenas.proxy_task.data.progress import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still at its only item."""
    now = [1000.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_a_line_every_thirty_seconds_tells_progress_and_time_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("decoding images", 1000, 400) as tell:
        for done in range(400, 1001):
            tell(done)
            clock[0] += 0.125  # 75 s in all
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "decoding images: 640 of 1000, 0:00:45 left",
        "decoding images: 880 of 1000, 0:00:15 left",
    ]
    assert captured.out == ""


def test_short_work_prints_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress("decoding images", 100) as tell:
        for done in range(101):
            tell(done)
            clock[0] += 0.25
    assert capsys.readouterr().err == ""


def test_on_a_terminal_a_bar_shows_the_time_left() -> None:
    script = (
        "import time\n"
        "from spinenas.proxy_task.data.progress import progress\n"
        "with progress('decoding images', 8, 2) as tell:\n"
        "    for done in range(3, 8):\n"
        "        tell(done)\n"
        "        time.sleep(0.3)\n"
    )
    terminal, stderr = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    try:
        subprocess.run(
            [sys.executable, "-c", script], stderr=stderr, stdout=subprocess.PIPE, env=environment, check=True
        )
    finally:
        os.close(stderr)
    shown = os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert "decoding images" in shown
    assert "7/8" in shown
    assert re.search(r"\d:\d\d:\d\d\S* left", shown)
