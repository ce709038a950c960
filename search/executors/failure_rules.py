"""What follows from each kind of failure: the one table; how failures are noticed is the executors' matter.

| kind | tried again | and then |
|---|---|---|
| diverged, invalid_genotype | no | a result like any other: this network is no good |
| out_of_memory | `executor.out_of_memory_retries` times, each with half the batch | a result: too large a network |
| timeout (`executor.trial_minutes`) | no | a result: too slow a network |
| preempted (its machine is gone) | always, after a growing pause | never held against the trial |
| worker_lost (its process died on a living machine) | until it has had `executor.max_attempts` | the trial has failed |
| invalid_data, bug | no | after `executor.max_errors` of them the run stops, to be mended and resumed |

Every failure is in the journal, with its traceback if it has one, and the controller is told of each one that ends
a trial.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spinenas.results.record import FailureKind


@dataclass(frozen=True, slots=True)
class FailureRule:
    """How one kind of failure is treated.

    Attributes:
        again: whether the trial is tried again: never, always, or as often as a key of the executor's configuration
            says, either attempts of the trial in all or retries with a smaller batch.
        stops_run: whether several of them stop the run.
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

LONGEST_PAUSE_SECONDS = 60.0


def pause_seconds(num_losses: int) -> float:
    """How long a trial waits after its worker was lost for the n-th time (1, 2, ...): 1, 2, 4, ... 60 s."""
    return min(LONGEST_PAUSE_SECONDS, 2.0 ** min(num_losses - 1, 10))
