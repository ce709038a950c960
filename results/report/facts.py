"""Facts of a run for its report, as plain data: progress, winner, Pareto front, failures, origins and totals.

The winner is the leaderboard's. The best single training is never presented as a result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from spinenas.results import pareto
from spinenas.results.leaderboard import ScalarizedObjective, leaderboard_rows, no_winner_words, winner, winner_words
from spinenas.results.pictures.charts import Axis
from spinenas.results.record import Evaluation, Status, TrialRecord
from spinenas.space.limits import CostTarget

AP = "AP on the reward images"
"""Objective of a training, as the axes of charts name it."""

AP_AXIS = Axis(AP, least=0.0, most=1.0)
"""Axis of objectives. Intervals by Student's t can reach beyond what an AP can be, and are clipped there."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Result of a training where it has paused.

    Attributes:
        epoch: after which it paused.
        objective: AP there.
        epochs, hours: those that the run had used by then.
    """

    epoch: int
    objective: float
    epochs: int
    hours: float


@dataclass(frozen=True)
class RunFacts:
    """A run at the time its journal was read.

    Attributes:
        name: name of the run folder.
        records: trials, ascending by number.
        told: numbers of the finished trials, in the order of their results.
        hours: hours of accelerators (workers on CPUs count as one) used when each finished trial reported, by number.
        total_hours: such hours in all.
        losses: lost attempts that were retried, by kind of failure.
        refused: stale or invalid worker reports (ignored), by reason.
        damage: one description for each unreadable part of the journal; these parts are left out.
        config, info: contents of config.json and run.json; empty if unreadable.
        resumed_with: package versions of each later session, in order; those of the first are in `info`.
        num_trials: trial budget; None if unknown.
        price_per_hour: configured price of an accelerator-hour.
        cost_target: detector in which costs are counted; None for the one that is trained.
        published: (name, parameters, multiply-adds) of published models in that detector.
        whole_epochs: epochs of a complete training; None if unknown.
        num_epochs: budget in epochs of a search whose trainings pause; None for any other.
        epochs: epochs of all trainings together when each finished trial reported, by number.
        total_epochs: such epochs in all.
        pauses: results at the pauses of trainings, in order.
        validation: contents of validation.json; None if `spinenas validate` has not run.
        scalarize: the objective that chooses the winner; None for AP itself.
        is_over: whether no process is working on the run.
        read_at: when the journal was read; UTC, ISO 8601.
    """

    name: str
    records: tuple[TrialRecord, ...]
    told: tuple[int, ...]
    hours: Mapping[int, float] = field(default_factory=dict)
    total_hours: float = 0.0
    losses: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    damage: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    resumed_with: tuple[Mapping[str, Any], ...] = ()
    num_trials: int | None = None
    price_per_hour: float | None = None
    cost_target: CostTarget | None = None
    published: tuple[tuple[str, int, int], ...] = ()
    whole_epochs: int | None = None
    num_epochs: int | None = None
    epochs: Mapping[int, int] = field(default_factory=dict)
    total_epochs: int = 0
    pauses: tuple[Pause, ...] = ()
    validation: Mapping[str, Any] | None = None
    scalarize: ScalarizedObjective | None = None
    is_over: bool = True
    read_at: str = ""

    @property
    def task_key(self) -> str:
        """Identity of the proxy task; "" before the first trial."""
        return self.records[0].task_key if self.records else ""

    @property
    def hours_name(self) -> str:
        """Name of its hours: "accelerator-hours" if any trial ran on an accelerator, else "worker-hours"."""
        return hours_name([self])

    @property
    def detector(self) -> str:
        """Name of the detector in which costs are counted."""
        return "the detector" if self.cost_target is None else f"the detector at {self.cost_target.name}"

    @property
    def winner_words(self) -> tuple[str, ...]:
        """Which network is the winner and how certain that is, or why none is."""
        return winner_words(self.records, self.scalarize, whole=self.whole_epochs)

    def in_trainings(self, epochs: float) -> float:
        """Return how many complete trainings have so many epochs."""
        return epochs / (self.whole_epochs or 1)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Leaderboard rows of its networks, best first. Raises UserError for trials of different tasks."""
        return leaderboard_rows(self.records, target=self.cost_target)

    @cached_property
    def winner(self) -> dict[str, Any] | None:
        """Leaderboard row of the winner; None before the first result, or if the results name none."""
        found = winner(self.records, self.scalarize)
        return None if found is None else next(row for row in self.rows if row["number"] == found["number"])

    @cached_property
    def no_winner(self) -> str | None:
        """Why the results name no winner, and what to change; None if they name one, or before the first result."""
        return no_winner_words(self.records, self.scalarize)

    @cached_property
    def by_number(self) -> dict[int, TrialRecord]:
        """Trials by number; a damaged journal may lack some."""
        return {record.number: record for record in self.records}


EQUIVALENTS = "whole-training equivalents"
"""Name of epochs, counted in complete trainings, on axes and in tables."""


def any_pauses(runs: Iterable[RunFacts | None]) -> bool:
    """Whether any of these runs pauses trainings, so that their progress is counted in epochs."""
    return any(facts is not None and facts.num_epochs is not None for facts in runs)


def hours_name(runs: Iterable[RunFacts]) -> str:
    """Return the name of the hours of some runs: "accelerator-hours" only if there was an accelerator."""
    devices = {record.device for facts in runs for record in facts.records if record.device is not None}
    return "accelerator-hours" if devices - {"cpu"} else "worker-hours"


def objective_of(record: TrialRecord) -> float | None:
    """Return the AP of a completed training; None for any other trial."""
    result = record.evaluation
    return result.objective if result is not None and record.status is Status.COMPLETE else None


@dataclass(frozen=True, slots=True)
class Progress:
    """Completed trainings in the order of their results.

    Attributes:
        counts: number of finished trials at each result, failed and pruned ones included.
        trainings: epochs used by then, in complete trainings; the counts where they are unknown.
        hours: hours used by then, as in `RunFacts`.
        objectives: AP of each training.
        best: highest AP so far; biased upward, because it is the maximum of single trainings.
    """

    counts: list[int]
    trainings: list[float]
    hours: list[float]
    objectives: list[float]
    best: list[float]


def progress(facts: RunFacts) -> Progress:
    """Return the course of a run's completed trainings."""
    found = Progress([], [], [], [], [])
    records = facts.by_number
    for count, number in enumerate(facts.told, start=1):
        objective = objective_of(records[number])
        if objective is not None:
            found.counts.append(count)
            epochs = facts.epochs.get(number)
            found.trainings.append(float(count) if epochs is None else facts.in_trainings(epochs))
            found.hours.append(facts.hours.get(number, 0.0))
            found.objectives.append(objective)
            found.best.append(max(objective, found.best[-1] if found.best else objective))
    return found


def front(rows: Sequence[dict[str, Any]], cost: str) -> list[dict[str, Any]]:
    """Return the Pareto front of mean AP and a cost, cheapest first.

    Only replicated networks count, if there are any: a single run reaches the front mostly by luck.
    """
    known = [row for row in rows if row["n"] > 0 and row[cost] is not None]
    chosen = [row for row in known if row["n"] > 1] or known
    return pareto.front(chosen, [(row["objective"], row[cost]) for row in chosen])[::-1]


def failures(facts: RunFacts) -> dict[str, tuple[int, int]]:
    """Return (failed trials, retried attempts) by kind of failure."""
    ended = Counter(str(record.failure.kind) for record in facts.records if record.failure is not None)
    kinds = sorted({*ended, *facts.losses}, key=lambda kind: (-ended[kind] - facts.losses.get(kind, 0), kind))
    return {kind: (ended[kind], facts.losses.get(kind, 0)) for kind in kinds}


def num_duplicates(facts: RunFacts) -> int:
    """Count the trials that repeat an earlier (network, fidelity, replicate); controllers should propose none."""
    keys = [(record.network_key, record.fidelity, record.replicate) for record in facts.records]
    return len(keys) - len(set(keys))


def by_origin(facts: RunFacts, most: int) -> dict[str, list[float]]:
    """Return APs of first trainings by the origin of their networks, most frequent origin first.

    A single edit is named ("swap"); several edits at once are counted ("2 edits").
    """
    found: dict[str, list[float]] = {}
    for record in facts.records:
        objective = objective_of(record)
        if objective is not None and record.replicate == 0:
            origin = record.origin.removeprefix("mutation:") or "unknown"
            if "+" in origin:
                origin = f"{origin.count('+') + 1} edits"
            found.setdefault(origin, []).append(objective)
    ranked = sorted(found, key=lambda origin: (-len(found[origin]), origin))
    return {origin: found[origin] for origin in ranked[:most]}


@dataclass(frozen=True, slots=True)
class Totals:
    """Resources that a run used.

    Attributes:
        train_seconds, eval_seconds: sums over all trials with a result.
        largest_memory_bytes: maximum peak memory of these trials; None if unknown.
        devices: number of trials by device.
    """

    train_seconds: float
    eval_seconds: float
    largest_memory_bytes: int | None
    devices: Counter[str]


def totals(facts: RunFacts) -> Totals:
    """Add up the resources of all trials."""
    results: list[Evaluation] = [record.evaluation for record in facts.records if record.evaluation is not None]
    memory = [result.peak_memory_bytes for result in results if result.peak_memory_bytes is not None]
    return Totals(
        sum(result.train_seconds or 0.0 for result in results),
        sum(result.eval_seconds or 0.0 for result in results),
        max(memory, default=None),
        Counter(record.device for record in facts.records if record.device is not None),
    )
