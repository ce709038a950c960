"""The state of a run, computed by folding the events of its journal."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from spinenas.results.record import Evaluation, Failure, FailureKind, Fidelity, Stage, Status, TrialRecord
from spinenas.results.storage.events import (
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
)
from spinenas.space.baseline import architecture_from_text
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype

FINISHED = (Status.COMPLETE, Status.PRUNED, Status.FAILED)


_TrialEvent = Asked | Started | EpochDone | Paused | Promoted | Finished | Requeued

_MOVES: dict[tuple[Status | None, type[_TrialEvent]], tuple[Status, ...]] = {
    (None, Asked): (Status.ASKED,),
    (Status.ASKED, Started): (Status.RUNNING,),
    (Status.RUNNING, EpochDone): (Status.RUNNING,),
    (Status.RUNNING, Finished): FINISHED,
    (Status.RUNNING, Requeued): (Status.ASKED,),
    (Status.RUNNING, Paused): (Status.PAUSED,),
    (Status.PAUSED, Promoted): (Status.ASKED,),
    (Status.PAUSED, Finished): FINISHED,
    # A worker can be lost before its start is seen, and an abandoned attempt can still deliver its result.
    (Status.ASKED, Requeued): (Status.ASKED,),
    (Status.ASKED, Paused): (Status.PAUSED,),
    (Status.ASKED, Finished): FINISHED,
}


def next_status(current: Status | None, event: _TrialEvent) -> Status:
    """Return the status of a trial after an event; this alone decides which moves are legal. Raises UserError.

    Args:
        current: status before the event; None for a trial that does not exist yet.
        event: an event of the trial.
    """
    targets = _MOVES.get((current, type(event)), ())
    target = event.status if isinstance(event, Finished) else next(iter(targets), None)
    if target is None or target not in targets:
        word = f"{event.kind} {target}" if target else event.kind
        raise UserError(f"a trial that is {current or 'unknown'} cannot be {word}")
    return target


class RungResult(NamedTuple):
    """Objective of a trial at a rung, an epoch."""

    number: int
    epoch: int
    objective: float


@dataclass(frozen=True, slots=True)
class RunState:
    """The state that the events of a journal add up to.

    Attributes:
        run: identity and versions, from `run_started`.
        resumes: the `changes` of each resumption, in order.
        trials: the records by number, ascending; curves are not in them (`RunFolder.read_curve`).
        told: numbers of finished trials in the order of their results.
        known: by trial number, how many results the controller knew when it proposed the trial.
        proposed_fidelities: proposed fidelity of trials that run at another one, which is in their records.
        losses: by number of a trial that was tried again, its failures by kind.
        rung_results: in order of arrival.
        passed: by number, the last rung after which the trial continued.
        paused: by number, the evaluation of a trial that waits at a rung, without its curve.
        observed: results of earlier runs that it began with.
    """

    run: dict[str, Any] = field(default_factory=dict)
    resumes: list[dict[str, Any]] = field(default_factory=list)
    trials: dict[int, TrialRecord] = field(default_factory=dict)
    told: list[int] = field(default_factory=list)
    known: list[int] = field(default_factory=list)
    proposed_fidelities: dict[int, Fidelity | None] = field(default_factory=dict)
    losses: dict[int, Counter[FailureKind]] = field(default_factory=dict)
    rung_results: list[RungResult] = field(default_factory=list)
    passed: dict[int, int] = field(default_factory=dict)
    paused: dict[int, Evaluation] = field(default_factory=dict)
    observed: list[Observed] = field(default_factory=list)

    @property
    def unfinished(self) -> list[TrialRecord]:
        """Trials without a result, ascending; the status is RUNNING if an attempt had started."""
        return [record for record in self.trials.values() if record.status not in FINISHED]


def without_driver(state: RunState) -> RunState:
    """Return the state of a run that no process works on: its running trials are interrupted."""
    trials = {
        number: replace(record, status=Status.INTERRUPTED) if record.status is Status.RUNNING else record
        for number, record in state.trials.items()
    }
    return replace(state, trials=trials)


def fold(events: Iterable[Event | Skipped], *, source: Path | str = "the journal") -> RunState:
    """Compute the state of a run from its events, of the file `source`.

    Raises UserError naming the line that cannot follow.
    """
    sum_of = Fold()
    was_enabled = gc.isenabled()
    gc.disable()  # these objects have no cycles, and the collector would scan them again and again
    try:
        for event in events:
            sum_of.add(event)
        return sum_of.state(source)
    finally:
        if was_enabled:
            gc.enable()


class Fold:
    """The state of a run while its events are added, one by one.

    Args:
        gaps: allow missing events, as in a damaged journal. Use it only to inspect a run: `known` is then wrong.
    """

    def __init__(self, *, gaps: bool = False) -> None:
        self._gaps = gaps
        self._line = 0
        self._state = RunState()
        self._trials: dict[int, dict[str, Any]] = {}  # fields of a TrialRecord, which is made at the end

    def add(self, event: Event | Skipped) -> None:
        """Take the next event. Raises UserError, without a change, if it cannot follow."""
        try:
            self._add(event)
        except UserError as error:
            raise UserError(f"line {self._line + 1} of the journal does not fit: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"line {self._line + 1} of the journal is no valid event: {type(error).__name__} {error}"
            ) from error
        self._line += 1

    def _add(self, event: Event | Skipped) -> None:
        if isinstance(event, RunStarted) == self.is_begun:
            raise UserError("a journal has one run_started, its first event")
        state = self._state
        match event:
            case EpochDone():  # most events are epochs, which change nothing
                trial = self._trials.get(event.number, {})
                if trial.get("status") is not Status.RUNNING or trial["attempt"] != event.attempt:
                    _advance(trial, event)
            case Skipped():
                pass
            case Started(number):
                _advance(self._trials.get(number, {}), event)
            case Finished(number):
                _advance(self._trials.get(number, {}), event)
                state.told.append(number)
                state.paused.pop(number, None)
            case Requeued(number):
                trial = self._trials.get(number, {})
                fidelity = trial.get("fidelity")
                _advance(trial, event)
                if event.fidelity is not None:
                    state.proposed_fidelities.setdefault(number, fidelity)
                if event.failure_kind is not None:
                    state.losses.setdefault(number, Counter())[event.failure_kind] += 1
            case Paused(number, _, evaluation):
                if evaluation.stopped_after is None:
                    raise UserError(f"trial {number} is paused after no epoch")
                _advance(self._trials.get(number, {}), event)
                state.paused[number] = evaluation
                state.rung_results.append(RungResult(number, evaluation.stopped_after, evaluation.objective))
            case Promoted(number):
                _advance(self._trials.get(number, {}), event)
                state.passed[number] = event.epoch
                del state.paused[number]
            case Asked():
                self._ask(event)
            case RunStarted():
                state.run.update(event.run)
            case Observed():
                if self._trials:
                    raise UserError("a result of earlier runs is observed after a trial was asked")
                state.observed.append(event)
            case Resumed():
                state.resumes.append(event.changes)
            case Refused() | Stopped():
                pass

    def _ask(self, event: Asked) -> None:
        trial, num_trials, known = asked_fields(event), len(self._trials), event.num_told
        number, num_told = trial["number"], len(self._state.told)
        if number != num_trials and (not self._gaps or number in self._trials):
            raise UserError(f"trial {number} is asked after {num_trials} trials; numbers have no gaps")
        if not 0 <= known <= num_told and not self._gaps:
            raise UserError(f"trial {number} was asked knowing {known} results of {num_told}")
        self._trials[number] = trial
        self._state.known.append(known)

    @property
    def is_begun(self) -> bool:
        """Whether the first event was added; there is no state before."""
        return self._line > 0

    def state(self, source: Path | str = "the journal") -> RunState:
        """The state so far, which shares its lists with the fold. Raises UserError before the first event."""
        if not self.is_begun:
            raise UserError(
                f"{source} is empty: the run was stopped before it began, or the file lost its content; restore it "
                "from a copy, or start the search in another folder"
            )
        return replace(self._state, trials={number: TrialRecord(**trial) for number, trial in self._trials.items()})


def asked_fields(event: Asked) -> dict[str, Any]:
    """Return the fields of the TrialRecord that an asked event begins."""
    proposal = event.proposal
    fidelity = proposal["fidelity"]
    architecture = architecture_from_text(proposal["genotype"])
    is_genotype = isinstance(architecture, Genotype)
    return {
        "genotype": architecture if is_genotype else None,
        "network_key": event.network_key,
        "status": next_status(None, event),
        "architecture": "genotype" if is_genotype else architecture.text,
        "fidelity": None if fidelity is None else Fidelity.from_json(fidelity),
        **{name: proposal[name] for name in ("number", "replicate", "continues", "parent", "origin", "info")},
        "stage": Stage(proposal["stage"]),
        "seed": event.seed,
        "attempt": 0,
        "task_key": event.task_key,
        "asked_at": event.at,
    }


def _advance(trial: dict[str, Any], event: Started | EpochDone | Paused | Promoted | Finished | Requeued) -> None:
    """Apply an event to the fields of its trial."""
    attempt = event.attempt
    status = next_status(trial.get("status"), event)
    late = isinstance(event, Finished) and 0 <= attempt < trial["attempt"]
    if not late and attempt != trial["attempt"] + isinstance(event, (Requeued, Promoted)):
        raise UserError(f"trial {trial['number']} is in attempt {trial['attempt']}, {event.kind} names {attempt}")
    trial["status"], trial["attempt"] = status, attempt
    match event:
        case Started():
            trial.update(started_at=event.at, worker=event.worker, device=event.device, dtype=event.dtype)
        case Requeued() if event.fidelity is not None:
            trial["fidelity"] = event.fidelity
        case Finished():
            trial["finished_at"] = event.at
            trial["failure" if isinstance(event.result, Failure) else "evaluation"] = event.result
