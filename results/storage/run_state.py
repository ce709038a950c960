"""The state of a run: what the events of its journal add up to. Knows nothing of files or of how trials are run."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from spinenas.results.record import Evaluation, Failure, FailureKind, Fidelity, Stage, Status, TrialRecord
from spinenas.space.baseline import architecture_from_text
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype

FINISHED = (Status.COMPLETE, Status.PRUNED, Status.FAILED)


_MOVES = {
    (None, "asked"): (Status.ASKED,),
    (Status.ASKED, "started"): (Status.RUNNING,),
    (Status.RUNNING, "epoch"): (Status.RUNNING,),
    (Status.RUNNING, "told"): FINISHED,
    (Status.RUNNING, "requeued"): (Status.ASKED,),
    (Status.RUNNING, "paused"): (Status.PAUSED,),
    (Status.PAUSED, "promoted"): (Status.ASKED,),
    (Status.PAUSED, "told"): FINISHED,
    # A worker can be lost before its start was seen, and an attempt that was given up can still bring its result.
    (Status.ASKED, "requeued"): (Status.ASKED,),
    (Status.ASKED, "paused"): (Status.PAUSED,),
    (Status.ASKED, "told"): FINISHED,
}


def next_status(current: Status | None, event: dict[str, Any]) -> Status:
    """Where a trial stands after an event; the one place that says which moves are legal. Raises UserError.

    Args:
        current: where it stood; None for a trial that does not exist yet.
        event: an event that concerns a trial.
    """
    targets = _MOVES.get((current, event["event"]), ())
    target = Status(event["status"]) if event["event"] == "told" else next(iter(targets), None)
    if target is None or target not in targets:
        word = f"{event['event']} {target}" if target else event["event"]
        raise UserError(f"a trial that is {current or 'unknown'} cannot be {word}")
    return target


class RungResult(NamedTuple):
    """What a trial had reached at a rung, an epoch."""

    number: int
    epoch: int
    objective: float


class Observation(NamedTuple):
    """A result of earlier runs, the mean of some trainings of a network; each source is a run's folder and a number."""

    genotype: Genotype
    evaluation: Evaluation
    sources: tuple[str, ...]

    def to_event(self) -> dict[str, Any]:
        """Return it as the journal has it, but for the time."""
        evaluation = self.evaluation.to_json()
        del evaluation["curve"]
        return {
            "event": "observed",
            "genotype": self.genotype.text,
            "evaluation": evaluation,
            "sources": list(self.sources),
        }

    @classmethod
    def of_event(cls, event: dict[str, Any]) -> Observation:
        """Read what `to_event` gave."""
        genotype = Genotype.from_text(event["genotype"])
        return cls(genotype, Evaluation.from_json(event["evaluation"]), tuple(event["sources"]))


@dataclass(frozen=True, slots=True)
class RunState:
    """What the events of a journal add up to.

    Attributes:
        run: what `run_started` said.
        resumes: the `changes` of each resumption, in order.
        trials: the records by number, ascending; curves are not in them (`RunFolder.read_curve`).
        told: the numbers of finished trials in the order in which their results came.
        known: by trial number, how many results its controller had been told when it was asked.
        proposed_fidelities: of trials that run at another one than proposed, which is in their records.
        losses: of trials that were tried again, how often because of which failure.
        rung_results: in the order in which they came.
        passed: of trials that went on after a rung, the last one.
        paused: by number, what the trials have that wait at a rung, without curves.
        observed: what was known of earlier runs when it began.
    """

    run: dict[str, Any]
    resumes: tuple[dict[str, Any], ...]
    trials: dict[int, TrialRecord]
    told: tuple[int, ...]
    known: tuple[int, ...]
    proposed_fidelities: dict[int, Fidelity | None]
    losses: dict[int, Counter[FailureKind]]
    rung_results: tuple[RungResult, ...] = ()
    passed: dict[int, int] = field(default_factory=dict)
    paused: dict[int, Evaluation] = field(default_factory=dict)
    observed: tuple[Observation, ...] = ()

    @property
    def unfinished(self) -> list[TrialRecord]:
        """Trials without an outcome, ascending; status RUNNING where one had been started."""
        return [record for record in self.trials.values() if record.status not in FINISHED]


def fold(events: Iterable[dict[str, Any]]) -> RunState:
    """Add events up to the state of the run. Raises UserError naming the line that cannot follow."""
    sum_of = Fold()
    was_enabled = gc.isenabled()
    gc.disable()  # what is made here has no cycles, and the collector would look through it over and over
    try:
        for event in events:
            sum_of.add(event)
        return sum_of.state()
    finally:
        if was_enabled:
            gc.enable()


class Fold:
    """The state of a run while its events are added, one by one.

    Args:
        gaps: whether events may be missing, as where lines of the journal are broken; for looking at a run, as what was
            known when is then not right.
    """

    def __init__(self, *, gaps: bool = False) -> None:
        self._gaps = gaps
        self._line = 0
        self._run: dict[str, Any] | None = None
        self._resumes: list[dict[str, Any]] = []
        self._trials: dict[int, dict[str, Any]] = {}  # fields of a TrialRecord, which is made once, at the end
        self._told: list[int] = []
        self._known: list[int] = []
        self._proposed_fidelities: dict[int, Fidelity | None] = {}
        self._losses: dict[int, Counter[FailureKind]] = {}
        self._rung_results: list[RungResult] = []
        self._passed: dict[int, int] = {}
        self._paused: dict[int, Evaluation] = {}
        self._observed: list[Observation] = []

    def add(self, event: dict[str, Any]) -> None:
        """Take the next event. Raises UserError, and is as before, if it cannot follow."""
        kind = event["event"]
        try:
            self._add(kind, event)
        except UserError as error:
            raise UserError(f"line {self._line + 1} of the journal does not fit: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"line {self._line + 1} of the journal is no valid {kind} event: {type(error).__name__} {error}"
            ) from error
        self._line += 1

    def _add(self, kind: str, event: dict[str, Any]) -> None:
        if (kind == "run_started") != (self._line == 0):
            raise UserError("a journal has one run_started, its first event")
        if kind == "epoch":  # most lines are, and they change nothing
            trial = self._trials.get(event["number"], {})
            if trial.get("status") is not Status.RUNNING or trial["attempt"] != event["attempt"]:
                _advance(trial, event)
        elif kind in ("started", "told", "requeued"):
            trial = self._trials.get(event["number"], {})
            fidelity = trial.get("fidelity")
            failure = FailureKind(event["kind"]) if "kind" in event else None
            _advance(trial, event)
            if kind == "told":
                self._told.append(event["number"])
                self._paused.pop(event["number"], None)
            if "fidelity" in event:
                self._proposed_fidelities.setdefault(event["number"], fidelity)
            if failure is not None:
                self._losses.setdefault(event["number"], Counter())[failure] += 1
        elif kind == "paused":
            evaluation = Evaluation.from_json(event["evaluation"])
            if evaluation.stopped_after is None:
                raise UserError(f"trial {event['number']} is paused after no epoch")
            _advance(self._trials.get(event["number"], {}), event)
            self._paused[event["number"]] = evaluation
            self._rung_results.append(RungResult(event["number"], evaluation.stopped_after, evaluation.objective))
        elif kind == "promoted":
            epoch = event["epoch"]
            _advance(self._trials.get(event["number"], {}), event)
            self._passed[event["number"]] = epoch
            del self._paused[event["number"]]
        elif kind == "asked":
            trial = _asked(event)
            number = trial["number"]
            if number != len(self._trials) and (not self._gaps or number in self._trials):
                raise UserError(f"trial {number} is asked after {len(self._trials)} trials; numbers have no gaps")
            known = event["num_told"]
            if not 0 <= known <= len(self._told) and not self._gaps:
                raise UserError(f"trial {number} was asked knowing {known} results of {len(self._told)}")
            self._trials[number] = trial
            self._known.append(known)
        elif kind == "run_started":
            self._run = event["run"]
        elif kind == "observed":
            if self._trials:
                raise UserError("what earlier runs knew is observed after a trial was asked")
            self._observed.append(Observation.of_event(event))
        elif kind == "resumed":
            self._resumes.append(event["changes"])
        elif kind not in ("stale", "unread", "refused", "stopped"):
            raise UserError(f"{kind!r} is no event this version knows")

    @property
    def is_begun(self) -> bool:
        """Whether it has had its first event, without which there is no state."""
        return self._run is not None

    def state(self) -> RunState:
        """What it adds up to so far. Raises UserError before the first event."""
        if self._run is None:
            raise UserError(
                "the journal is empty: the run was stopped before it began; remove its folder and start it again"
            )
        return RunState(
            run=self._run,
            resumes=tuple(self._resumes),
            trials={number: TrialRecord(**trial) for number, trial in self._trials.items()},
            told=tuple(self._told),
            known=tuple(self._known),
            proposed_fidelities=dict(self._proposed_fidelities),
            losses={number: Counter(of_kind) for number, of_kind in self._losses.items()},
            rung_results=tuple(self._rung_results),
            passed=dict(self._passed),
            paused=dict(self._paused),
            observed=tuple(self._observed),
        )


def _asked(event: dict[str, Any]) -> dict[str, Any]:
    """Fields of a fresh TrialRecord from an asked event."""
    proposal = event["proposal"]
    fidelity = proposal["fidelity"]
    architecture = architecture_from_text(proposal["genotype"])
    is_genotype = isinstance(architecture, Genotype)
    return {
        "number": proposal["number"],
        "genotype": architecture if is_genotype else None,
        "network_key": event["network_key"],
        "status": next_status(None, event),
        "architecture": "genotype" if is_genotype else architecture.text,
        "fidelity": None if fidelity is None else Fidelity.from_json(fidelity),
        "replicate": proposal["replicate"],
        "stage": Stage(proposal["stage"]),
        "continues": proposal["continues"],
        "parent": proposal["parent"],
        "origin": proposal["origin"],
        "info": proposal["info"],
        "seed": event["seed"],
        "attempt": 0,
        "task_key": event["task_key"],
        "asked_at": event["at"],
    }


def _advance(trial: dict[str, Any], event: dict[str, Any]) -> None:
    """Change the fields of a trial as an event about it says."""
    kind, attempt = event["event"], event["attempt"]
    status = next_status(trial.get("status"), event)
    late = kind == "told" and 0 <= attempt < trial["attempt"]
    if not late and attempt != trial["attempt"] + (kind in ("requeued", "promoted")):
        raise UserError(f"trial {trial['number']} is in attempt {trial['attempt']}, {kind} names {attempt}")
    trial["status"], trial["attempt"] = status, attempt
    if kind == "started":
        trial.update(started_at=event["at"], worker=event["worker"], device=event["device"], dtype=event["dtype"])
    elif kind == "requeued":
        if "fidelity" in event:
            trial["fidelity"] = Fidelity.from_json(event["fidelity"])
    elif kind == "told":
        trial["finished_at"] = event["at"]
        if status is Status.FAILED:
            trial["failure"] = Failure.from_json(event["failure"])
        else:
            trial["evaluation"] = Evaluation.from_json(event["evaluation"])
