"""Interface between a controller and the code that runs it: ask and tell. A controller never trains anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

from spinenas.results.record import Evaluation, Failure, FailureKind, Fidelity, Stage, TrialRecord
from spinenas.space.baseline import Architecture, architecture_from_text
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key

ASSUMED_NUM_TRIALS = 1000
"""Budget for which options of None are resolved if the actual budget is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerOptions:
    """Options of a controller; `spinenas.controller.registry` lists the subclasses.

    The configuration's tables, help and documentation are generated from their fields and from the "Attributes" section
    of their docstrings.
    """

    @property
    def protocol(self) -> int:
        """Version of the proposals: raised when the code changes what a controller with these options proposes.

        A run that began with another protocol cannot be resumed.
        """
        return 1

    def for_budget(self, num_trials: int) -> Self:
        """Return the options with each None that means a share of the budget replaced by its value."""
        return self

    def for_schedule(self, epochs: int) -> Self:
        """Return the options with each None that means a share of a training's epochs replaced by its value."""
        return self


class SpaceExhausted(Exception):
    """Raised by `ask` when every network of the space has been proposed."""


class BudgetSpent(SpaceExhausted):
    """Raised by `ask` of a controller that counts its epochs, when they are spent."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """One training that a controller asks for.

    Attributes:
        number: 0, 1, 2, ... in the order of proposals.
        genotype: the architecture; in a replay it may be a baseline.
        fidelity: None for the task's own.
        replicate: seed index of the same network at the same fidelity.
        stage: purpose of the training.
        until: epoch after which the training pauses, without a worker; None to train to the end.
        parent: number of the trial that the genotype was derived from.
        origin: how the genotype was made, such as "random" or "mutation:swap".
        info: figures of the controller, such as the log-probability of a sample.
        known_key: the network key, if it was computed already.
    """

    number: int
    genotype: Architecture
    fidelity: Fidelity | None = None
    replicate: int = 0
    stage: Stage = Stage.SEARCH
    until: int | None = None
    parent: int | None = None
    origin: str = ""
    info: dict[str, float] = field(default_factory=dict)
    known_key: str | None = field(default=None, repr=False, compare=False)

    @property
    def network_key(self) -> str:
        """Identity of the network, computed once."""
        if self.known_key is None:
            object.__setattr__(self, "known_key", network_key(self.genotype))
            assert self.known_key is not None
        return self.known_key

    def to_json(self) -> dict[str, Any]:
        """Return plain data, with the genotype as its one-line text."""
        return {
            "number": self.number,
            "genotype": self.genotype.text,
            "fidelity": None if self.fidelity is None else self.fidelity.to_json(),
            "replicate": self.replicate,
            "stage": str(self.stage),
            "until": self.until,
            "parent": self.parent,
            "origin": self.origin,
            "info": self.info,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Proposal:
        """Read the output of `to_json`."""
        fidelity = data["fidelity"]
        known = {name: value for name, value in data.items() if name != "continues"}  # always None before 0.2
        return cls(
            **{
                **known,
                "genotype": architecture_from_text(data["genotype"]),
                "fidelity": None if fidelity is None else Fidelity.from_json(fidelity),
                "stage": Stage(data["stage"]),
            }
        )

    @classmethod
    def of_record(cls, record: TrialRecord) -> Proposal:
        """Return the proposal that a trial was made from."""
        return cls(
            number=record.number,
            genotype=record.genotype or architecture_from_text(record.architecture),
            fidelity=record.fidelity,
            replicate=record.replicate,
            stage=record.stage,
            until=record.until,
            parent=record.parent,
            origin=record.origin,
            info=record.info,
        )


@dataclass(frozen=True, slots=True)
class Continuation:
    """A controller's wish that a paused training goes on.

    Attributes:
        number: of the training's proposal.
        until: epoch after which it pauses again; None to train to the end.
    """

    number: int
    until: int | None = None


Step = Proposal | Continuation
"""What a controller asks for: a new training, or more epochs of a paused one."""


class Controller(Protocol):
    """A search algorithm: four methods that are deterministic in the seed and the order of calls."""

    def ask(self) -> Step | None:
        """Return the next step, or None if there is none before further results arrive.

        Raises SpaceExhausted when every network has been proposed.
        """

    def tell(self, number: int, result: Evaluation | Failure) -> bool:
        """Take a result. For an unknown or finished number, change nothing and return False.

        An Evaluation with `stopped_after` is of a training that has seen only that many epochs: its objective is never
        comparable with that of a complete training. `by_epoch` has the objectives after earlier epochs. If the last
        step of this training named that epoch as its `until`, the training is paused, and a Continuation may follow. A
        second result with the same `stopped_after` says that it ended there. Otherwise it was stopped for good because
        others were better.
        """

    def observe(self, genotype: Genotype, evaluation: Evaluation) -> None:
        """Take an archived result, which has no number."""

    def replay_ask(self, step: Step) -> None:
        """Adopt a recorded step as if `ask` had just returned it, without recomputing it.

        The state is then the same as after the recorded ask. The next ask therefore returns what it returned in the
        recorded run.
        """


@runtime_checkable
class EndsSearch(Protocol):
    """A controller with a last stage, for budgets that it cannot count itself, such as hours."""

    def end_search(self) -> None:
        """Begin the last stage: only leaders are trained from now on."""


@runtime_checkable
class SpendsEpochs(Protocol):
    """A controller that counts the epochs of its steps, and raises BudgetSpent when they are spent."""

    @property
    def num_epochs(self) -> int:
        """Epochs of all steps so far."""


@runtime_checkable
class PausesTrainings(SpendsEpochs, Protocol):
    """A controller whose trainings pause without a worker."""

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs after which trainings pause, ascending."""

    @property
    def num_final_epochs(self) -> int:
        """Epochs of the budget that only finalists get."""


def objective_of(result: Evaluation | Failure) -> float | None:
    """Return the objective; 0 for a network that diverged, None for any other failure.

    0 is the AP of a detector that finds nothing. A lost worker or a timeout says nothing about the network. A training
    that was stopped early counts with its last objective.
    """
    if isinstance(result, Evaluation):
        return result.objective
    return 0.0 if result.kind is FailureKind.DIVERGED else None
