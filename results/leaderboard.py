"""The leaderboard: networks ranked by the mean over their complete runs.

A network can be trained several times with different seeds. A row is therefore a network, with mean and spread: a
table of single runs would put the luckiest one first. Networks without a complete training follow, ranked by what is
predicted of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spinenas.results.learnt import why_no_winner
from spinenas.results.record import Evaluation, Fidelity, Status, TrialRecord
from spinenas.space.baseline import architecture_from_text
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype

if TYPE_CHECKING:
    import pandas

    from spinenas.results.part_trained import PartTrained
    from spinenas.results.stats.intervals import Spread
    from spinenas.space.limits import CostTarget

ScalarizedObjective = Callable[[Genotype, float], float]
"""Combines a mean AP with the costs of its genotype into one number, higher is better; it then chooses the winner."""

COLUMNS = (
    "number",
    "key",
    "network_key",
    "status",
    "objective",
    "lower",
    "upper",
    "std",
    "n",
    "params",
    "madds",
    "train_seconds",
    "origin",
    "architecture",
    "epochs",
    "numbers",
    "epochs_seen",
    "objective_so_far",
    "predicted",
    "predicted_std",
)
"""Fields of a row.

number, key, origin, architecture: of the network's first trial; numbers: of all its trials.
status: complete if any run is, else that of the last one.
objective, std, n: mean, sample standard deviation (None for n = 1) and count of the complete runs.
lower, upper: 95 % interval of the mean, None for n = 1: Student's t with the spread of single runs pooled over all
    networks of this fidelity that were trained twice or more: two runs alone say next to nothing.
params, madds: of the detector that was trained, or of the target detector; train_seconds: mean over the complete runs.
epochs: None for the task's own fidelity.
epochs_seen, objective_so_far: of a network without a complete training, the epochs of the one that went furthest and
    the mean AP there; predicted, predicted_std: the final AP that is predicted of it, and the standard deviation of one
    training about that. None for all others, and without a prediction.
"""


def leaderboard_rows(
    records: Iterable[TrialRecord], top: int | None = None, *, target: CostTarget | None = None
) -> list[dict[str, Any]]:
    """Return one row of COLUMNS per (network, fidelity), best mean first, then the best prediction, then the others.

    Args:
        records: trials in the order of their numbers.
        top: maximum number of rows; None for all.
        target: the detector that costs are counted in; None for the one that was trained.

    Raises UserError for records of different tasks, whose objectives are not comparable.
    """
    ranked, parts = _ranked_with_parts(records)
    spreads = _spreads(ranked)
    rows = []
    for group in ranked[:top]:
        row = _row(group, spreads.get(group[0].fidelity), parts.get(group[0].number))
        if target is not None and row["params"] is not None:
            cost = target.cost(group[0].genotype or architecture_from_text(group[0].architecture))
            row["params"], row["madds"] = cost.params, cost.madds
        rows.append(row)
    return rows


def leaderboard(records: Iterable[TrialRecord], top: int | None = None) -> pandas.DataFrame:
    """Return `leaderboard_rows` as a table."""
    import pandas  # takes half a second, and the command line's own tables do not need it

    return pandas.DataFrame(leaderboard_rows(records, top), columns=list(COLUMNS))


@dataclass(slots=True)
class NetworkRuns:
    """The complete runs of one network at one fidelity.

    Attributes:
        number: of its first trial.
        genotype: None for a baseline without one.
        objectives: one per complete run.
    """

    number: int
    genotype: Genotype | None
    objectives: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float:
        return _mean(self.objectives)


def leader(networks: Iterable[NetworkRuns], scalarize: ScalarizedObjective | None = None) -> NetworkRuns | None:
    """Return the network that wins, or None without a complete run. Only this function decides who wins.

    Once any network was trained twice, only those that were can win: among many single runs the best is mostly the
    luckiest. Of equal networks the one with the higher mean wins, then the earlier one.

    Args:
        scalarize: the objective by which networks are compared; None for the mean AP itself.
    """
    complete = [network for network in networks if network.objectives]
    candidates = [network for network in complete if len(network.objectives) > 1] or complete

    def value(network: NetworkRuns) -> tuple[float, float, int]:
        mean = network.mean
        scalar = mean if scalarize is None or network.genotype is None else scalarize(network.genotype, mean)
        return scalar, mean, -network.number

    return max(candidates, key=value, default=None)


def winner(records: Iterable[TrialRecord], scalarize: ScalarizedObjective | None = None) -> dict[str, Any] | None:
    """Return the row of the network that `leader` names; None without a complete run, or if nothing names a winner."""
    ranked = _ranked(records)
    return _winner_row(ranked, scalarize) if _why_no_winner(ranked, scalarize) is None else None


def no_winner_words(records: Iterable[TrialRecord], scalarize: ScalarizedObjective | None = None) -> str | None:
    """Say why trials with results name no winner, and what to change; None if they name one, or without results."""
    return _why_no_winner(_ranked(records), scalarize)


def winner_words(
    records: Iterable[TrialRecord], scalarize: ScalarizedObjective | None = None, *, whole: int | None = None
) -> tuple[str, ...]:
    """Say which network is the winner and how certain that is, or why none is; nothing before the first result.

    The winner is not always first on the leaderboard, where a single run may be above it.

    Args:
        records: trials in the order of their numbers.
        whole: epochs of a complete training of the task; None if unknown.
    """
    ranked, parts = _ranked_with_parts(records)
    row = _winner_row(ranked, scalarize)
    if row is None:
        leads = "no winner yet, as no training is complete; trial {} leads with {}"
        return tuple(leads.format(number, part.words(whole)) for number, part in list(parts.items())[:1])
    if (why := _why_no_winner(ranked, scalarize)) is not None:
        return (why,)
    if row["n"] == 1:
        return (
            f"winner, unconfirmed: trial {row['number']} has the best single run of "
            f"{sum(len(_complete(group)) for group in ranked)}; the best of many single runs is mostly luck, so train "
            "it again before you trust its AP",
        )
    result = f"mean AP {row['objective']:.4f} over {row['n']} runs (sd {row['std']:.4f}"
    words = f"winner: trial {row['number']}, {result}, 95 %: {row['lower']:.4f} to {row['upper']:.4f})"
    if len(_complete(ranked[0])) == 1:
        return words, "only unconfirmed single runs (n = 1) rank above it in the table"
    return (words,)


def _winner_row(ranked: Sequence[list[TrialRecord]], scalarize: ScalarizedObjective | None) -> dict[str, Any] | None:
    groups = {group[0].number: group for group in ranked}
    found = leader(
        (
            NetworkRuns(number, group[0].genotype, [evaluation.objective for evaluation in _complete(group)])
            for number, group in groups.items()
        ),
        scalarize,
    )
    if found is None:
        return None
    group = groups[found.number]
    return _row(group, _spreads(ranked).get(group[0].fidelity))


def _why_no_winner(ranked: Sequence[list[TrialRecord]], scalarize: ScalarizedObjective | None) -> str | None:
    groups = [group for group in ranked if _complete(group)]
    has_one_fidelity = len({group[0].fidelity for group in groups}) == 1
    paused = None
    if groups and any(record.until is not None for group in ranked for record in group):
        from spinenas.results.part_trained import at_last_pause  # numpy

        paused = at_last_pause(ranked)  # the complete ones were chosen for being alike
    return why_no_winner(
        [[evaluation.objective for evaluation in _complete(group)] for group in groups],
        only_ap=scalarize is None and has_one_fidelity,
        paused=paused,
    )


def _ranked(records: Iterable[TrialRecord]) -> list[list[TrialRecord]]:
    """Trials grouped by network and fidelity, in the order of the leaderboard. Raises UserError."""
    groups: dict[tuple[str, Fidelity | None], list[TrialRecord]] = {}
    task_keys: dict[str, int] = {}
    for record in records:
        groups.setdefault((record.network_key, record.fidelity), []).append(record)
        task_keys.setdefault(record.task_key, record.number)
    if len(task_keys) > 1:
        (first, first_number), (second, second_number) = list(task_keys.items())[:2]
        raise UserError(
            f"trials {first_number} and {second_number} belong to different tasks, {first!r} and {second!r}, "
            "which are never ranked together; rank the trials of each task by themselves"
        )
    return sorted(groups.values(), key=_rank)


def _ranked_with_parts(records: Iterable[TrialRecord]) -> tuple[list[list[TrialRecord]], dict[int, PartTrained]]:
    """Return the groups of `_ranked`, and those without a complete training by number, both in order of prediction."""
    ranked = _ranked(records)
    rest = [group for group in ranked if not _complete(group)]
    if not any(record.evaluation for group in rest for record in group):
        return ranked, {}
    from spinenas.results.part_trained import part_trained  # numpy

    parts = part_trained(ranked)
    places = {number: place for place, number in enumerate(parts)}
    rest.sort(key=lambda group: places.get(group[0].number, len(places)))
    return [*ranked[: len(ranked) - len(rest)], *rest], parts


def _complete(group: list[TrialRecord]) -> list[Evaluation]:
    return [record.evaluation for record in group if record.status is Status.COMPLETE and record.evaluation]


def _rank(group: list[TrialRecord]) -> tuple[bool, float, int]:
    """Sort key: networks with a result first, then by mean, then the earlier one."""
    objectives = [evaluation.objective for evaluation in _complete(group)]
    return not objectives, -_mean(objectives) if objectives else 0.0, group[0].number


def _mean(objectives: Sequence[float]) -> float:
    return objectives[0] if len(objectives) == 1 else statistics.fmean(objectives)  # `fmean` is slow


def _spreads(groups: Iterable[list[TrialRecord]]) -> dict[Fidelity | None, Spread | None]:
    """Spread of single runs by fidelity, if any network was trained twice."""
    objectives: dict[Fidelity | None, list[list[float]]] = {}
    for group in groups:
        if len(complete := _complete(group)) > 1:
            objectives.setdefault(group[0].fidelity, []).append([evaluation.objective for evaluation in complete])
    if not objectives:
        return {}
    from spinenas.results.stats.intervals import pooled_spread  # scipy

    return {fidelity: pooled_spread(found) for fidelity, found in objectives.items()}


def _row(group: list[TrialRecord], spread: Spread | None, part: PartTrained | None = None) -> dict[str, Any]:
    first = group[0]
    complete = _complete(group)
    objectives = [evaluation.objective for evaluation in complete]
    mean = statistics.fmean(objectives) if objectives else None
    lower = upper = None
    if spread is not None and mean is not None and len(objectives) > 1:
        lower, upper = spread.interval(mean, len(objectives))
    sized = [*complete, *(record.evaluation for record in group if record.evaluation)] if part else complete
    seconds = [evaluation.train_seconds for evaluation in complete if evaluation.train_seconds is not None]
    return {
        "number": first.number,
        "key": first.genotype.key if first.genotype else None,
        "network_key": first.network_key,
        "status": str(Status.COMPLETE if complete else group[-1].status),
        "objective": mean,
        "lower": lower,
        "upper": upper,
        "std": statistics.stdev(objectives) if len(objectives) > 1 else None,
        "n": len(objectives),
        "params": sized[0].params if sized else None,
        "madds": sized[0].madds if sized else None,
        "train_seconds": statistics.fmean(seconds) if seconds else None,
        "origin": first.origin,
        "architecture": first.architecture,
        "epochs": first.fidelity.epochs if first.fidelity else None,
        "numbers": [record.number for record in group],
        "epochs_seen": part and part.epochs,
        "objective_so_far": part and part.objective,
        "predicted": part and part.foretold and part.foretold.value,
        "predicted_std": part and part.foretold and part.foretold.std,
    }
