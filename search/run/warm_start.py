"""Warm start: reads the results of earlier runs, which a new run copies to its own journal."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from spinenas.results.record import Evaluation
from spinenas.results.storage.events import Observed
from spinenas.results.storage.journal import read_events
from spinenas.results.storage.run_folder import RunFolder
from spinenas.results.storage.run_state import fold
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.search_space import SearchSpace


def known_results(
    runs: Sequence[Path], *, task_key: str, space: SearchSpace, incomplete: bool = False
) -> list[Observed]:
    """Return one result for each network that earlier runs have trained. Raises UserError.

    Args:
        runs: folders of runs, finished or not. Only their own trainings count, not those of their warm starts.
        task_key: key of the new run's task. Runs of another task are refused, as their results are not comparable.
        space: genotypes outside this space are left out.
        incomplete: also return the results of networks that no training has brought to the end, as of the epoch that
            they have reached; for a controller that pauses trainings.

    Several trainings of a network count by their mean, those that went furthest alone. Networks are in the order in
    which they were first proposed, run by run. Failures are left out.
    """
    trainings: dict[str, list[_Training]] = {}
    for run in runs:
        path = RunFolder.open(run).journal_path
        state = fold(read_events(path, epochs=False), source=path)
        if state.run["task_key"] != task_key:
            raise UserError(
                f"{run} has another task: its key is {state.run['task_key']!r}, here it is {task_key!r}, and their APs "
                "cannot be compared; leave this --warm-start out, or search with the data and task of that run"
            )
        for record in state.trials.values():
            evaluation = record.evaluation or state.paused.get(record.number)
            if evaluation is None or record.fidelity is not None:
                continue
            counts = incomplete or evaluation.stopped_after is None
            if counts and record.genotype is not None and space.contains(record.genotype):
                source = f"{run} {record.number}"
                trainings.setdefault(record.network_key, []).append(_Training(source, record.genotype, evaluation))
    return [_observation(of_network) for of_network in trainings.values()]


class _Training(NamedTuple):
    source: str
    genotype: Genotype
    evaluation: Evaluation

    @property
    def epochs(self) -> float:
        """Epochs that it has seen; infinite at the end of the schedule."""
        after = self.evaluation.stopped_after
        return math.inf if after is None else after


def _observation(trainings: list[_Training]) -> Observed:
    furthest = max(training.epochs for training in trainings)
    trainings = [training for training in trainings if training.epochs == furthest]
    evaluations = [training.evaluation for training in trainings]
    by_epoch: dict[int, list[float]] = {}
    for evaluation in evaluations:
        for epoch, objective in evaluation.by_epoch:
            by_epoch.setdefault(epoch, []).append(objective)
    first = evaluations[0]
    mean = Evaluation(
        statistics.fmean(evaluation.objective for evaluation in evaluations),
        params=first.params,
        madds=first.madds,
        network_key=first.network_key,
        stopped_after=first.stopped_after,
        by_epoch=tuple((epoch, statistics.fmean(by_epoch[epoch])) for epoch in sorted(by_epoch)),
    )
    return Observed(trainings[0].genotype, mean, tuple(training.source for training in trainings))
