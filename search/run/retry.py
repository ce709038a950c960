"""Decides whether and how a trial is retried after a failure, by the rules in `failure_rules.py`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from spinenas.results.record import Failure, FailureKind, Fidelity
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.executors.failure_rules import RULES, pause_seconds
from spinenas.search.run.open_trial import OpenTrial


@dataclass(frozen=True, slots=True)
class Retry:
    """Another attempt at a trial.

    Attributes:
        reason: for the journal and the display.
        kind: failure of the last attempt; None if the driver was stopped.
        pause: seconds before the attempt is submitted.
        fidelity: fidelity of the attempt; None if unchanged.
    """

    reason: str
    kind: FailureKind | None = None
    pause: float = 0.0
    fidelity: Fidelity | None = None


def retry_after(failure: Failure, trial: OpenTrial, config: ExecutorConfig, fidelity: Fidelity) -> Retry | None:
    """Return the next attempt after a failure; None if the failure is the trial's result.

    Args:
        fidelity: the task's fidelity, for a trial without its own.
    """
    kind, message = failure.kind, failure.message
    rule, num_losses = RULES[kind].again, trial.losses[kind] + 1
    if rule == "always":
        return Retry(message, kind, pause=pause_seconds(num_losses))
    if rule == "max_attempts" and num_losses < config.max_attempts:
        return Retry(message, kind)
    if rule == "out_of_memory_retries" and num_losses <= config.out_of_memory_retries:
        before = trial.fidelity or fidelity
        if before.batch_size > 1:
            halved = replace(before, batch_size=before.batch_size // 2)
            return Retry(f"{message}; next with batches of {halved.batch_size}", kind, fidelity=halved)
    return None
