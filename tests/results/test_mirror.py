"""The mirror of a run has every result before it counts, and restores the run if its folder is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_task import FakeTask
from journal_lines import json_events
from searches import configured, events_of, outcome

import spinenas.results.storage.mirror as mirror_module
import spinenas.results.storage.ownership as ownership
from spinenas.results.storage.events import Stopped
from spinenas.results.storage.journal import Journal
from spinenas.results.storage.mirror import Mirror
from spinenas.results.storage.object_store import Store
from spinenas.results.storage.run_folder import CHECKPOINT
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.parts import StorageConfig
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.search.run.or_resume import search_or_resume
from spinenas.space import UserError


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, no_fsync: None) -> None:
    monkeypatch.setattr(mirror_module, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(ownership, "EXPIRY_SECONDS", 0.5)
    monkeypatch.setattr(ownership, "HEARTBEAT_SECONDS", 0.05)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return (tmp_path / "elsewhere").as_uri()


def mirrored(uri: str, **options: Any) -> SearchConfig:
    return replace(configured(**options), storage=StorageConfig(uri))


class DiesAt(FakeTask):
    """Ends the driver like a power failure when it trains this trial."""

    def evaluate(self, *args: Any, folder: Path, **named: Any) -> Any:
        if int(folder.name) == 5:
            raise SystemExit("the machine is gone")
        return super().evaluate(*args, folder=folder, **named)


def test_files_are_written_read_listed_and_removed(uri: str) -> None:
    store = Store(uri)
    assert store.read("a/b") is None
    assert store.names("a") == []
    store.write("a/b", b"one")
    store.write("a/b", b"two")
    store.write("a/c/d", b"three")
    assert (store.read("a/b"), store.names("a")) == (b"two", ["a/b", "a/c/d"])
    store.remove("a/b")
    store.remove("a/b")
    assert store.names("a") == ["a/c/d"]


@pytest.mark.parametrize("uri", ["nowhere://bucket/run", "relative/path"])
def test_a_uri_that_cannot_be_opened_is_named(uri: str) -> None:
    with pytest.raises(UserError, match=f"storage.mirror '{uri}' cannot be opened.*file:///"):
        Store(uri)


def test_the_copy_has_every_event_before_it_is_acted_on(tmp_path: Path, uri: str) -> None:
    class Looks(FakeTask):
        """Compares journal and copy when a trial starts; reports of its worker may follow later."""

        def evaluate(self, *args: Any, **named: Any) -> Any:
            acted_on = [
                [line for line in text.splitlines() if b'"asked"' in line or b'"told"' in line]
                for text in (Mirror(uri).journal(), (tmp_path / "run" / "journal.jsonl").read_bytes())
            ]
            assert acted_on[0] == acted_on[1]
            return super().evaluate(*args, **named)

    run = run_search(mirrored(uri), out=tmp_path / "run", task=Looks())
    assert {record.status for record in run.records()} == {"complete"}
    assert Mirror(uri).journal() == run.folder.journal_path.read_bytes()


def test_a_run_whose_machine_is_lost_is_finished_from_its_copy(tmp_path: Path, uri: str) -> None:
    whole = run_search(configured(), out=tmp_path / "whole", task=FakeTask())
    with pytest.raises(SystemExit):
        run_search(mirrored(uri), out=tmp_path / "run", task=DiesAt())
    shutil.rmtree(tmp_path / "run")
    resumed = search_or_resume(mirrored(uri), out=tmp_path / "run", task=FakeTask())
    assert outcome(resumed) == outcome(whole)
    assert resumed.folder.read_curve(0), "curves come back as well"
    told = [event["number"] for event in events_of(resumed) if event["event"] == "told"]
    assert sorted(told) == list(range(len(told))), "no finished trial is repeated"
    assert Mirror(uri).journal() == resumed.folder.journal_path.read_bytes()


def test_an_older_folder_is_updated_from_the_copy(tmp_path: Path, uri: str) -> None:
    with pytest.raises(SystemExit):
        run_search(mirrored(uri), out=tmp_path / "run", task=DiesAt())
    path = tmp_path / "run" / "journal.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    resume(tmp_path / "run", task=FakeTask())
    assert path.read_bytes().startswith(content[: content.rfind(b'{"event":"stopped"')])


def test_a_copy_without_the_last_lines_is_completed(tmp_path: Path, uri: str) -> None:
    run = run_search(mirrored(uri), out=tmp_path / "run", task=FakeTask())
    pieces = Store(uri).names("journal")
    Store(uri).remove(pieces[-1])
    assert len(Mirror(uri).journal()) < run.folder.journal_path.stat().st_size
    resume(tmp_path / "run", num_trials=12, task=FakeTask())
    assert Mirror(uri).journal() == run.folder.journal_path.read_bytes()


def test_pieces_are_merged_and_stay_readable_meanwhile(tmp_path: Path, uri: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(mirror_module, "MERGE_AFTER", 4)
    removed: list[str] = []

    def remove(store: Store, name: str) -> None:
        removed.append(name)
        if name.startswith("journal/") and len(removed) % 2:  # some stay behind, as after a crash
            os.remove(Path(store.uri.removeprefix("file://")) / name)

    monkeypatch.setattr(Store, "remove", remove)
    run = run_search(mirrored(uri), out=tmp_path / "run", task=FakeTask())
    assert len(removed) > 9
    assert Mirror(uri).journal() == run.folder.journal_path.read_bytes()


def test_lines_of_an_owner_that_lost_the_run_are_replaced(uri: str) -> None:
    store = Store(uri)
    for name, data in [
        ("000000000000000.000001", b"one\n"),
        ("000000000000004.000001", b"two\n"),
        ("000000000000004.000002", b"another\n"),
        ("000000000000008.000001", b"three, by the first, which was only stalled\n"),
        ("000000000000012.000002", b"end\n"),
    ]:
        store.write(f"journal/{name}.jsonl", data)
    assert Mirror(uri).journal() == b"one\nanother\nend\n"
    store.remove("journal/000000000000000.000001.jsonl")
    store.remove("journal/000000000000004.000001.jsonl")
    with pytest.raises(UserError, match="lacks its journal from byte 0"):
        Mirror(uri).journal()


HOLDER = """
import sys, time
import spinenas.results.storage.mirror as mirror
import spinenas.results.storage.ownership as ownership
mirror.SETTLE_SECONDS, ownership.HEARTBEAT_SECONDS = 0.0, 0.05
from spinenas.results.storage.journal import Journal
from pathlib import Path
folder = Path(sys.argv[2])
journal = Journal.open(folder / "journal.jsonl", mirror=mirror.Mirror(sys.argv[1]))
print("owned", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("host", ["this", "another"])
def test_a_living_owner_is_named_and_a_dead_one_succeeded(
    host: str, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_search(mirrored(uri), out=tmp_path / "run", task=FakeTask())
    shutil.copytree(tmp_path / "run", tmp_path / "copy")  # like a head on another machine
    if host == "another":
        monkeypatch.setattr("socket.gethostname", lambda: "another-host")
    command = [sys.executable, "-c", HOLDER, uri, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "owned\n"
        with monkeypatch.context() as patch:
            patch.setattr(ownership, "EXPIRY_SECONDS", 60.0)
            with pytest.raises(UserError, match=f"written by process {process.pid} on host"):
                Journal.open(tmp_path / "copy" / "journal.jsonl", mirror=Mirror(uri))
    finally:
        process.kill()
        process.wait()
    with Journal.open(tmp_path / "copy" / "journal.jsonl", mirror=Mirror(uri)) as journal:
        assert journal.fence == 3


def test_lines_of_a_stalled_owner_do_not_count(tmp_path: Path, uri: str) -> None:
    run_search(mirrored(uri), out=tmp_path / "run", task=FakeTask())
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    stalled = Mirror(uri)
    journal = Journal.open(tmp_path / "run" / "journal.jsonl", mirror=stalled)
    assert stalled._heartbeat is not None
    stalled._heartbeat.stop()
    owner = json.loads(Store(uri).read("owner.json") or b"{}")
    Store(uri).write("owner.json", json.dumps(owner | {"host": "another-host"}).encode())
    with Journal.open(tmp_path / "copy" / "journal.jsonl", mirror=Mirror(uri)) as successor:
        successor.append(Stopped("by the successor", at="t"))
        journal.append(Stopped("by the one that lost it", at="t"))
        (tmp_path / "back").mkdir()
        (tmp_path / "back" / "journal.jsonl").write_bytes(Mirror(uri).journal())
        last = json_events(tmp_path / "back" / "journal.jsonl")[-1]
        assert last["reason"] == "by the successor"
    stalled._beat(1)  # its heartbeat continues, and notices the successor
    with pytest.raises(UserError, match="taken over by process"):
        journal.append(Stopped("too late", at="t"))


def test_a_copy_that_cannot_be_written_stops_the_run_before_a_result_counts(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Store._write

    def full(store: Store, path: str, data: bytes) -> None:
        if b'"told"' in data and b'"number":3' in data:
            raise OSError("quota exceeded")
        write(store, path, data)

    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "_write", full)
        with pytest.raises(UserError, match="quota exceeded"):
            run_search(mirrored(uri), out=tmp_path / "run", task=FakeTask())
    assert [seconds for seconds in slept if seconds >= 1][:4] == [1.0, 2.0, 4.0, 8.0]
    resumed = resume(tmp_path / "run", task=FakeTask())
    assert outcome(resumed) == outcome(run_search(configured(), out=tmp_path / "whole", task=FakeTask()))
    assert Mirror(uri).journal() == resumed.folder.journal_path.read_bytes()


def test_a_mirror_that_holds_a_run_is_not_started_over(tmp_path: Path, uri: str) -> None:
    run_search(mirrored(uri), out=tmp_path / "run", task=FakeTask())
    with pytest.raises(UserError, match=r"already holds a run.*--or-resume"):
        run_search(mirrored(uri), out=tmp_path / "other", task=FakeTask())
    assert not (tmp_path / "other").exists()


class Checkpoints(FakeTask):
    """Stores the number of its last epoch, and continues from there."""

    def evaluate(self, genotype: Any, *, folder: Path, report: Any, **named: Any) -> Any:
        path = folder / CHECKPOINT
        begun = int(path.read_text()) if path.exists() else 0
        if self.dies and not begun:
            path.write_text("1")
            report(1, {})
            raise SystemExit("the machine is gone")
        self.began.append(begun)
        path.write_text("2")
        return super().evaluate(genotype, folder=folder, report=report, **named)

    dies = False
    began: list[int]


def test_a_trial_continues_on_another_machine_from_its_checkpoint(tmp_path: Path, uri: str) -> None:
    first, second = Checkpoints(), Checkpoints()
    first.dies, second.began = True, []
    with pytest.raises(SystemExit):
        run_search(mirrored(uri), out=tmp_path / "run", task=first)
    assert Store(uri).names("trials") == [f"trials/000000/{CHECKPOINT}"]
    shutil.rmtree(tmp_path / "run")
    run = search_or_resume(mirrored(uri), out=tmp_path / "run", task=second)
    assert second.began == [1, *[0] * (len(run.records()) - 1)]
    assert not [name for name in Store(uri).names("trials") if name.endswith(CHECKPOINT)], "none is left"


def test_a_folder_that_is_behind_and_differs_is_replaced_by_the_copy(tmp_path: Path, uri: str) -> None:
    """Its driver died after a line that was not acted on, and another machine has continued since."""
    with pytest.raises(SystemExit):
        run_search(mirrored(uri), out=tmp_path / "run", task=DiesAt())
    path = tmp_path / "run" / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert b'"started"' in lines[-1]
    shutil.copytree(tmp_path / "run", tmp_path / "old")
    elsewhere = search_or_resume(mirrored(uri), out=tmp_path / "elsewhere-run", task=FakeTask())
    finished = Mirror(uri).journal()
    back = resume(tmp_path / "old", task=FakeTask())
    assert Mirror(uri).journal() == finished == back.folder.journal_path.read_bytes()
    assert outcome(back) == outcome(elsewhere)
    assert back.folder.read_curve(8) == elsewhere.folder.read_curve(8) != ()


def test_a_damaged_journal_is_repaired_from_the_copy(tmp_path: Path, uri: str) -> None:
    run = run_search(mirrored(uri), out=tmp_path / "run", task=FakeTask())
    path = run.folder.journal_path
    sound = path.read_bytes()
    for damaged in (sound.replace(b"0.", b"1.", 1), sound[:-3] + b"#}\n", sound[:2000] + bytes(4096)):
        path.write_bytes(damaged)
        resume(tmp_path / "run", task=FakeTask())
        assert path.read_bytes() == sound == Mirror(uri).journal()
    path.write_bytes(sound.replace(b"0.", b"1.", 1))
    resume(tmp_path / "run", mend=True, task=FakeTask())
    assert path.read_bytes() == sound


def test_a_file_left_by_a_killed_writer_is_not_a_piece(tmp_path: Path, uri: str) -> None:
    run = run_search(mirrored(uri), out=tmp_path / "run", task=FakeTask())
    (tmp_path / "elsewhere" / "journal" / ".000000000000000.000001.jsonl.0123.partial").write_bytes(b"half")
    assert Mirror(uri).journal() == run.folder.journal_path.read_bytes()


def test_of_two_owners_with_one_fence_the_unnamed_one_stops(tmp_path: Path, uri: str) -> None:
    run_search(mirrored(uri), out=tmp_path / "run", task=FakeTask())
    with Journal.open(tmp_path / "run" / "journal.jsonl", mirror=Mirror(uri)) as journal:
        owner = json.loads(Store(uri).read("owner.json") or b"{}")
        assert owner["fence"] == journal.fence
        Store(uri).write("owner.json", json.dumps(owner | {"pid": 1}).encode())
        assert journal._mirror is not None
        journal._mirror._beat(1)
        with pytest.raises(UserError, match="taken over by process 1"):
            journal.append(Stopped("too late", at="t"))
