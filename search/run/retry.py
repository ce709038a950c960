"""Decides whether and how a trial is retried after a failure, by the rules in `failure_rules.py`."""

from __future__ import annotations

from dataclasses import replace

from spinenas.results.record import Failure, Fidelity
from spinenas.results.storage.events import Requeued
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.executors.failure_rules import RULES
from spinenas.search.run.open_trial import OpenTrial


def retry_after(failure: Failure, trial: OpenTrial, config: ExecutorConfig, fidelity: Fidelity) -> Requeued | None:
    """Return the next attempt after a failure; None if the failure is the trial's result.

    Args:
        fidelity: the task's fidelity, for a trial without its own.
    """
    rule, num_losses = RULES[failure.kind].again, trial.losses[failure.kind] + 1
    again = Requeued(trial.proposal.number, trial.attempt + 1, failure.message, failure.kind)
    if rule == "always":
        return replace(again, reason=f"{again.reason}; this never counts against the trial")
    if rule == "max_attempts" and num_losses < config.max_attempts:
        return replace(again, reason=f"{again.reason}; that was attempt {num_losses} of {config.max_attempts}")
    if rule == "out_of_memory_retries" and num_losses <= config.out_of_memory_retries:
        before = trial.fidelity or fidelity
        if before.batch_size > 1:
            halved = replace(before, batch_size=before.batch_size // 2)
            return replace(again, reason=f"{again.reason}; next with batches of {halved.batch_size}", fidelity=halved)
    return None
