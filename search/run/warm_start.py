"""Results of earlier runs that a new one begins with: read once, and kept in its own journal from then on."""

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
    """Return one observation for each network that earlier runs have trained to its end. Raises UserError.

    Args:
        runs: folders, finished or not; a run that was given a warm start itself gives what it trained itself.
        task_key: of the new run; results of another task are other figures, and are refused.
        space: genotypes that are not of it are left out.

    Several trainings of a network count by their mean. The order is that in which networks were first asked for, run
    by run. Failures and trainings that were stopped early are left out.
    """
    trainings: dict[str, list[tuple[str, TrialRecord]]] = {}
    for run in runs:
        state = fold(read_events(RunFolder.open(run).journal_path, epochs=False))
        if state.run["task_key"] != task_key:
            raise UserError(
                f"{run} has another task: its key is {state.run['task_key']!r}, here it is {task_key!r}, and AP of the "
                "one says little of the other; leave this --warm-start out, or give the search the data and task it had"
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
