"""The repair of a journal that is damaged in the middle keeps its valid events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_task import FakeTask
from journal_lines import json_events
from searches import NUM_TRIALS, configured, cut, events_of, fake, halved, outcome, paused, timeless
from shared_fixtures import REPOSITORY

from spinenas.search.config.loading import stored_config
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.search.run.run import Run
from spinenas.search.run.salvage import salvage
from spinenas.space import UserError

pytestmark = pytest.mark.usefixtures("no_fsync")


def damaged(run: Run, lines: set[int], folder: Path) -> Path:
    """Copy a run and flip a digit in each of these lines, counted from 1."""
    path = cut(run, len(events_of(run)), folder) / "journal.jsonl"
    content = path.read_bytes().splitlines(keepends=True)
    for line in lines:
        content[line - 1] = content[line - 1].replace(b"0", b"1", 1)
    path.write_bytes(b"".join(content))
    return folder


@pytest.mark.parametrize("kind", ["serial", "ordered", "free"])
def test_a_run_can_be_finished_after_damage_to_any_line(
    kind: str, tmp_path: Path, shuffled: Callable[..., None]
) -> None:
    if kind != "serial":
        shuffled(1)
    task = FakeTask(num_epochs=1, fail={4: "diverged"})
    whole = run_search(configured(ordered=kind == "ordered"), out=tmp_path / "whole", task=task)
    events = events_of(whole)
    for line in range(2, len(events)):
        folder = damaged(whole, {line}, tmp_path / f"{line}")
        before = (folder / "journal.jsonl").read_bytes()
        with pytest.raises(UserError, match=rf"line {line}, at byte \d+, is broken.*--salvage"):
            resume(folder, task=task)
        mended = resume(folder, mend=True, task=task)
        assert (folder / "journal.jsonl.damaged").read_bytes() == before
        told = [event["number"] for event in events_of(mended) if event["event"] == "told"]
        assert sorted(told) == list(range(NUM_TRIALS))
        trained = [event["number"] for event in events_of(mended) if event["event"] == "requeued"]
        lost = events[line - 1]
        number = lost["proposal"]["number"] if lost["event"] == "asked" else lost.get("number", -1)
        assert trained in ([], [number]), "at most the trial of the damaged line is trained again"
        if kind == "free" and lost["event"] == "told":
            continue  # its result arrives later than before, which may change later proposals
        assert outcome(mended) == outcome(whole), f"line {line}, {lost['event']}"


def test_several_damaged_lines_can_be_repaired(tmp_path: Path) -> None:
    task = FakeTask(num_epochs=1)
    whole = run_search(configured(), out=tmp_path / "whole", task=task)
    for start in range(2, len(events_of(whole)) - 3):
        lines = set(range(start, start + 3))
        mended = resume(damaged(whole, lines, tmp_path / f"{start}"), mend=True, task=task)
        told = [event["number"] for event in events_of(mended) if event["event"] == "told"]
        assert sorted(told) == list(range(NUM_TRIALS))
        kinds = {events_of(whole)[line - 1]["event"] for line in lines}
        # A lost proposal cannot be recomputed if a result before it is lost too.
        assert outcome(mended) == outcome(whole) or kinds >= {"told", "asked"}
        for record in mended.records():
            assert record.evaluation is not None
            assert record.evaluation.network_key == record.network_key, "no result of another network"


def test_a_zeroed_disk_block_costs_only_its_own_events(tmp_path: Path) -> None:
    """Zeros also replace newlines, so that many events become one damaged line."""
    task = FakeTask(num_epochs=1)
    whole = run_search(configured(40), out=tmp_path / "whole", task=task)
    content = whole.folder.journal_path.read_bytes()
    for start in range(4096, len(content) - 4096, 8192):
        folder = cut(whole, len(events_of(whole)), tmp_path / f"{start}")
        (folder / "journal.jsonl").write_bytes(content[:start] + bytes(4096) + content[start + 4096 :])
        mended = resume(folder, mend=True, task=task)
        records = mended.records()
        assert len(records) == 40
        requeued = {event["number"] for event in events_of(mended) if event["event"] == "requeued"}
        asked_again = [event for event in events_of(mended) if event["event"] == "started"]
        assert len(asked_again) <= 40 + 8, "a block holds the lines of a few trials"
        assert len(requeued) <= 8
        assert all(record.evaluation and record.evaluation.network_key == record.network_key for record in records)


def test_a_second_salvage_keeps_both_copies_and_a_valid_journal_is_unchanged(tmp_path: Path) -> None:
    whole = run_search(configured(), out=tmp_path / "whole", task=FakeTask())
    folder = damaged(whole, {7}, tmp_path / "run")
    resume(folder, mend=True, task=FakeTask())
    path = folder / "journal.jsonl"
    sound = path.read_bytes()
    resume(folder, mend=True, task=FakeTask())
    assert path.read_bytes() == sound
    path.write_bytes(sound.replace(b'"epoch":2', b'"epoch":3', 1))
    resume(folder, mend=True, task=FakeTask())
    assert sorted(file.name for file in folder.glob("journal*")) == [
        "journal.jsonl",
        "journal.jsonl.damaged",
        "journal.jsonl.damaged-2",
    ]


def test_a_lost_first_line_is_rebuilt_from_the_other_files(tmp_path: Path) -> None:
    whole = run_search(configured(), out=tmp_path / "whole", task=FakeTask())
    folder = damaged(whole, {1}, tmp_path / "run")
    with pytest.raises(UserError, match=r"line 1, at byte 0, is broken.*--salvage"):
        resume(folder, task=FakeTask())
    mended = resume(folder, mend=True, task=FakeTask())
    assert mended.state() == whole.state()


def test_a_journal_of_its_damaged_first_line_alone_is_left_as_it_is(tmp_path: Path) -> None:
    whole = run_search(configured(), out=tmp_path / "whole", task=FakeTask())
    path = cut(whole, 1, tmp_path / "run") / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b"0", b"1"))
    before = path.read_bytes()
    for mend in (False, True):
        with pytest.raises(UserError, match=r"no line has its checksum any more, so that .*; restore it from a copy"):
            resume(tmp_path / "run", mend=mend, task=FakeTask())
    assert path.read_bytes() == before


def test_events_inside_damaged_lines_are_kept(tmp_path: Path) -> None:
    """Lost newlines, and zeros before an event, cost no event."""
    task = FakeTask(num_epochs=1)
    whole = run_search(configured(), out=tmp_path / "whole", task=task)
    lines = whole.folder.journal_path.read_bytes().splitlines()
    joined = b"\n".join(lines[:5]) + lines[5] + b"\n" + bytes(99) + lines[6] + b"{" + b"".join(lines[7:])
    folder = cut(whole, 0, tmp_path / "run")
    (folder / "journal.jsonl").write_bytes(joined)
    with pytest.raises(UserError, match="is broken"):
        resume(folder, task=task)
    assert (folder / "journal.jsonl").read_bytes() == joined
    mended = resume(folder, mend=True, task=task)
    assert events_of(mended) == events_of(whole)
    assert (folder / "journal.jsonl.damaged").read_bytes() == joined


@pytest.mark.parametrize("mend", [False, True])
def test_a_file_that_is_no_journal_any_more_stays_as_it_is(mend: bool, tmp_path: Path) -> None:
    whole = run_search(configured(), out=tmp_path / "whole", task=FakeTask())
    content = whole.folder.journal_path.read_bytes()
    folder = cut(whole, 0, tmp_path / "run")
    for changed in (content.decode().encode("utf-16"), bytes(len(content)), b"\n\n"):
        (folder / "journal.jsonl").write_bytes(changed)
        with pytest.raises(UserError, match="it was left as it is"):
            resume(folder, mend=mend, task=FakeTask())
        assert (folder / "journal.jsonl").read_bytes() == changed


@pytest.mark.parametrize("mend", [False, True])
def test_a_journal_with_windows_line_ends_resumes_without_training_anything_again(mend: bool, tmp_path: Path) -> None:
    whole = run_search(configured(), out=tmp_path / "whole", task=FakeTask())
    content = whole.folder.journal_path.read_bytes().replace(b"\n", b"\r\n")
    folder = cut(whole, 0, tmp_path / "run")
    (folder / "journal.jsonl").write_bytes(content)
    resumed = resume(folder, mend=mend, num_trials=NUM_TRIALS + 2, task=FakeTask())
    assert (folder / "journal.jsonl").read_bytes().startswith(content)
    started = [event["number"] for event in events_of(resumed) if event["event"] == "started"]
    assert started == list(range(NUM_TRIALS + 2))


def test_a_repaired_journal_of_the_first_release_has_checksums(tmp_path: Path) -> None:
    import shutil

    shutil.copytree(REPOSITORY / "tests" / "assets" / "runs" / "0.1.0", tmp_path / "run")
    path = tmp_path / "run" / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:8], b"#" + lines[8], *lines[9:]]))
    run = resume(tmp_path / "run", mend=True, task=FakeTask(fail={4: "diverged"}))
    assert json_events(path)[0]["schema"] == "spinenas-journal/2"
    assert all(b'"crc32"' in line for line in path.read_bytes().splitlines())
    assert len(run.records()) == 10


@pytest.mark.parametrize("ordered", [False, True])
def test_a_run_with_halving_can_be_finished_after_damage_to_any_line(
    ordered: bool, tmp_path: Path, shuffled: Callable[..., None]
) -> None:
    if ordered:
        shuffled(1)
    task = FakeTask(num_epochs=4)
    whole = run_search(halved(6, ordered=ordered), out=tmp_path / "whole", task=task)
    events = events_of(whole)
    assert {"paused", "promoted"} <= {event["event"] for event in events}
    for line in range(2, len(events)):
        if events[line - 1]["event"] == "epoch":
            continue
        mended = resume(damaged(whole, {line}, tmp_path / f"{line}"), mend=True, task=task)
        told = [event["number"] for event in events_of(mended) if event["event"] == "told"]
        assert sorted(told) == list(range(6))
        for record, before in zip(mended.records(), whole.records(), strict=True):
            assert record.evaluation is not None
            if record.genotype == before.genotype and record.status is before.status:
                assert record.evaluation == before.evaluation


@pytest.mark.parametrize("kind", ["serial", "ordered", "free"])
def test_a_run_whose_controller_pauses_trainings_can_be_finished_after_damage_to_any_line(
    kind: str, tmp_path: Path, shuffled: Callable[..., None], cached_features: None
) -> None:
    if kind != "serial":
        shuffled(1)
    whole = run_search(paused(ordered=kind == "ordered"), out=tmp_path / "whole", task=fake(5))
    events = events_of(whole)
    for line in range(2, len(events)):
        lost = events[line - 1]["event"]
        if lost == "epoch":
            continue
        mended = resume(damaged(whole, {line}, tmp_path / f"{line}"), mend=True, task=fake(5))
        told = [event["number"] for event in events_of(mended) if event["event"] == "told"]
        assert sorted(told) == list(range(len(mended.records())))
        assert all(record.evaluation is not None for record in mended.records())
        if kind == "serial" and lost in ("asked", "promoted", "started"):
            assert outcome(mended) == outcome(whole), f"line {line}, {lost}"
            assert "requeued" not in {event["event"] for event in events_of(mended)}, "nothing is trained again"


def test_lost_continuations_and_proposals_are_recomputed(tmp_path: Path, cached_features: None) -> None:
    whole = run_search(paused(), out=tmp_path / "whole", task=fake(5))
    lines = {line for line, event in enumerate(events_of(whole), 1) if event["event"] in ("promoted", "asked")}
    folder = damaged(whole, lines - {2}, tmp_path / "run")
    words = salvage(folder / "journal.jsonl", stored_config(whole.folder.config()))
    num_lost = len(lines) - 1
    assert words.startswith(f"damaged lines removed: {num_lost}; lost proposals recomputed: {num_lost}; valid lines")
    steps = ("asked", "promoted", "paused", "told")
    assert timeless(events_of(Run.open(folder)), *steps) == timeless(events_of(whole), *steps)
