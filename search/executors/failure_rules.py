"""Rules for each kind of failure. Executors detect failures; these rules say what follows.

| kind | retried | afterwards |
|---|---|---|
| diverged, invalid_genotype | no | a result of the network: it cannot be trained |
| out_of_memory | `executor.out_of_memory_retries` times, each with half the batch | a result: too large a network |
| timeout (`executor.trial_minutes`) | no | a result: the network is too slow |
| preempted (its machine is lost) | always, after a growing pause | never counts against the trial |
| worker_lost (its process died on a running machine) | up to `executor.max_attempts` attempts | the trial fails |
| invalid_data, bug | no | after `executor.max_errors` of them the run stops; fix the cause and resume |

Every failure is in the journal, with its traceback if it has one. The controller is told about each failure that
ends a trial.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spinenas.results.record import FailureKind


@dataclass(frozen=True, slots=True)
class FailureRule:
    """Rule for one kind of failure.

    Attributes:
        again: when a trial is retried: never, always, or up to this key of the executor's configuration (attempts in
            total, or retries with a smaller batch).
        stops_run: whether several such failures stop the run.
    """

    again: Literal["never", "always", "max_attempts", "out_of_memory_retries"] = "never"
    stops_run: bool = False


RULES = {
    FailureKind.DIVERGED: FailureRule(),
    FailureKind.INVALID_GENOTYPE: FailureRule(),
    FailureKind.OUT_OF_MEMORY: FailureRule(again="out_of_memory_retries"),
    FailureKind.TIMEOUT: FailureRule(),
    FailureKind.PREEMPTED: FailureRule(again="always"),
    FailureKind.WORKER_LOST: FailureRule(again="max_attempts"),
    FailureKind.INVALID_DATA: FailureRule(stops_run=True),
    FailureKind.BUG: FailureRule(stops_run=True),
}


def pause_seconds(num_losses: int) -> float:
    """Pause of a trial after its n-th lost worker (1, 2, ...): 1, 2, 4, ... 60 s."""
    return min(60.0, 2.0 ** min(num_losses - 1, 10))
