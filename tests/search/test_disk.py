"""A full or read-only disk ends a run with one sentence, and the run resumes when there is room again."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_task import FakeTask
from searches import configured, cut, events_of, outcome

from spinenas.results.storage.journal import read_events
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.space import UserError


def mount(*words: object) -> bool:
    return subprocess.run(["mount", *map(str, words)], capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", place):
        pytest.skip("file systems cannot be mounted by this user")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


class Calls(FakeTask):
    """Calls a function when it trains the fourth trial."""

    do: Callable[[], object]

    def evaluate(self, *args: Any, folder: Path, **named: Any) -> Any:
        if int(folder.name) == 4:
            self.do()
        return super().evaluate(*args, folder=folder, **named)


def fill(place: Path) -> None:
    """Fill the file system to the last byte."""
    with open(place / "filler", "wb", buffering=0) as file:
        for size in (2**16, 2**10, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


@pytest.mark.parametrize("room_bytes", [0, 60, 1500])
def test_a_full_disk_ends_the_run_which_resumes_when_there_is_room(
    small_disk: Path, tmp_path: Path, room_bytes: int
) -> None:
    whole = run_search(configured(), out=tmp_path / "whole", task=FakeTask())
    task = Calls()

    def almost_fill() -> None:
        fill(small_disk)
        filler = small_disk / "filler"
        with open(filler, "r+b") as file:
            file.truncate(filler.stat().st_size - room_bytes)

    task.do = almost_fill
    with pytest.raises(UserError, match=r"cannot write .*No space left on device; .*resume the (run|search)"):
        run_search(configured(), out=small_disk / "run", task=task)
    list(read_events(small_disk / "run" / "journal.jsonl"))
    with pytest.raises(UserError, match="No space left on device"):
        resume(small_disk / "run", task=FakeTask())
    (small_disk / "filler").unlink()
    assert outcome(resume(small_disk / "run", task=FakeTask())) == outcome(whole)


def test_a_disk_that_cannot_be_written_is_named(small_disk: Path, tmp_path: Path) -> None:
    whole = run_search(configured(), out=tmp_path / "whole", task=FakeTask())
    cut(whole, len(events_of(whole)) // 2, small_disk / "run")
    assert mount("-o", "remount,ro", small_disk)
    with pytest.raises(UserError, match=r"Read-only file system; make the run's folder writable|name the folder"):
        resume(small_disk / "run", task=FakeTask())
    with pytest.raises(UserError, match="Read-only file system; choose a folder that can be written"):
        run_search(configured(), out=small_disk / "new", task=FakeTask())
    assert mount("-o", "remount,rw", small_disk)
    assert outcome(resume(small_disk / "run", task=FakeTask())) == outcome(whole)
