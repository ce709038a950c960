"""What a report says of a run, as plain data: how it went, what separates good from bad, where the winner is from.

It knows nothing of how it is shown. No figure here takes the best of single trainings for a result: the winner is the
leaderboard's, and what is best so far among single trainings is called that.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from spinenas.results.leaderboard import ScalarizedObjective, leaderboard_rows, winner
from spinenas.results.record import Evaluation, Status, TrialRecord
from spinenas.space.genotype import Genotype
from spinenas.space.graph import built_graph, lost_levels
from spinenas.space.limits import CostTarget

FEWEST_NETWORKS = 12
"""Below so many networks with a result, quarters of them are compared with nothing."""


@dataclass(frozen=True)
class RunFacts:
    """A run as it was when its journal was read.

    Attributes:
        name: of its folder.
        records: its trials, ascending by number.
        told: numbers of the finished ones in the order in which their results came.
        hours: by number of a finished one, the accelerator-hours that the run had taken by then.
        total_hours: what it has taken in all.
        losses: attempts that were lost and followed by another, by kind of failure.
        refused: reports that came too late or made no sense, by reason.
        damage: what of the journal could not be read and is left out, in words.
        config, info: config.json and run.json; empty where they cannot be read.
        num_trials: the budget; None where it is not known.
        price_per_hour: of an accelerator, as configured.
        cost_target: the detector that the search counted costs in; None for the one that it trains.
        published: (name, parameters, multiply-adds) of published models as that detector.
        validation: what `spinenas validate` found on val, if it was run.
        scalarize: the objective that chooses the winner; None for AP itself.
        is_over: whether nobody works on it any more.
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
    num_trials: int | None = None
    price_per_hour: float | None = None
    cost_target: CostTarget | None = None
    published: tuple[tuple[str, int, int], ...] = ()
    validation: Mapping[str, Any] | None = None
    scalarize: ScalarizedObjective | None = None
    is_over: bool = True
    read_at: str = ""

    @property
    def task_key(self) -> str:
        """What gives its numbers their meaning; "" before the first trial."""
        return self.records[0].task_key if self.records else ""

    @property
    def detector(self) -> str:
        """What costs are counted in, in words."""
        return "the detector" if self.cost_target is None else f"the detector at {self.cost_target.name}"

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Its networks as the leaderboard ranks them, computed once. Raises UserError for trials of different tasks."""
        return leaderboard_rows(self.records, target=self.cost_target)

    @cached_property
    def winner(self) -> dict[str, Any] | None:
        """The winner's row; None without a complete run."""
        found = winner(self.records, self.scalarize)
        return None if found is None else next(row for row in self.rows if row["number"] == found["number"])

    def by_number(self) -> dict[int, TrialRecord]:
        """Its trials; of a journal with damage some are missing."""
        return {record.number: record for record in self.records}


def objective_of(record: TrialRecord) -> float | None:
    """AP of a training that went to its end."""
    result = record.evaluation
    return result.objective if result is not None and record.status is Status.COMPLETE else None


@dataclass(frozen=True, slots=True)
class Progress:
    """Single trainings in the order in which their results came.

    Attributes:
        counts: how many trials were finished with each, 1, 2, ...; failures and stopped ones count along.
        hours: accelerator-hours taken by then.
        objectives: what each one has.
        best: the largest of them so far: of single trainings, so that mostly luck makes it rise in the end.
    """

    counts: list[int]
    hours: list[float]
    objectives: list[float]
    best: list[float]


def progress(facts: RunFacts) -> Progress:
    """Return how the trainings of a run went; those that went to their end."""
    found = Progress([], [], [], [])
    records = facts.by_number()
    for count, number in enumerate(facts.told, start=1):
        objective = objective_of(records[number])
        if objective is not None:
            found.counts.append(count)
            found.hours.append(facts.hours.get(number, 0.0))
            found.objectives.append(objective)
            found.best.append(max(objective, found.best[-1] if found.best else objective))
    return found


def front(rows: Sequence[dict[str, Any]], cost: str) -> list[dict[str, Any]]:
    """Return the rows that no other one beats in both mean AP and a cost, cheapest first.

    Of networks trained more than once, if there are any: a single run is on a front mostly by luck.
    """
    known = [row for row in rows if row["n"] > 0 and row[cost] is not None]
    chosen = [row for row in known if row["n"] > 1] or known
    found: list[dict[str, Any]] = []
    for row in sorted(chosen, key=lambda row: (row[cost], -row["objective"], row["number"])):
        if not found or row["objective"] > found[-1]["objective"]:
            found.append(row)
    return found


def failures(facts: RunFacts) -> dict[str, tuple[int, int]]:
    """Return, by kind of failure, how many trials ended by it, and how many attempts that others followed."""
    ended = Counter(str(record.failure.kind) for record in facts.records if record.failure is not None)
    kinds = sorted({*ended, *facts.losses}, key=lambda kind: (-ended[kind] - facts.losses.get(kind, 0), kind))
    return {kind: (ended[kind], facts.losses.get(kind, 0)) for kind in kinds}


def num_duplicates(facts: RunFacts) -> int:
    """How many trials repeat (network, fidelity, replicate) of an earlier one; a controller proposes none."""
    keys = [(record.network_key, record.fidelity, record.replicate) for record in facts.records]
    return len(keys) - len(set(keys))


Feature = Callable[[Genotype], Counter[Any]]


def levels(genotype: Genotype) -> Counter[int]:
    """How many blocks that are built each level has; the stem, which is the same for all, left out."""
    graph = built_graph(genotype)
    return Counter(node.level for node in graph.nodes if node.node >= graph.num_stem)


def kinds(genotype: Genotype) -> Counter[str]:
    """How many blocks of each type are built, the stem left out."""
    graph = built_graph(genotype)
    return Counter(str(node.kind) for node in graph.nodes if node.node >= graph.num_stem)


def spans(genotype: Genotype) -> Counter[int]:
    """How many inputs of built blocks come from how many levels away; +2 is down-sampling to a quarter of the side."""
    graph = built_graph(genotype)
    level = {node.node: node.level for node in graph.nodes}
    return Counter(
        node.level - level[parent] for node in graph.nodes if node.node >= graph.num_stem for parent in node.parents
    )


def detail_lost(genotype: Genotype) -> Counter[int]:
    """By level of the outputs: how many levels coarser the least coarse way from the image to it gets."""
    return Counter(lost_levels(built_graph(genotype)))


@dataclass(frozen=True, slots=True)
class Contrast:
    """A count in the best and in the worst quarter of the networks.

    Attributes:
        category: what is counted.
        best, worst: mean number in a network of that quarter.
        best_half, worst_half: half the width of the 95 % interval of either mean.
    """

    category: Any
    best: float
    worst: float
    best_half: float
    worst_half: float


def contrasts(facts: RunFacts, rows: Sequence[dict[str, Any]], features: Sequence[Feature]) -> list[list[Contrast]]:
    """Compare the networks of the best quarter by mean AP with those of the worst, feature by feature.

    Empty for fewer than FEWEST_NETWORKS networks with a genotype and a result.
    """
    records = facts.by_number()
    genotypes = [records[row["number"]].genotype for row in rows if row["n"] > 0]
    known = [genotype for genotype in genotypes if genotype is not None]  # best first
    if len(known) < FEWEST_NETWORKS:
        return []
    quarter = len(known) // 4
    return [
        _contrast([feature(g) for g in known[:quarter]], [feature(g) for g in known[-quarter:]]) for feature in features
    ]


def _contrast(best: Sequence[Counter[Any]], worst: Sequence[Counter[Any]]) -> list[Contrast]:
    found = []
    for category in sorted({category for counts in (*best, *worst) for category in counts}):
        of_best, of_worst = ([counts[category] for counts in group] for group in (best, worst))
        found.append(
            Contrast(category, statistics.fmean(of_best), statistics.fmean(of_worst), _half(of_best), _half(of_worst))
        )
    return found


def _half(counts: Sequence[int]) -> float:
    return 1.96 * statistics.stdev(counts) / math.sqrt(len(counts)) if len(counts) > 1 else 0.0


def by_origin(facts: RunFacts, most: int) -> dict[str, list[float]]:
    """Return APs of single trainings by how their networks came about, the most frequent first; replicates left out.

    An edit goes by its name; several at once, such as "mutation:swap+kind", by how many they are.
    """
    found: dict[str, list[float]] = {}
    for record in facts.records:
        objective = objective_of(record)
        if objective is not None and record.replicate == 0:
            origin = record.origin.removeprefix("mutation:") or "not said"
            if "+" in origin:
                origin = f"{origin.count('+') + 1} edits"
            found.setdefault(origin, []).append(objective)
    ranked = sorted(found, key=lambda origin: (-len(found[origin]), origin))
    return {origin: found[origin] for origin in ranked[:most]}


def lineage(facts: RunFacts, number: int) -> list[TrialRecord]:
    """Return a trial, the one it was derived from, and so on to the first; each trial once, whatever a journal says."""
    records = facts.by_number()
    found: list[TrialRecord] = []
    seen: set[int] = set()
    current: int | None = number
    while current is not None and current in records and current not in seen:
        seen.add(current)
        found.append(records[current])
        current = records[current].parent
    return found


def changes(child: Genotype, parent: Genotype) -> str:
    """Say how a network differs from the one it was derived from, block by block."""
    if len(child.blocks) != len(parent.blocks) or child.stem != parent.stem:
        return f"{len(parent.blocks)} blocks became {len(child.blocks)}"
    words = []
    for index, (new, old) in enumerate(zip(child.blocks, parent.blocks, strict=True), start=len(child.stem)):
        found = []
        if new.level != old.level:
            found.append(f"level {old.level} to {new.level}")
        if new.kind != old.kind:
            found.append(f"{old.kind} to {new.kind}")
        if new.parents != old.parents:
            found.append(f"inputs {_listed(old.parents)} to {_listed(new.parents)}")
        if new.is_output != old.is_output:
            found.append("an output now" if new.is_output else "no output now")
        if found:
            words.append(f"block {index}: {', '.join(found)}")
    if len(words) > 4:
        return f"{len(words)} blocks differ"
    return "; ".join(words) or "the same blocks"


def _listed(numbers: Iterable[int]) -> str:
    return "+".join(map(str, numbers))


@dataclass(frozen=True, slots=True)
class Totals:
    """What a run took.

    Attributes:
        train_seconds, eval_seconds: of all trainings that have a result.
        largest_memory_bytes: of any of them; None where not known.
        devices: how many trials ran on which.
    """

    train_seconds: float
    eval_seconds: float
    largest_memory_bytes: int | None
    devices: Counter[str]


def totals(facts: RunFacts) -> Totals:
    """Add up what the trials of a run took."""
    results: list[Evaluation] = [record.evaluation for record in facts.records if record.evaluation is not None]
    memory = [result.peak_memory_bytes for result in results if result.peak_memory_bytes is not None]
    return Totals(
        sum(result.train_seconds or 0.0 for result in results),
        sum(result.eval_seconds or 0.0 for result in results),
        max(memory, default=None),
        Counter(record.device for record in facts.records if record.device is not None),
    )


def winner_record(facts: RunFacts, rows: Sequence[dict[str, Any]]) -> TrialRecord | None:
    """Return the first trial of the winner."""
    row = facts.winner
    return None if row is None else facts.by_number()[row["number"]]
