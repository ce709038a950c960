"""Trial records for tests of statistics and reports."""

from __future__ import annotations

from spinenas.results.record import Evaluation, Status, TrialRecord
from spinenas.space.published import SPINENET_49


def trial(number: int, network: str, objective: float | None = None, **fields) -> TrialRecord:
    """Return the record of a trial; it is complete if an objective is given."""
    if objective is not None:
        seconds = fields.pop("train_seconds", None)
        fields["evaluation"] = Evaluation(objective, params=number + 10, madds=20, train_seconds=seconds)
    fields = {"status": Status.COMPLETE if objective is not None else Status.ASKED, "task_key": "t"} | fields
    return TrialRecord(number=number, genotype=SPINENET_49, network_key=network, **fields)
