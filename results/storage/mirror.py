"""A second copy of a run on storage that outlives its machine: an object store, or any path pyarrow can write.

    config.toml, config.json, run.json
    journal/OFFSET.FENCE.jsonl    a piece of the journal: its bytes from OFFSET on, written by the owner FENCE
    trials/NNNNNN/                curve.json, and the checkpoint of a trial that runs
    owner.json                    record of the owner (`ownership.py`), with its fencing number

Object stores cannot append, so the journal is stored in pieces, which are merged from time to time. Pieces are
ordered by owner and offset. Those of a later owner replace everything from their first offset on, including what an
earlier owner wrote after it had lost the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from spinenas.results.storage import ownership
from spinenas.results.storage.atomic_write import write_bytes_atomically
from spinenas.results.storage.journal_rescue import keep_copy
from spinenas.results.storage.object_store import Store
from spinenas.results.storage.ownership import Heartbeat, Owner, held, lost, owner_record, parse_owner
from spinenas.space.errors import UserError, explained_os_errors

SCHEMA = "spinenas-mirror/1"

MERGE_AFTER = 64
"""Number of journal pieces that are merged into one."""

SETTLE_SECONDS = 1.0
"""How long a new owner waits before it checks whether another one took the run at the same time."""

RUN_FILES = ("config.toml", "config.json", "run.json")


class Mirror:
    """The copy of one run; this process owns it between `acquire` and `release`."""

    def __init__(self, uri: str) -> None:
        """Take the URI of the mirror. Raises UserError if it cannot be opened."""
        self.store = Store(uri)
        self._fence = 0
        self._length = 0
        self._there = b""  # the stored journal, as read by `catch_up`
        self._pieces: list[tuple[_Piece, bytes]] = []  # written by this owner since the last merge
        self._count = 0
        self._lost: UserError | None = None
        self._heartbeat: Heartbeat | None = None

    def holds_run(self) -> bool:
        """Whether the mirror holds a run with a journal. Raises UserError."""
        return self.store.read("config.json") is not None and bool(self.store.names("journal"))

    def restore(self, folder: Path) -> None:
        """Copy the run, without checkpoints, to a folder that does not exist yet. Raises UserError."""
        target = folder.absolute()
        partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
        problem = f"cannot bring {self.store.uri} back to {folder}"
        try:
            with explained_os_errors(problem, "choose a folder that can be written"):
                (partial / "trials").mkdir(parents=True)
                for name in RUN_FILES:
                    write_bytes_atomically(partial / name, self.store.read(name) or b"")
                write_bytes_atomically(partial / "journal.jsonl", self.journal())
                self._bring_curves(partial)
                os.rename(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # it is gone after success

    def _bring_curves(self, folder: Path) -> None:
        """Copy the curves that a run's folder lacks. Raises UserError, OSError."""
        names = [name for name in self.store.names("trials") if name.endswith("/curve.json")]
        missing = [name for name in names if not (folder / name).exists()]
        with ThreadPoolExecutor(max_workers=16) as pool:  # each read of an object store has a high latency
            for name, data in zip(missing, pool.map(self.store.read, missing), strict=True):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data or b"[]")

    def journal(self) -> bytes:
        """Join the pieces of the journal. Raises UserError if one is missing."""
        return self._put_together()[0]

    def _put_together(self) -> tuple[bytes, int]:
        """Return the journal and the highest fencing number in it."""
        pieces = []
        for name in self.store.names("journal"):
            offset_text, fence_text, _ = name.removeprefix("journal/").split(".")
            pieces.append(_Piece(int(offset_text), int(fence_text)))
        data = bytearray()
        fence = 0
        for piece in sorted(pieces, key=lambda piece: (piece.fence, piece.offset)):
            content = self.store.read(piece.name)
            if content is None:  # merged into another piece meanwhile
                continue
            if piece.fence == fence and piece.offset + len(content) <= len(data):
                continue  # merged already
            if piece.offset > len(data):
                raise UserError(
                    f"{self.store.uri} lacks its journal from byte {len(data)} to {piece.offset}; "
                    "restore it from a copy"
                )
            fence = piece.fence
            del data[piece.offset :]
            data += content
        return bytes(data), fence

    def acquire(self, *, on_wait: Callable[[str], None]) -> int:
        """Become the owner, and return a fencing number above those of all earlier owners. Raises UserError.

        Args:
            on_wait: told why this takes up to EXPIRY_SECONDS, if it does.
        """
        ownership.wait_for_end(self, on_wait=on_wait, poll_seconds=2.0)
        self._fence = self.read_owner().get("fence", 0) + 1  # another process may have owned it meanwhile
        self._write_owner(released=False)
        time.sleep(SETTLE_SECONDS)
        if (seen := self.read_owner()) != self._record(released=False):
            raise held(self.place, seen)
        return self._fence

    def catch_up(self, journal_path: Path, fence: int, *, note: Callable[[str], None]) -> None:
        """Copy to the run's folder what was written elsewhere. Raises UserError.

        If the journals differ, the one of the later owner counts. For the same owner the mirror counts: nothing
        depends on lines that it lacks. A copy of the run's journal is kept if it holds bytes that the mirror lacks.

        Args:
            journal_path: the run's journal.
            fence: highest fencing number in it.
            note: told where the copy is.
        """
        self._there, fence_there = self._put_together()
        here = journal_path.read_bytes()
        if fence > fence_there or here.startswith(self._there):
            return
        if not self._there.startswith(here):
            note(
                f"{journal_path} was replaced by its mirror's; the file as it was is kept as {keep_copy(journal_path)}"
            )
        with explained_os_errors(f"cannot write {journal_path.parent}", "make it writable, with room on its disk"):
            write_bytes_atomically(journal_path, self._there)
            self._bring_curves(journal_path.parent)

    def begin(self, fence: int, folder: Path) -> None:
        """Update the mirror from the run, after `catch_up`, and start the heartbeat. Raises UserError.

        Args:
            fence: number that the journal is written with from now on; at least that of `acquire`.
            folder: the run.
        """
        self._fence = fence
        self._write_owner(released=False)
        for name in RUN_FILES:
            if (folder / name).exists() and (data := (folder / name).read_bytes()) != self.store.read(name):
                self.store.write(name, data)
        there, here = self._there, (folder / "journal.jsonl").read_bytes()
        self._there = b""
        if there != here:
            self._length = len(there) if here.startswith(there) else 0
            self.push(here[self._length :])
        self._length = len(here)
        self._heartbeat = Heartbeat("mirror", self._beat)

    def push(self, data: bytes) -> None:
        """Write the next bytes of the journal; they are stored when this returns. Raises UserError."""
        if self._lost is not None:
            raise self._lost
        piece = _Piece(self._length, self._fence)
        self.store.write(piece.name, data)
        self._length += len(data)
        self._pieces.append((piece, data))
        if len(self._pieces) >= MERGE_AFTER:
            first = self._pieces[0][0]
            self.store.write(first.name, b"".join(content for _, content in self._pieces))
            for piece, _ in self._pieces[1:]:
                self.store.remove(piece.name)
            self._pieces = []

    def release(self) -> None:
        """Release the run; another process may take it at once."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
        if self._lost is None and self._fence:
            with contextlib.suppress(UserError):
                self._write_owner(released=True)

    @property
    def place(self) -> str:
        """URI of the mirror."""
        return self.store.uri

    def read_owner(self) -> Owner:
        """Read the record of the last owner; empty if there is none. Raises UserError."""
        return parse_owner(self.store.read("owner.json") or b"{}")

    def lives_here(self, owner: Owner) -> bool | None:
        """False if the owner's process is gone; None otherwise, as another process may have its id by now."""
        try:
            os.kill(owner["pid"], 0)
        except ProcessLookupError:
            return False
        except OSError:
            return None
        return None

    def _beat(self, count: int) -> None:
        if self._lost is not None:
            return
        self._count = count
        with contextlib.suppress(UserError):  # a push will say what is wrong
            owner, own = self.read_owner(), self._record(released=False)
            is_own = all(owner.get(name) == own[name] for name in ("host", "boot", "pid"))
            if owner.get("fence", 0) > self._fence or (owner.get("fence") == self._fence and not is_own):
                self._lost = lost(self.place, owner)
                return
            self._write_owner(released=False)

    def _record(self, *, released: bool) -> Owner:
        return owner_record(SCHEMA, fence=self._fence, count=self._count, released=released)

    def _write_owner(self, *, released: bool) -> None:
        self.store.write("owner.json", json.dumps(self._record(released=released)).encode())


@dataclass(frozen=True, slots=True)
class _Piece:
    offset: int
    fence: int

    @property
    def name(self) -> str:
        return f"journal/{self.offset:015d}.{self.fence:06d}.jsonl"
