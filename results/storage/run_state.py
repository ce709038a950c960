"""The state of a run, computed by folding the events of its journal."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from spinenas.results.record import Evaluation, Failure, FailureKind, Fidelity, Status, TrialRecord
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
from spinenas.results.storage.trial_moves import FINISHED, advance, asked_fields
from spinenas.space.errors import UserError


class Step(NamedTuple):
    """One request of the controller: a new trial, or more epochs of a paused one.

    Attributes:
        number: of the trial.
        known: how many results the controller knew before it.
        continues_until: epoch at which a continued trial pauses again, None for the end; NEW for a new trial, and ENDED
            for a paused trial that no request continued, and that ended when the budget was spent.
    """

    number: int
    known: int
    continues_until: int | None


NEW, ENDED = -1, -2

BUDGET_KEYS = {"num_trials", "epochs", "max_accelerator_hours"}
"""Changes of a resumption that may let a search go on."""


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
        steps: requests of the controller, in order. Without pauses that it asked for, there is one for each trial.
        results: (index in `steps`, result) for each result of the controller's, in the order of their arrival. A trial
            that it paused has one for each rung.
        proposed_fidelities: proposed fidelity of trials that run at another one, which is in their records.
        losses: by number of a trial that was tried again, its failures by kind.
        rung_results: in order of arrival.
        passed: by number, the last rung after which the trial continued.
        paused: by number, the evaluation of a trial that waits at a rung, without its curve.
        until: by number of an open trial that its controller has paused or will pause, the epoch.
        is_ending: whether trials that the controller paused have ended, because no further step was to come. A
            resumption with another budget sets it back.
        observed: results of earlier runs that it began with.
    """

    run: dict[str, Any] = field(default_factory=dict)
    resumes: list[dict[str, Any]] = field(default_factory=list)
    trials: dict[int, TrialRecord] = field(default_factory=dict)
    told: list[int] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    results: list[tuple[int, Evaluation | Failure]] = field(default_factory=list)
    proposed_fidelities: dict[int, Fidelity | None] = field(default_factory=dict)
    losses: dict[int, Counter[FailureKind]] = field(default_factory=dict)
    rung_results: list[RungResult] = field(default_factory=list)
    passed: dict[int, int] = field(default_factory=dict)
    paused: dict[int, Evaluation] = field(default_factory=dict)
    until: dict[int, int] = field(default_factory=dict)
    is_ending: bool = False
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


def with_pauses(state: RunState) -> RunState:
    """Return the state of a run in which the records of unfinished trials hold the results of their latest pause."""
    if not state.unfinished:
        return state
    latest = {state.steps[step].number: result for step, result in state.results if isinstance(result, Evaluation)}
    latest |= state.paused
    trials = {
        number: replace(record, evaluation=latest[number])
        if record.status not in FINISHED and number in latest
        else record
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
        self._steps: dict[int, int] = {}  # by trial, its latest step
        self._is_ending = False

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
                    advance(trial, event)
            case Skipped():
                pass
            case Started(number):
                advance(self._trials.get(number, {}), event)
            case Finished(number):
                advance(self._trials.get(number, {}), event)
                if state.paused.pop(number, None) is not None and number in state.until:
                    self._add_step(Step(number, len(state.results), ENDED))
                state.until.pop(number, None)
                state.told.append(number)
                state.results.append((self._steps[number], event.result))
            case Requeued(number):
                trial = self._trials.get(number, {})
                fidelity = trial.get("fidelity")
                advance(trial, event)
                if event.fidelity is not None:
                    state.proposed_fidelities.setdefault(number, fidelity)
                if event.failure_kind is not None:
                    state.losses.setdefault(number, Counter())[event.failure_kind] += 1
            case Paused(number, _, evaluation):
                if evaluation.stopped_after is None:
                    raise UserError(f"trial {number} is paused after no epoch")
                advance(self._trials.get(number, {}), event)
                state.paused[number] = evaluation
                if number in state.until:
                    state.results.append((self._steps[number], evaluation))
                    return
                state.rung_results.append(RungResult(number, evaluation.stopped_after, evaluation.objective))
            case Promoted(number):
                if event.num_told is not None:
                    self._check_known(number, event.num_told)
                advance(self._trials.get(number, {}), event)
                state.passed[number] = event.epoch
                del state.paused[number]
                if event.num_told is not None:
                    self._add_step(Step(number, event.num_told, event.until))
                    self._pauses_at(number, event.until)
            case Asked():
                self._ask(event)
            case RunStarted():
                state.run.update(event.run)
            case Observed():
                if self._trials:
                    raise UserError("a result of earlier runs is observed after a trial was asked")
                state.observed.append(event)
            case Resumed(changes):
                state.resumes.append(changes)
                self._is_ending = self._is_ending and not BUDGET_KEYS & changes.keys()
            case Refused() | Stopped():
                pass

    def _ask(self, event: Asked) -> None:
        trial, num_trials = asked_fields(event), len(self._trials)
        number = trial["number"]
        if number != num_trials and (not self._gaps or number in self._trials):
            raise UserError(f"trial {number} is asked after {num_trials} trials; numbers have no gaps")
        self._check_known(number, event.num_told)
        self._trials[number] = trial
        self._add_step(Step(number, event.num_told, NEW))
        self._pauses_at(number, trial["until"])

    def _check_known(self, number: int, known: int) -> None:
        num_results = len(self._state.results)
        if not 0 <= known <= num_results and not self._gaps:
            raise UserError(f"trial {number} was asked knowing {known} results of {num_results}")

    def _add_step(self, step: Step) -> None:
        self._steps[step.number] = len(self._state.steps)
        self._state.steps.append(step)
        self._is_ending = step.continues_until == ENDED

    def _pauses_at(self, number: int, until: int | None) -> None:
        if until is None:
            self._state.until.pop(number, None)
        else:
            self._state.until[number] = until

    @property
    def results(self) -> list[tuple[int, Evaluation | Failure]]:
        """`RunState.results` so far."""
        return self._state.results

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
        trials = {number: TrialRecord(**trial) for number, trial in self._trials.items()}
        return replace(self._state, trials=trials, is_ending=self._is_ending)
