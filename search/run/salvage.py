"""Repairs a journal that is damaged in the middle: keeps valid lines, recomputes lost proposals, drops the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spinenas.controller.base import Continuation, Proposal, SpaceExhausted
from spinenas.results.record import Evaluation
from spinenas.results.storage.atomic_write import write_bytes_atomically
from spinenas.results.storage.events import (
    Asked,
    Event,
    Finished,
    Paused,
    Promoted,
    RunStarted,
    Started,
    event_from_json,
)
from spinenas.results.storage.journal import SCHEMA, Journal
from spinenas.results.storage.journal_lines import decode, encode, events_within
from spinenas.results.storage.journal_rescue import keep_copy
from spinenas.results.storage.run_folder import RunFolder
from spinenas.results.storage.run_state import Fold
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.loading import with_changes
from spinenas.search.run.components import mirror_of, ordered_window, search_controller
from spinenas.search.run.controller_replay import replay_into
from spinenas.search.run.driver import trial_seed
from spinenas.search.run.identity import identity
from spinenas.space.errors import UserError, explained_os_errors


def salvage(path: Path, config: SearchConfig, note: Callable[[str], None] = lambda text: None) -> str:
    """Rewrite a journal without its damaged lines, and return what was done in a sentence. Raises UserError.

    A trial whose result is lost is trained again. A lost proposal or continuation is recomputed by a fresh controller
    from the remaining results. If the new proposal is another network, the result of the lost one is dropped. A lost
    first line is rebuilt from config.json and run.json. A copy of the damaged journal is kept.

    Args:
        path: the journal; no other process may have the run open.
        config: of the run; the journal of its mirror is used if it is valid.
        note: told what else was changed.
    """
    with Journal.open(path, mirror=mirror_of(config), note=note) as journal:
        lines = path.read_bytes().splitlines(keepends=True)
        work = _Work(config, _rebuilt_start(path, config, lines))
        for line in lines:
            work.add_line(line)
        if not work.num_damaged:
            return f"{path} is valid, there is nothing to salvage"
        if not work.kept:
            raise UserError(
                f"nothing of {path} can be kept, its first line is damaged and no trial follows; restore it from a "
                "copy, or start the search in another folder"
            )
        copy = journal.copy or keep_copy(path)
        with explained_os_errors(f"cannot write {path}", "make room and try again"):
            write_bytes_atomically(path, b"".join(encode(event.to_json(), journal.fence) for event in work.kept))
    return (
        f"damaged lines removed: {work.num_damaged}; lost proposals recomputed: {work.num_recovered}; valid lines "
        f"dropped that no longer fitted: {work.num_dropped}; the damaged journal is kept as {copy}"
    )


def _rebuilt_start(path: Path, config: SearchConfig, lines: Sequence[bytes]) -> RunStarted | None:
    """Return the first event of the run, made from its other files and its first proposal; None without a proposal."""
    asked = next((event for line in lines for event in _events_of(line) if event["event"] == "asked"), None)
    if asked is None:
        return None
    info = RunFolder(path.parent).run_info()
    run = identity(config, data=info.get("data"), task_key=asked.get("task_key"))
    prior = {"prior": info["prior"]} if "prior" in info else {}
    return RunStarted(SCHEMA, run | {"versions": info.get("versions", {})} | prior, at=asked["at"])


def _events_of(line: bytes) -> list[dict[str, Any]]:
    """Return the JSON of the events in a line, valid or damaged."""
    data = decode(line, checked=False)
    return events_within(line) if data is None else [data]


class _Work:
    """The repaired journal: the events kept so far and their state.

    Attributes:
        kept: the events kept so far.
        checked: whether lines have checksums.
        num_damaged: lines that could not be read.
        num_dropped: valid lines that no longer fit, such as the rest of a trial whose proposal is lost.
        num_recovered: lost proposals and continuations that the controller recomputed.
    """

    def __init__(self, config: SearchConfig, start: RunStarted | None):
        self.kept: list[Event] = []
        self.checked = False
        self.num_damaged = self.num_dropped = self.num_recovered = 0
        self._fold = Fold()
        self._start = start  # for a journal that has lost its first line
        self._config, self._window = config, ordered_window(config.executor)
        self._num_asked = 0
        self._answered: set[int] = set()  # steps with results
        self._paused: dict[int, int] = {}  # attempts of the trials that the controller has paused, by number
        self._active: set[int] = set()  # trials without a result that are not paused by the controller
        self._num_in_order = 0  # steps before the first without a result
        self._fence = 0
        self._known_at_damage: int | None = None  # results that the controller knew at the last damaged line
        self._recovered: dict[int, str] = {}  # network keys of recomputed proposals, by number

    def add_line(self, line: bytes) -> None:
        """Process the next line of the damaged journal."""
        data = decode(line, checked=self.checked)
        if data is None:
            self.num_damaged += 1
            self._known_at_damage = self._num_known()
            for event in events_within(line):
                self._take(event)
            return
        self._take(data)

    def _take(self, data: dict[str, Any]) -> None:
        self.checked = "crc32" in data
        if data.get("fence", 0) < self._fence:
            return  # written by a driver that had lost the run
        self._fence = data.get("fence", 0)
        try:
            event = event_from_json(data)
        except UserError:
            self.num_dropped += 1
            return
        self._add(event)

    def _add(self, event: Event) -> None:
        if not self.kept and self._start is not None and not isinstance(event, RunStarted):
            self._keep(self._start)
        number = event.number - 1 if isinstance(event, Asked) else getattr(event, "number", -1)
        while number >= self._num_asked and self._recover(event.at):
            pass
        if isinstance(event, Started | Paused | Finished) and event.attempt == self._paused.get(number, -1) + 1:
            self._recover(event.at, continued=number)
        if isinstance(event, Asked | Promoted) and event.num_told is not None:
            # Some of the results that its controller knew may be lost.
            event = replace(event, num_told=min(event.num_told, self._num_known()))
        if isinstance(event, Finished) and number in self._paused and self._active:
            self.num_dropped += 1  # paused trials end last, and a trial before is without its result now
            return
        key = self._recovered.get(number)
        if key and isinstance(event, Paused | Finished) and _network_key(event) != key:
            self.num_dropped += 1  # the result is of the lost proposal, whose network differs from the recomputed one
            return
        self._keep(event)

    def _keep(self, event: Event) -> None:
        try:
            self._fold.add(event)
        except UserError:
            self.num_dropped += 1
            return
        match event:
            case RunStarted():
                event = replace(event, schema=SCHEMA)
            case Asked():
                self._num_asked += 1
                self._active.add(event.number)
            case Paused(number):
                if self._config.pauses_trainings:
                    self._paused[number] = event.attempt
                    self._active.discard(number)
            case Promoted(number):
                self._paused.pop(number, None)
                self._active.add(number)
            case Finished(number):
                self._paused.pop(number, None)
                self._active.discard(number)
        self.kept.append(event)

    def _num_known(self) -> int:
        """Number of results that a controller can know now. In an ordered run, these precede the first gap."""
        results = self._fold.results
        if self._window is None:
            return len(results)
        self._answered.update(step for step, _ in results[len(self._answered) :])
        while self._num_in_order in self._answered:
            self._num_in_order += 1
        return self._num_in_order

    def _recover(self, at: str, *, continued: int | None = None) -> bool:
        """Recompute the first lost step of the controller, and return whether that succeeded.

        Args:
            at: time of the step.
            continued: number of the paused trial that the lost step continues; None for the step before a lost trial.
        """
        if self._known_at_damage is None or not self.kept:
            return False
        known = self._known_at_damage
        state = self._fold.state()
        if self._window is not None:
            last = state.steps[-1].known if state.steps else 0
            known = min(known, max(last, len(state.steps) - self._window + 1))
        controller = search_controller(with_changes(self._config, state.resumes), state.run.get("prior", ()))
        replay_into(controller, state, ordered=self._window is not None, known=known)
        try:
            step = controller.ask()
        except SpaceExhausted:
            return False
        if step is None or (continued is not None and (step.number != continued or isinstance(step, Proposal))):
            return False
        num_kept = len(self.kept)
        if isinstance(step, Continuation):
            if (paused := state.paused.get(step.number)) is None or paused.stopped_after is None:
                return False
            attempt = state.trials[step.number].attempt + 1
            self._keep(Promoted(step.number, attempt, paused.stopped_after, paused.objective, known, step.until, at=at))
        else:
            key = step.network_key
            self._recovered[step.number] = key
            seed = trial_seed(self._config.seed, key, step.replicate)
            self._keep(Asked(step.to_json(), key, seed, state.run["task_key"], known, at=at))
        self.num_recovered += len(self.kept) - num_kept
        return len(self.kept) > num_kept


def _network_key(event: Paused | Finished) -> str | None:
    """Key of the network that was trained; None for a failure."""
    result = event.evaluation if isinstance(event, Paused) else event.result
    return result.network_key if isinstance(result, Evaluation) else None
