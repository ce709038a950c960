from __future__ import annotations

import bz2
import gzip
import itertools
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from shared_fixtures import REPOSITORY

from spinenas.controller.base import Continuation, Proposal
from spinenas.results.record import Evaluation, Failure, FailureKind, Fidelity, Stage, Status, TrialRecord
from spinenas.results.storage.epoch_count import EpochCount
from spinenas.results.storage.events import (
    KINDS,
    Asked,
    EpochDone,
    Event,
    Finished,
    Observed,
    Paused,
    Promoted,
    Refused,
    Requeued,
    Resumed,
    RunStarted,
    Skipped,
    Started,
    Stopped,
    event_from_json,
)
from spinenas.results.storage.journal import SCHEMA, Journal, read_events
from spinenas.results.storage.journal_lines import encode
from spinenas.results.storage.run_state import ENDED, NEW, Fold, fold
from spinenas.results.storage.trial_moves import asked_fields, next_status
from spinenas.search.run.controller_replay import replay_into
from spinenas.space.errors import UserError
from spinenas.space.published import R0_SP53, SPINENET_49
from spinenas.space.scaling import SCALINGS

ASSETS = REPOSITORY / "tests" / "assets" / "runs"

RUN_STARTED = RunStarted(SCHEMA, {"seed": 3}, at="t0")


def asked(number: int, genotype=SPINENET_49, num_told: int = 0, **fields) -> Asked:
    proposal = Proposal(number, genotype, **fields).to_json()
    return Asked(proposal, f"network {genotype.key}", 100 + number, "task", num_told, at=f"asked {number}")


def started(number: int, attempt: int = 0) -> Started:
    return Started(number, attempt, "worker 1", "cpu", "float32", at=f"started {number}")


def epoch(number: int, attempt: int = 0) -> EpochDone:
    return EpochDone(number, attempt, 1, {"loss": 2.5}, at="t")


def told(number: int, outcome: Evaluation | Failure, attempt: int = 0) -> Finished:
    return Finished(number, attempt, outcome, at=f"told {number}")


def requeued(number: int, attempt: int, **fields) -> Requeued:
    return Requeued(number, attempt, "worker lost", at="t", **fields)


EVALUATION = Evaluation(0.25, metrics={"AP": 0.25, "APs": None}, params=7)
FAILURE = Failure(FailureKind.DIVERGED, "loss is not finite")
STORY = [
    RUN_STARTED,
    asked(0),
    asked(1, R0_SP53, parent=0, origin="mutation:swap", info={"predicted": 0.5}),
    started(0),
    epoch(0),
    started(1),
    requeued(1, 1),
    told(0, EVALUATION),
    started(1, 1),
    Resumed({"num_trials": 24}, at="t"),
    told(1, FAILURE, attempt=1),
    asked(2, num_told=2, replicate=1, stage=Stage.RERANK, fidelity=Fidelity(5, 512, 64, 1000, SCALINGS["49"])),
    asked(3, num_told=1),
    Refused(0, 0, "it has its result", at="t"),
    started(3),
    Stopped("SIGTERM", at="t"),
]


def line(event: Event, fence: int = 1) -> bytes:
    return encode(event.to_json(), fence)


def write(path: Path, events: list[Event]) -> Path:
    with Journal.create(path) as journal:
        for event in events:
            journal.append(event)
    return path


def test_events_come_back_as_they_were_appended(tmp_path):
    path = write(tmp_path / "journal.jsonl", STORY)
    assert list(read_events(path)) == STORY
    assert path.read_text().count("\n") == len(STORY)


def test_a_journal_cut_at_any_byte_of_its_last_line_continues_without_that_line(tmp_path):
    path = write(tmp_path / "journal.jsonl", STORY)
    whole = path.read_bytes()
    begin = whole[:-1].rfind(b"\n") + 1
    for length in range(begin, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert list(read_events(path)) == STORY[:-1]
        with Journal.open(path) as journal:
            journal.append(Resumed({}, at="t"))
        assert list(read_events(path)) == [*STORY[:-1], Resumed({}, at="t")]


def test_a_last_line_that_lacks_only_its_newline_counts(tmp_path):
    path = write(tmp_path / "journal.jsonl", STORY)
    path.write_bytes(path.read_bytes()[:-1])
    assert list(read_events(path)) == STORY
    Journal.open(path).close()
    assert not path.read_bytes().endswith(b"\n"), "nothing changes before there is something to write"
    with Journal.open(path) as journal:
        journal.append(Resumed({}, at="t"))
        journal.append(Resumed({"b": 1}, at="t"))
    assert list(read_events(path)) == [*STORY, Resumed({}, at="t"), Resumed({"b": 1}, at="t")]


def test_a_half_written_last_line_is_removed_after_a_copy_was_kept_and_named(tmp_path):
    path = write(tmp_path / "journal.jsonl", [RUN_STARTED])
    whole = path.read_bytes() + b"x" * 200_000  # longer than a read block
    said: list[str] = []
    for suffix in ("", "-2", "-3"):
        whole += b"x"
        path.write_bytes(whole)
        Journal.open(path, note=said.append).close()
        assert path.read_bytes() == line(RUN_STARTED)
        assert Path(f"{path}.damaged{suffix}").read_bytes() == whole
        assert said[-1].endswith(f"is kept as {path}.damaged{suffix}")
    path.write_bytes(whole)
    Journal.open(path).close()
    assert len(list(tmp_path.glob("*.damaged*"))) == 3, "equal bytes are kept once"


def test_nothing_is_removed_if_no_copy_can_be_kept(tmp_path, monkeypatch):
    path = write(tmp_path / "journal.jsonl", [RUN_STARTED])
    path.write_bytes(path.read_bytes() + b"{")
    before = path.read_bytes()

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spinenas.results.storage.journal_rescue.write_bytes_atomically", full)
    with pytest.raises(UserError, match=r"cannot keep a copy .*No space left on device; make .*; nothing was changed"):
        Journal.open(path)
    assert path.read_bytes() == before


def test_a_broken_line_elsewhere_is_named_with_file_and_number(tmp_path):
    path = write(tmp_path / "journal.jsonl", STORY)
    lines = path.read_text().split("\n")
    for broken in ("{", "[]", "null", "", '{"number": 1}', "\x00\x00", "[" * 100_000, lines[4].replace("2.5", "2.6")):
        path.write_text("\n".join([*lines[:4], broken, *lines[5:]]))
        offset = len("\n".join([*lines[:4], ""]))
        with pytest.raises(UserError, match=rf"^{re.escape(str(path))} line 5, at byte {offset}, is broken.*--salvage"):
            list(read_events(path))


def test_another_schema_is_refused(tmp_path):
    path = write(tmp_path / "journal.jsonl", [replace(RUN_STARTED, schema="spinenas-journal/3")])
    with pytest.raises(UserError, match="line 1 has schema 'spinenas-journal/3'"):
        list(read_events(path))


def test_a_second_writer_is_refused_while_the_first_one_lives(tmp_path):
    path = tmp_path / "journal.jsonl"
    program = "import sys; from pathlib import Path; from spinenas.results.storage.journal import Journal\n"
    program += "Journal.open(Path(sys.argv[1]))"
    with Journal.create(path) as journal:
        journal.append(RUN_STARTED)
        with pytest.raises(UserError, match=f"written by process {os.getpid()} on host"):
            Journal.open(path)
        other = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
        assert "UserError" in other.stderr
        assert f"written by process {os.getpid()} on host" in other.stderr
        assert list(read_events(path)) == [RUN_STARTED]  # reading is always allowed
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)


def test_a_full_disk_leaves_the_journal_readable(tmp_path):
    path = tmp_path / "journal.jsonl"
    program = """
import resource, sys
from pathlib import Path
from spinenas.results.storage.events import Resumed, RunStarted
from spinenas.results.storage.journal import Journal
from spinenas.space.errors import UserError

started = RunStarted("spinenas-journal/2", {})
with Journal.create(Path(sys.argv[1])) as journal:
    journal.append(started)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
    try:
        journal.append(Resumed({"text": "x" * 1000}))
    except UserError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    journal.append(Resumed({}))
"""
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
    assert "cannot write" in done.stdout, done.stderr
    assert [event.kind for event in read_events(path)] == ["run_started", "resumed"]


def test_a_journal_with_events_is_not_started_over(tmp_path):
    path = write(tmp_path / "journal.jsonl", [RUN_STARTED])
    with pytest.raises(UserError, match="already holds a run"):
        Journal.create(path)
    assert list(read_events(path)) == [RUN_STARTED]


def test_a_missing_journal_is_refused_in_one_sentence(tmp_path):
    for call in (Journal.open, lambda path: list(read_events(path))):
        with pytest.raises(UserError, match="No such file"):
            call(tmp_path / "journal.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_nan_is_never_written(tmp_path):
    with Journal.create(tmp_path / "journal.jsonl") as journal, pytest.raises(ValueError, match="JSON"):
        journal.append(EpochDone(0, 0, 1, {"loss": float("nan")}))
    assert (tmp_path / "journal.jsonl").read_bytes() == b""


def test_the_events_of_the_example_give_these_records():
    state = fold(STORY)
    assert state.run == {"seed": 3}
    assert state.resumes == [{"num_trials": 24}]
    assert state.told == [0, 1]
    assert [step.known for step in state.steps] == [0, 0, 2, 1]
    assert state.trials[0] == TrialRecord(
        number=0,
        genotype=SPINENET_49,
        network_key=f"network {SPINENET_49.key}",
        status=Status.COMPLETE,
        seed=100,
        task_key="task",
        evaluation=EVALUATION,
        asked_at="asked 0",
        started_at="started 0",
        finished_at="told 0",
        worker="worker 1",
        device="cpu",
        dtype="float32",
    )
    failed = state.trials[1]
    assert (failed.status, failed.attempt, failed.failure) == (Status.FAILED, 1, FAILURE)
    assert (failed.parent, failed.origin, failed.info) == (0, "mutation:swap", {"predicted": 0.5})
    replicate = state.trials[2]
    assert (replicate.replicate, replicate.stage) == (1, Stage.RERANK)
    assert replicate.fidelity == Fidelity(5, 512, 64, 1000, SCALINGS["49"])
    assert [(record.number, record.status) for record in state.unfinished] == [
        (2, Status.ASKED),
        (3, Status.RUNNING),
    ]


def test_a_proposal_comes_back_from_the_journal():
    for event in STORY:
        if isinstance(event, Asked):
            record = TrialRecord(**asked_fields(event))
            assert Proposal.of_record(record).to_json() == event.proposal


def test_a_result_of_an_abandoned_attempt_counts():
    events = [RUN_STARTED, asked(0), started(0), requeued(0, 1), told(0, EVALUATION)]
    record = fold(events).trials[0]
    assert (record.status, record.attempt, record.evaluation) == (Status.COMPLETE, 0, EVALUATION)


def test_a_trial_retried_with_a_smaller_batch_keeps_its_proposed_fidelity():
    smaller = Fidelity(5, 512, 32, 1000, SCALINGS["49"])
    state = fold([RUN_STARTED, asked(0), started(0), requeued(0, 1, fidelity=smaller)])
    assert state.trials[0].fidelity == smaller
    assert state.proposed_fidelities == {0: None}


def test_losses_of_a_trial_are_counted_by_kind_of_failure():
    lost = requeued(0, 2, failure_kind=FailureKind.WORKER_LOST)
    preempted = requeued(0, 3, failure_kind=FailureKind.PREEMPTED)
    events = [RUN_STARTED, asked(0), requeued(0, 1), lost, started(0, 2), preempted]
    assert fold(events).losses == {0: {FailureKind.WORKER_LOST: 1, FailureKind.PREEMPTED: 1}}


def test_lines_of_a_driver_that_lost_the_run_are_ignored(tmp_path):
    path = write(tmp_path / "journal.jsonl", STORY[:3])
    with Journal.open(path) as journal:  # the second owner
        journal.append(STORY[3])
    with open(path, "ab") as file:
        file.write(line(started(1)))  # by the first owner, which had only stalled
    with Journal.open(path) as journal:
        journal.append(STORY[4])
    assert list(read_events(path)) == [*STORY[:4], Skipped(), STORY[4]]
    assert fold(read_events(path)).trials[1].status is Status.ASKED


def test_a_copy_without_its_leases_continues_with_a_higher_fence(tmp_path):
    path = write(tmp_path / "journal.jsonl", STORY[:3])
    shutil.rmtree(tmp_path / "lease")
    with Journal.open(path) as journal:
        assert journal.fence == 2
        journal.append(STORY[3])
    assert list(read_events(path)) == STORY[:4]


def test_a_journal_of_the_first_release_is_read_and_continued(tmp_path):
    shutil.copytree(ASSETS / "0.1.0", tmp_path / "run")
    path = tmp_path / "run" / "journal.jsonl"
    before = list(read_events(path))
    assert before[0].schema == "spinenas-journal/1"
    with Journal.open(path) as journal:
        journal.append(Resumed({}, at="t"))
    assert list(read_events(path)) == [*before, Resumed({}, at="t")]
    with open(path, "ab") as file:
        file.write(b'{"event":"resumed","at":"t","changes":{}}\n' + line(STORY[-1], 9))
    with pytest.raises(UserError, match="is broken"):
        list(read_events(path))  # once there are checksums, all lines have one


def test_an_unsynced_line_survives_the_death_of_the_process(tmp_path):
    program = """
import os, signal, sys
from pathlib import Path
from spinenas.results.storage.events import Resumed, RunStarted
from spinenas.results.storage.journal import Journal
journal = Journal.create(Path(sys.argv[1]))
journal.append(RunStarted("spinenas-journal/2", {}), sync=False)
os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "journal.jsonl"
    assert subprocess.run([sys.executable, "-c", program, str(path)]).returncode == -9
    assert [event.kind for event in read_events(path)] == ["run_started"]
    Journal.open(path).close()  # the lease of the dead process is taken over at once


def test_an_interruption_in_the_middle_of_a_write_leaves_no_half_line(tmp_path, monkeypatch):
    path = write(tmp_path / "journal.jsonl", STORY[:2])
    with Journal.open(path) as journal:
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                journal.append(STORY[2])
        journal.append(Stopped("Ctrl-C", at="t"))
    assert [event.kind for event in read_events(path)] == ["run_started", "asked", "stopped"]


@pytest.mark.parametrize(
    "end", [b"\x00" * 70_000 + b"\n" + b"\x00\r\n" * 3, b"x\n", b"x\n{", b"\n", line(STORY[0])[1:]]
)
def test_complete_but_damaged_last_lines_are_never_cut_off(tmp_path, end):
    path = write(tmp_path / "journal.jsonl", STORY)
    whole = path.read_bytes() + end
    path.write_bytes(whole)
    Journal.open(path).close()
    complete = whole[: whole.rfind(b"\n") + 1]
    assert path.read_bytes() == complete
    assert complete == whole or Path(f"{path}.damaged").read_bytes() == whole
    with pytest.raises(UserError, match=rf"line {len(STORY) + 1}, at byte \d+, is broken.*--salvage"):
        list(read_events(path))
    damage: list[str] = []
    assert list(read_events(path, on_damage=damage.append)) == STORY
    assert len(damage) == end.count(b"\n")


def test_events_in_a_last_line_without_newline_are_never_cut_off(tmp_path):
    path = write(tmp_path / "journal.jsonl", STORY)
    for end in (b"\x00" * 9 + line(STORY[3]), line(STORY[3])[:-1] + line(STORY[4])[:-1] + b"\x00"):
        whole = b"".join(map(line, STORY)) + end.rstrip(b"\n")
        path.write_bytes(whole)
        Journal.open(path).close()
        assert path.read_bytes() == whole
        with pytest.raises(UserError, match="is broken"):
            list(read_events(path))


FOREIGN = {
    "gzip": (gzip.compress, "is compressed with gzip", "gzip -dc"),
    "xz": (lzma.compress, "is compressed with xz", "xz -dc"),
    "bzip2": (bz2.compress, "is compressed with bzip2", "bzip2 -dc"),
    "UTF-16": (lambda data: data.decode().encode("utf-16"), "is in UTF-16", "iconv -f UTF-16 -t UTF-8"),
    "UTF-16LE": (lambda data: data.decode().encode("utf-16-le"), "is in UTF-16LE", "iconv -f UTF-16LE"),
    "UTF-16BE": (lambda data: data.decode().encode("utf-16-be"), "is in UTF-16BE", "iconv -f UTF-16BE"),
    "UTF-32": (lambda data: data.decode().encode("utf-32"), "is in UTF-32", "iconv -f UTF-32"),
    "carriage returns": (lambda data: data.replace(b"\n", b"\r"), "carriage returns without newlines", "tr '"),
    "reformatted": (lambda data: data.replace(b":", b": "), "was changed by another program", None),
    "zeros": (lambda data: bytes(len(data)), r"is \d+ zero bytes", None),
    "blank": (lambda data: b" \r\n" * 9, "is 27 bytes of blank lines", None),
    "another file": (lambda data: b"name,value\n1,2\n", "has 15 bytes, which begin with", None),
    "Git LFS": (lambda data: b"version https://git-lfs.github.com/spec/v1\noid", "pointer of Git LFS", None),
    "half of its first line": (lambda data: data[:50], "has 50 bytes, which begin with", None),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_without_a_valid_event_is_explained_and_left_as_it_is(tmp_path, kind):
    """The command that the message names is run, and makes a journal of it again."""
    change, what, command = FOREIGN[kind]
    folder = tmp_path / "my run"
    folder.mkdir()
    path = write(folder / "journal.jsonl", STORY)
    foreign = change(path.read_bytes())
    path.write_bytes(foreign)
    for call in (Journal.open, Journal.create, lambda path: list(read_events(path)), _read_damaged):
        with pytest.raises(UserError) as caught:
            call(path)
        assert path.read_bytes() == foreign
        said = str(caught.value)
        assert "empty" not in said
        assert "remove" not in said
        if call == Journal.create:
            continue
        assert re.search(what, said)
        assert "it was left as it is" in said
    assert not list(folder.glob("*.damaged*"))
    if command is not None:
        assert command in said
        subprocess.run(said.partition(" with: ")[2], shell=True, check=True)
        assert list(read_events(path)) == STORY
        assert any(file.read_bytes() == foreign for file in folder.glob("journal*")), "the original stays"


def _read_damaged(path):
    return list(read_events(path, on_damage=lambda text: None))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"),
        lambda data: data.replace(b"\n", b" \n"),
        lambda data: data.replace(b"\n", b"\r\n").removesuffix(b"\n"),
    ],
)
@pytest.mark.parametrize("name", ["now", "0.1.0"])
def test_a_journal_with_other_line_ends_or_a_byte_order_mark_is_read_and_continued(tmp_path, change, name):
    path = tmp_path / "journal.jsonl"
    if name == "now":
        write(path, STORY)
    else:
        shutil.copyfile(ASSETS / name / "journal.jsonl", path)
        shutil.rmtree(tmp_path / "lease", ignore_errors=True)
    events = list(read_events(path))
    changed = change(path.read_bytes())
    path.write_bytes(changed)
    assert list(read_events(path)) == events
    assert fold(read_events(path, epochs=False)) == fold(events)
    with Journal.open(path) as journal:
        assert journal.fence == (2 if name == "now" else 1), "fencing numbers are read as well"
        journal.append(Resumed({}, at="t"))
    assert path.read_bytes().startswith(changed)
    assert list(read_events(path)) == [*events, Resumed({}, at="t")]


def test_every_prefix_of_a_valid_journal_is_valid():
    for length in range(1, len(STORY) + 1):
        num_asked = sum(isinstance(event, Asked) for event in STORY[:length])
        assert len(fold(STORY[:length]).trials) == num_asked


@pytest.mark.parametrize(
    ("events", "line"),
    [
        ([asked(0)], 1),
        ([RUN_STARTED, RUN_STARTED], 2),
        ([RUN_STARTED, asked(1)], 2),
        ([RUN_STARTED, asked(0), asked(0)], 3),
        ([RUN_STARTED, started(0)], 2),
        ([RUN_STARTED, asked(0), epoch(0)], 3),
        ([RUN_STARTED, asked(0), told(0, EVALUATION, attempt=1)], 3),
        ([RUN_STARTED, asked(0), told(0, EVALUATION, attempt=-1)], 3),
        ([RUN_STARTED, asked(0, num_told=1)], 2),
        ([RUN_STARTED, asked(0), started(0), started(0)], 4),
        ([RUN_STARTED, asked(0), started(0, attempt=1)], 3),
        ([RUN_STARTED, asked(0), started(0), requeued(0, 0)], 4),
        ([RUN_STARTED, asked(0), started(0), requeued(0, 1), started(0, 1), epoch(0)], 6),
        ([RUN_STARTED, asked(0), started(0), told(0, EVALUATION), told(0, EVALUATION)], 5),
        ([RUN_STARTED, asked(0), started(0), told(0, FAILURE), requeued(0, 1)], 5),
    ],
)
def test_an_event_that_cannot_follow_is_refused_with_its_line(events, line):
    fold(events[:-1] or [RUN_STARTED])
    with pytest.raises(UserError, match=f"^line {line} of the journal"):
        fold(events)


@pytest.mark.parametrize(
    "data",
    [
        told(0, EVALUATION).to_json() | {"status": "asked"},
        told(0, EVALUATION).to_json() | {"status": "pruned"},
        told(0, FAILURE).to_json() | {"failure": None},
        told(0, EVALUATION).to_json() | {"evaluation": {"loss": 1}},
        {"event": "asked", "at": ""},
        {"event": "paused", "at": ""},
        {"event": "retold", "at": ""},
    ],
)
def test_a_line_that_is_not_an_event_is_refused_with_its_number(tmp_path, data):
    path = write(tmp_path / "journal.jsonl", [RUN_STARTED])
    with open(path, "ab") as file:
        file.write(encode(data, 1))
    with pytest.raises(UserError, match=r"^line 2 of the journal .* event"):
        list(read_events(path))
    damage: list[str] = []
    assert list(read_events(path, on_damage=damage.append)) == [RUN_STARTED]
    assert len(damage) == 1


def test_every_kind_of_event_is_in_the_table_of_kinds_and_comes_back_from_its_json():
    observed = Observed(SPINENET_49, EVALUATION, ("runs/a 3",), at="t")
    halved = [Paused(0, 0, replace(EVALUATION, stopped_after=2), at="t"), Promoted(0, 1, 2, 0.25, at="t")]
    events = [*STORY, observed, *halved, requeued(0, 1, failure_kind=FailureKind.PREEMPTED)]
    assert {event.kind for event in events} == set(KINDS)
    for event in events:
        assert event_from_json(json.loads(json.dumps(event.to_json()))) == event


def paused(number: int, epoch: int, attempt: int = 0) -> Paused:
    return Paused(number, attempt, replace(EVALUATION, stopped_after=epoch), at="t")


def continued(number: int, attempt: int, epoch: int, num_told: int, until: int | None) -> Promoted:
    return Promoted(number, attempt, epoch, 0.25, num_told, until, at="t")


def ended(number: int, epoch: int, attempt: int = 0) -> Finished:
    return told(number, replace(EVALUATION, stopped_after=epoch), attempt)


PAUSING = [
    RUN_STARTED,
    asked(0, until=1),
    asked(1, until=1),
    paused(1, 1),
    continued(1, 1, 1, 1, 3),
    paused(0, 1),
    asked(2, num_told=2, until=3, replicate=1),
    paused(1, 3, 1),
    continued(1, 2, 3, 3, None),
    told(2, FAILURE),
    told(1, EVALUATION, 2),
    ended(0, 1),
]


def test_a_promotion_by_halving_has_the_keys_of_earlier_versions_and_one_by_a_controller_has_two_more():
    by_halving = Promoted(0, 1, 2, 0.25, at="t").to_json()
    assert by_halving == {"event": "promoted", "at": "t", "number": 0, "attempt": 1, "epoch": 2, "objective": 0.25}
    for until in (3, None):
        by_controller = continued(0, 1, 2, 7, until)
        assert by_controller.to_json() == by_halving | {"num_told": 7, "until": until}
        assert event_from_json(json.loads(json.dumps(by_controller.to_json()))) == by_controller
    assert event_from_json(by_halving) == Promoted(0, 1, 2, 0.25, at="t")


def test_each_request_of_a_controller_is_a_step_with_its_result():
    state = fold(PAUSING)
    assert state.steps == [(0, 0, NEW), (1, 0, NEW), (1, 1, 3), (2, 2, NEW), (1, 3, None), (0, 5, ENDED)]
    at_epoch = {epoch: replace(EVALUATION, stopped_after=epoch) for epoch in (1, 3)}
    assert state.results == [
        (1, at_epoch[1]), (0, at_epoch[1]), (2, at_epoch[3]), (3, FAILURE), (4, EVALUATION), (5, at_epoch[1])
    ]  # fmt: skip
    assert state.told == [2, 1, 0]
    assert state.is_ending
    assert (state.paused, state.until, state.rung_results) == ({}, {}, [])
    assert EpochCount.of_state(state, 5).granted == 1 + 5 + 3
    before = fold(PAUSING[:8])
    assert before.until == {0: 1, 1: 3, 2: 3}
    assert before.paused == {0: at_epoch[1], 1: at_epoch[3]}
    assert not before.is_ending


def test_a_resumption_with_another_budget_lets_an_ended_search_go_on():
    assert fold([*PAUSING, Resumed({"versions": {}}, at="t")]).is_ending
    for budget in ("num_trials", "epochs", "max_accelerator_hours"):
        assert not fold([*PAUSING, Resumed({budget: 9}, at="t")]).is_ending
    assert not fold([*PAUSING, asked(3, num_told=6)]).is_ending


def test_a_continuation_that_knows_results_to_come_is_refused_without_a_change():
    state = Fold()
    for event in PAUSING[:4]:
        state.add(event)
    with pytest.raises(UserError, match="trial 1 was asked knowing 2 results of 1"):
        state.add(continued(1, 1, 1, 2, 3))
    for event in PAUSING[4:]:
        state.add(event)
    assert state.state() == fold(PAUSING)


class Listener:
    """A controller that notes what a replay calls."""

    def __init__(self):
        self.calls = []

    def observe(self, genotype, evaluation):
        self.calls.append("observed")

    def replay_ask(self, step):
        self.calls.append(step.number if isinstance(step, Proposal) else step)

    def tell(self, number, result):
        self.calls.append((number, result.stopped_after if isinstance(result, Evaluation) else "failed"))
        return True


def test_a_replay_tells_the_results_of_steps_as_they_arrived():
    listener = Listener()
    opened, untold = replay_into(listener, fold(PAUSING), ordered=False)
    assert listener.calls == [
        0, 1, (1, 1), Continuation(1, 3), (0, 1), 2, (1, 3), Continuation(1), (2, "failed"), (1, None), (0, 1)
    ]  # fmt: skip
    assert (opened, untold) == ({}, {})


def test_an_ordered_replay_tells_results_in_the_order_of_the_steps_and_only_those_that_the_last_step_needed():
    listener = Listener()
    ordered = [*PAUSING[:4], paused(0, 1), continued(1, 1, 1, 2, 3), *PAUSING[6:10]]
    opened, untold = replay_into(listener, fold(ordered), ordered=True)
    assert listener.calls == [0, 1, (0, 1), (1, 1), Continuation(1, 3), 2, (1, 3), Continuation(1)]
    assert list(opened) == [0, 1]
    assert untold == {3: (2, FAILURE)}


def test_an_empty_journal_has_no_state(tmp_path):
    with pytest.raises(UserError, match="before it began, or the file lost its content; restore it"):
        fold([])
    with pytest.raises(UserError, match=r"^runs/mine/journal\.jsonl is empty: "):
        fold([], source="runs/mine/journal.jsonl")
    (tmp_path / "journal.jsonl").touch()
    with Journal.create(tmp_path / "journal.jsonl") as journal:
        journal.append(RUN_STARTED)


def test_unread_epochs_keep_their_time(tmp_path):
    path = write(tmp_path / "journal.jsonl", STORY)
    assert [event.at for event in read_events(path, epochs=False)] == [event.at for event in STORY]


def test_epochs_that_are_not_read_are_still_checked(tmp_path):
    path = write(tmp_path / "journal.jsonl", STORY)
    unread = list(read_events(path, epochs=False))
    assert [event for event in unread if not isinstance(event, Skipped)] == [
        event for event in STORY if not isinstance(event, EpochDone)
    ]
    assert len(unread) == len(STORY)
    assert fold(unread) == fold(STORY)
    path.write_bytes(path.read_bytes().replace(b"2.5", b"2.6"))
    with pytest.raises(UserError, match="line 5"):
        list(read_events(path, epochs=False))


MOVING = [asked(0), started(0), epoch(0), Paused(0, 0, EVALUATION), Promoted(0, 1, 1, 0.5), requeued(0, 1)]


def test_only_these_transitions_are_valid():
    events = {event.kind: event for event in MOVING} | {
        f"told {event.status}": event
        for event in (told(0, EVALUATION), told(0, replace(EVALUATION, stopped_after=1)), told(0, FAILURE))
    }
    legal = {}
    for current, (name, event) in itertools.product((None, *Status), events.items()):
        try:
            legal[current, name] = next_status(current, event)
        except UserError:
            continue
    assert legal == {
        (None, "asked"): "asked",
        ("asked", "started"): "running",
        ("asked", "requeued"): "asked",
        ("asked", "paused"): "paused",
        ("asked", "told complete"): "complete",
        ("asked", "told pruned"): "pruned",
        ("asked", "told failed"): "failed",
        ("running", "epoch"): "running",
        ("running", "requeued"): "asked",
        ("running", "paused"): "paused",
        ("paused", "promoted"): "asked",
        ("paused", "told complete"): "complete",
        ("paused", "told pruned"): "pruned",
        ("paused", "told failed"): "failed",
        ("running", "told complete"): "complete",
        ("running", "told pruned"): "pruned",
        ("running", "told failed"): "failed",
    }


def test_a_failed_write_removes_nothing_of_a_later_owner(tmp_path, monkeypatch):
    path = write(tmp_path / "journal.jsonl", STORY[:2])
    stalled = Journal.open(path)
    later = line(Resumed({}, at="t"), 9) * 5

    def another_owner_writes(descriptor):
        with open(path, "ab") as file:
            file.write(later)
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", another_owner_writes)
        with pytest.raises(UserError, match="Input/output error"):
            stalled.append(STORY[2])
    assert path.read_bytes().endswith(later)
    stalled.close()
