"""Damage the journal of a small run in every way; nothing that is valid may be lost, and no original byte.

    python tests/journal_damage.py [--sample]

Each damaged journal is given to `resume` and, in a fresh folder, to `resume --salvage`. Afterwards:

- the bytes of the damaged journal are still on disk, in the journal or in a copy beside it;
- `resume` has kept every valid line, and `--salvage` every event of such a line, unless a copy has those that no longer
  fitted;
- no finished trial whose result is valid was trained again;
- a run that could be finished has the results of the undamaged one;
- a refusal is one sentence that calls no such file empty and tells nobody to remove anything.

Whether a line is valid is decided here by a comparison with the undamaged journal, not by the product's reader.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from fake_task import FakeTask
from searches import configured, outcome

from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.search.run.run import Run
from spinenas.space.errors import UserError

NUM_TRIALS = 4


class Case(NamedTuple):
    """A damaged journal.

    Attributes:
        kind: of damage.
        where: byte or line.
        content: of the file.
        is_finished_by: which of `resume` and `salvage` must finish the run; None where neither can be expected to.
    """

    kind: str
    where: str
    content: bytes
    is_finished_by: str | None


def cases(whole: bytes) -> Iterator[Case]:
    """Yield every damaged version of a journal."""
    lines = whole.splitlines(keepends=True)
    for length in range(len(whole)):
        if length < len(lines[0]) - 1:
            yield Case("truncated", f"byte {length}", whole[:length], None)
        else:
            yield Case("truncated", f"byte {length}", whole[:length], "resume")
    for index, line in enumerate(lines):
        before, after = b"".join(lines[:index]), b"".join(lines[index + 1 :])
        is_last = index == len(lines) - 1
        for kind, damaged in _damaged(line):
            finished_by = "salvage"
            if kind == "newline lost" and is_last:
                finished_by = "resume"
            yield Case(kind, f"line {index + 1}", before + damaged + after, finished_by)
    for count in range(2, 7):
        ends = b"".join(line.replace(b"0", b"1", 1) for line in lines[-count:])
        yield Case("several last lines", f"last {count}", b"".join(lines[:-count]) + ends, "salvage")
    text = whole.decode()
    for kind, content, finished_by in (
        ("CRLF", whole.replace(b"\n", b"\r\n"), "resume"),
        ("BOM", b"\xef\xbb\xbf" + whole, "resume"),
        ("BOM and CRLF", b"\xef\xbb\xbf" + whole.replace(b"\n", b"\r\n"), "resume"),
        ("CR", whole.replace(b"\n", b"\r"), None),
        ("no newline at all", whole.replace(b"\n", b""), "salvage"),
        ("UTF-16", text.encode("utf-16"), None),
        ("UTF-16LE", text.encode("utf-16-le"), None),
        ("UTF-16BE", text.encode("utf-16-be"), None),
        ("UTF-16 and CRLF", text.replace("\n", "\r\n").encode("utf-16"), None),
        ("UTF-32", text.encode("utf-32"), None),
        ("gzip", gzip.compress(whole, mtime=0), None),
        ("bzip2", bz2.compress(whole), None),
        ("zeros", bytes(len(whole)), None),
        ("blank", b"\n" * len(lines), None),
        ("spaces", b" " * 99, None),
        ("reformatted", whole.replace(b":", b": "), None),
    ):
        yield Case("whole file", kind, content, finished_by)


def _damaged(line: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield a line damaged in several ways."""
    middle = len(line) // 2
    yield "one digit", line.replace(b"0", b"1", 1)
    yield "zeros", bytes(len(line) - 1) + b"\n"
    yield "zeros, newline too", bytes(len(line))
    yield "begins in zeros", bytes(middle) + line[middle:]
    yield "ends in zeros", line[:middle] + bytes(len(line) - middle - 1) + b"\n"
    yield "blank", b"\n"
    yield "half of it", line[:middle] + b"\n"
    yield "newline lost", line[:-1]
    yield "checksum lost", line[: line.rfind(b',"crc32"')] + b"}\n"
    yield "other text", b"<<<<<<< HEAD\n"
    yield "an invalid byte", line[:middle] + b"\xff" + line[middle:]


class Damage:
    """The undamaged run, and what was found wrong with damaged versions of it."""

    def __init__(self, folder: Path) -> None:
        """Make the run in a folder."""
        self._folder, self._task = folder, FakeTask(num_epochs=1, fail={2: "diverged"})
        config = replace(configured(NUM_TRIALS), controller=ControllerConfig("random"))
        self.run = run_search(config, out=folder / "whole", task=self._task)
        self.whole = self.run.folder.journal_path.read_bytes()
        self._events = [_event(line) for line in self.whole.splitlines()]
        self.counts: Counter[tuple[str, str]] = Counter()  # by kind of damage and outcome
        self.problems: list[str] = []

    def check(self, case: Case) -> None:
        """Resume and salvage one damaged version."""
        valid = [event for event in self._events if event.text in case.content]
        for mend in (False, True):
            command = "salvage" if mend else "resume"
            folder = self._folder / "run"
            folder.mkdir()
            for name in ("config.json", "run.json"):
                shutil.copyfile(self.run.folder.path / name, folder / name)
            journal = folder / "journal.jsonl"
            journal.write_bytes(case.content)
            said, result = "", None
            try:
                result = resume(folder, mend=mend, task=self._task)
            except UserError as error:
                said = str(error)
            for problem in self._problems(case, command, journal, valid, said, result):
                self.problems.append(f"{case.kind}, {case.where}, {command}: {problem}")
            self.counts[case.kind, f"{command} {'refused' if said else 'finished'}"] += 1
            shutil.rmtree(folder)

    def _problems(
        self, case: Case, command: str, journal: Path, valid: list[_Event], said: str, result: Run | None
    ) -> Iterator[str]:
        now = journal.read_bytes()
        copies = [path.read_bytes() for path in journal.parent.glob("journal.jsonl.*")]
        if not now.startswith(case.content) and case.content not in copies:
            yield "the original bytes are gone"
        events = [_event(line) for line in now.splitlines()]
        missing = [event for event in valid if event.content not in [each.content for each in events]]
        if missing and (command == "resume" or case.content not in copies) and now != case.content:
            yield f"{len(missing)} valid events are gone"
        if command == "resume" and any(event.text not in now for event in valid):
            yield "a valid line is gone"
        if "\n" in said or (case.content and any(word in said for word in ("empty", "remove "))):
            yield f"it says: {said}"
        if command == "salvage" and case.is_finished_by == "resume" and result is None:
            yield f"the run cannot be finished: {said}"
        if command == case.is_finished_by and result is None:
            yield f"the run cannot be finished: {said}"
        if result is not None:
            if outcome(result) != outcome(self.run):
                yield "the results differ from those of the undamaged run"
            # A failure names no network, so it is not kept for a proposal that had to be recomputed.
            asked = {event.number for event in valid if event.kind == "asked"}
            done = {
                event.number for event in valid if event.kind == "told" and (event.number in asked or not event.failed)
            }
            at = next((n for n, event in enumerate(events) if event.kind == "resumed"), len(events))
            again = sorted({event.number for event in events[at:] if event.kind == "started"} & done)
            if again:
                yield f"the finished trials {again} were trained again"


class _Event(NamedTuple):
    text: bytes
    kind: str
    number: int
    failed: bool
    content: str


def _event(line: bytes) -> _Event:
    """Return the event of a line, without what a salvage writes anew: lease, checksum and results known."""
    try:
        data: dict[str, Any] = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except ValueError:
        return _Event(line, "damaged", -1, False, "")
    content = {key: value for key, value in data.items() if key not in ("fence", "crc32", "num_told")}
    number = data["proposal"]["number"] if data["event"] == "asked" else data.get("number", -1)
    return _Event(line, data["event"], number, "failure" in data, json.dumps(content, sort_keys=True))


def check_all(folder: Path, *, sample: bool) -> Damage:
    """Check all damaged versions, or a sample with each kind of damage and every region of the file."""
    damage = Damage(folder)
    seen: Counter[str] = Counter()
    for case in cases(damage.whole):
        seen[case.kind] += 1
        every = 1 if case.kind == "whole file" else 149 if case.kind == "truncated" else 5
        if not sample or seen[case.kind] % every == 0:
            damage.check(case)
    return damage


def main() -> int:
    """Print a table of damages and outcomes, then what was lost; return the number of losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", action="store_true", help="check a few hundred damaged journals")
    given = parser.parse_args()
    os.fsync = lambda descriptor: None  # the machine does not fail here
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        damage = check_all(Path(folder), sample=given.sample)
    outcomes = ["resume finished", "resume refused", "salvage finished", "salvage refused"]
    print(f"| damage | {' | '.join(outcomes)} |")
    print("|---|" + "---|" * len(outcomes))
    for kind in dict.fromkeys(kind for kind, _ in damage.counts):
        print(f"| {kind} | {' | '.join(str(damage.counts[kind, outcome]) for outcome in outcomes)} |")
    print(*damage.problems, sep="\n", end="\n" if damage.problems else "")
    num = damage.counts.total()
    print(f"{num} attempts in {time.monotonic() - began:.0f} s, {len(damage.problems)} losses")
    return len(damage.problems)


if __name__ == "__main__":
    sys.exit(min(1, main()))
