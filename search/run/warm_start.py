"""Warm start: reads the results of earlier runs, which a new run copies to its own journal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from spinenas.results.record import Evaluation, Status, TrialRecord
from spinenas.results.storage.events import Observed
from spinenas.results.storage.journal import read_events
from spinenas.results.storage.run_folder import RunFolder
from spinenas.results.storage.run_state import fold
from spinenas.space.errors import UserError
from spinenas.space.search_space import SearchSpace


def known_results(runs: Sequence[Path], *, task_key: str, space: SearchSpace) -> list[Observed]:
    """Return one result for each network that earlier runs have trained to the end. Raises UserError.

    Args:
        runs: folders of runs, finished or not. Only their own trainings count, not those of their warm starts.
        task_key: key of the new run's task. Runs of another task are refused, as their results are not comparable.
        space: genotypes outside this space are left out.

    Several trainings of a network count by their mean. Networks are in the order in which they were first proposed,
    run by run. Failures and trainings that were stopped early are left out.
    """
    trainings: dict[str, list[tuple[str, TrialRecord]]] = {}
    for run in runs:
        path = RunFolder.open(run).journal_path
        state = fold(read_events(path, epochs=False), source=path)
        if state.run["task_key"] != task_key:
            raise UserError(
                f"{run} has another task: its key is {state.run['task_key']!r}, here it is {task_key!r}, and their APs "
                "cannot be compared; leave this --warm-start out, or search with the data and task of that run"
            )
        for record in state.trials.values():
            whole = record.status is Status.COMPLETE and record.fidelity is None
            if whole and record.genotype is not None and space.contains(record.genotype):
                trainings.setdefault(record.network_key, []).append((f"{run} {record.number}", record))
    return [_observation(of_network) for of_network in trainings.values()]


def _observation(trainings: list[tuple[str, TrialRecord]]) -> Observed:
    evaluations = [record.evaluation for _, record in trainings if record.evaluation is not None]
    first, genotype = evaluations[0], trainings[0][1].genotype
    assert genotype is not None, "baselines are left out"
    mean = statistics.fmean(evaluation.objective for evaluation in evaluations)
    evaluation = Evaluation(mean, params=first.params, madds=first.madds, network_key=first.network_key)
    return Observed(genotype, evaluation, tuple(source for source, _ in trainings))
