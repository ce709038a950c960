"""The events of a journal: one dataclass per kind, and its JSON form.

| kind | class | fields beside `at` (UTC, ISO 8601) |
|---|---|---|
| run_started | RunStarted | `schema` of the journal, `run`: identity and versions of the run |
| observed | Observed | `genotype`, `evaluation`, `sources`: a result of earlier runs, before anything is asked |
| asked | Asked | `proposal` (JSON), `network_key`, `seed`, `task_key`, `num_told`: results its controller knew |
| started | Started | `number`, `attempt`, `worker`, `device`, `dtype`, `accelerators` (a fraction if shared) |
| epoch | EpochDone | `number`, `attempt`, `epoch`, `metrics` |
| paused | Paused | `number`, `attempt`, `evaluation` at the rung where the trial waits without a worker |
| promoted | Promoted | `number`, `attempt` (the next one), `epoch` of the rung passed, `objective` there; and if the |
| | | controller asked for it, `num_told` as in asked, and `until`, the epoch of its next pause |
| told | Finished | `number`, `attempt`, `status`, and either `evaluation` or `failure` |
| requeued | Requeued | `number`, `attempt` (the next one), `reason`, and where they apply `kind` and `fidelity` |
| refused | Refused | `number`, `attempt`, `reason`: a late or invalid report, which changed nothing |
| resumed | Resumed | `changes`: settings that the run continues with |
| stopped | Stopped | `reason` why the session ended before the run |

To add a kind, write its dataclass here, list it in `Event`, and say in `run_state.py` what the fold does with it.

Workers send Started, EpochDone, Paused and Finished without a time; the driver stamps them. Evaluations in a journal
have no curve: curves are files of their own (`RunFolder.write_curve`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from operator import itemgetter
from typing import Any, ClassVar, get_args

from spinenas.results.record import Evaluation, Failure, FailureKind, Fidelity, Status
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype


@dataclass(frozen=True, slots=True)
class _Event:
    """The time of an event, and its JSON form if its fields are all plain data.

    Attributes:
        at: UTC, ISO 8601; empty until the driver stamps it.
    """

    kind: ClassVar[str]
    __match_args__: ClassVar[tuple[str, ...]]  # set by `dataclass`: names of all fields except `at`
    at: str = field(default="", kw_only=True)

    def to_json(self) -> dict[str, Any]:
        """Return the event as the journal stores it."""
        return {"event": self.kind, "at": self.at, **{name: getattr(self, name) for name in self.__match_args__}}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Any:
        """Read `to_json` output; keys that this version does not know are ignored."""
        try:
            *values, at = _values(cls.__match_args__)(data)  # fast, as journals are long
        except KeyError:  # an older journal lacks a field that has a default
            return cls(**{name: data[name] for name in (*cls.__match_args__, "at") if name in data})
        return cls(*values, at=at)


@dataclass(frozen=True, slots=True)
class _AttemptEvent(_Event):
    """An event of one attempt at a trial."""

    number: int
    attempt: int

    def _with_attempt(self, **fields: Any) -> dict[str, Any]:
        return {"event": self.kind, "at": self.at, "number": self.number, "attempt": self.attempt, **fields}


@cache
def _values(names: tuple[str, ...]) -> Callable[[dict[str, Any]], Iterable[Any]]:
    return itemgetter(*names, "at")


@dataclass(frozen=True, slots=True)
class RunStarted(_Event):
    kind: ClassVar[str] = "run_started"
    schema: str
    run: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"event": self.kind, "schema": self.schema, "at": self.at, "run": self.run}


@dataclass(frozen=True, slots=True)
class Observed(_Event):
    """The mean result of earlier trainings of a network.

    Attributes:
        sources: of each training, the run's folder and the trial's number.
    """

    kind: ClassVar[str] = "observed"
    genotype: Genotype
    evaluation: Evaluation
    sources: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "event": self.kind,
            "genotype": self.genotype.text,
            "evaluation": _without_curve(self.evaluation),
            "sources": list(self.sources),
            "at": self.at,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Observed:
        genotype, evaluation = Genotype.from_text(data["genotype"]), Evaluation.from_json(data["evaluation"])
        return cls(genotype, evaluation, tuple(data["sources"]), at=data["at"])


@dataclass(frozen=True, slots=True)
class Asked(_Event):
    """A new trial.

    Attributes:
        proposal: `Proposal.to_json` of the controller's proposal.
        num_told: results that the controller knew when it proposed this.
    """

    kind: ClassVar[str] = "asked"
    proposal: dict[str, Any]
    network_key: str
    seed: int
    task_key: str
    num_told: int

    @property
    def number(self) -> int:
        """Number of the trial."""
        return int(self.proposal["number"])


@dataclass(frozen=True, slots=True)
class Started(_AttemptEvent):
    """A worker has begun an attempt; a worker on CPUs counts as one accelerator."""

    kind: ClassVar[str] = "started"
    worker: str
    device: str
    dtype: str
    accelerators: float = 1.0


@dataclass(frozen=True, slots=True)
class EpochDone(_AttemptEvent):
    """An epoch, counted from 1, is over."""

    kind: ClassVar[str] = "epoch"
    epoch: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Paused(_AttemptEvent):
    """An attempt has reached the epoch that its job named; its worker is free again."""

    kind: ClassVar[str] = "paused"
    evaluation: Evaluation

    def to_json(self) -> dict[str, Any]:
        return self._with_attempt(evaluation=_without_curve(self.evaluation))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Paused:
        return cls(data["number"], data["attempt"], Evaluation.from_json(data["evaluation"]), at=data["at"])


@dataclass(frozen=True, slots=True)
class Promoted(_AttemptEvent):
    """A paused trial goes on.

    Attributes:
        epoch: the rung it has passed.
        objective: its result there.
        num_told: results that the controller knew when it asked for this; None if halving decided.
        until: epoch at which the controller wants it to pause again; None for the end, or the next rung of halving.
    """

    kind: ClassVar[str] = "promoted"
    epoch: int
    objective: float
    num_told: int | None = None
    until: int | None = None

    def to_json(self) -> dict[str, Any]:
        data = self._with_attempt(epoch=self.epoch, objective=self.objective)
        return data if self.num_told is None else {**data, "num_told": self.num_told, "until": self.until}


@dataclass(frozen=True, slots=True)
class Finished(_AttemptEvent):
    """An attempt is over; in the journal, its trial is over and the controller will be told.

    A worker that reports a Failure of kind worker_lost or preempted means that it ended, not the trial.
    """

    kind: ClassVar[str] = "told"
    result: Evaluation | Failure

    @property
    def status(self) -> Status:
        """Status that the trial has with this result."""
        if isinstance(self.result, Failure):
            return Status.FAILED
        return Status.COMPLETE if self.result.stopped_after is None else Status.PRUNED

    def to_json(self) -> dict[str, Any]:
        if isinstance(self.result, Failure):
            return self._with_attempt(status=str(self.status), failure=self.result.to_json())
        return self._with_attempt(status=str(self.status), evaluation=_without_curve(self.result))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Finished:
        failed = data["status"] == "failed"
        result = Failure.from_json(data["failure"]) if failed else Evaluation.from_json(data["evaluation"])
        event = cls(data["number"], data["attempt"], result, at=data["at"])
        if data["status"] != event.status:
            raise ValueError(f"status is {data['status']!r}, and the result is {event.status}")
        return event


@dataclass(frozen=True, slots=True)
class Requeued(_AttemptEvent):
    """A trial is tried again.

    Attributes:
        failure_kind: how the last attempt failed; None after a stop of the driver.
        fidelity: of the next attempt; None if it does not change.
    """

    kind: ClassVar[str] = "requeued"
    reason: str
    failure_kind: FailureKind | None = None
    fidelity: Fidelity | None = None

    def to_json(self) -> dict[str, Any]:
        data = self._with_attempt(reason=self.reason)
        if self.failure_kind is not None:
            data["kind"] = str(self.failure_kind)
        if self.fidelity is not None:
            data["fidelity"] = self.fidelity.to_json()
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Requeued:
        kind = FailureKind(data["kind"]) if "kind" in data else None
        fidelity = Fidelity.from_json(data["fidelity"]) if "fidelity" in data else None
        return cls(data["number"], data["attempt"], data["reason"], kind, fidelity, at=data["at"])


@dataclass(frozen=True, slots=True)
class Refused(_AttemptEvent):
    kind: ClassVar[str] = "refused"
    reason: str


@dataclass(frozen=True, slots=True)
class Resumed(_Event):
    kind: ClassVar[str] = "resumed"
    changes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stopped(_Event):
    kind: ClassVar[str] = "stopped"
    reason: str


Event = (
    RunStarted
    | Observed
    | Asked
    | Started
    | EpochDone
    | Paused
    | Promoted
    | Finished
    | Requeued
    | Refused
    | Resumed
    | Stopped
)

KINDS: dict[str, Any] = {event.kind: event for event in get_args(Event)}


@dataclass(frozen=True, slots=True)
class Skipped:
    """A line of the journal that is not read or does not count; it keeps the count of lines right.

    Attributes:
        at: time of an event that is not read; empty for a line that does not count.
    """

    at: str = ""


def event_from_json(data: dict[str, Any]) -> Event:
    """Read the `to_json` output of any event. Raises UserError."""
    kind = data["event"]
    of_kind = KINDS.get(kind)
    if of_kind is None:
        raise UserError(f"{kind!r} is no event this version knows")
    try:
        event: Event = of_kind.from_json(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"it is no valid {kind} event: {type(error).__name__} {error}") from error
    return event


def _without_curve(evaluation: Evaluation) -> dict[str, Any]:
    data = evaluation.to_json()
    del data["curve"]
    return data
