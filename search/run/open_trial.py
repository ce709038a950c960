"""A trial without a result, its next job, and the rules by which reports about it are accepted or refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from spinenas.controller.base import Proposal
from spinenas.results.record import Evaluation, Failure, FailureKind, Fidelity, Stage, Status, TrialRecord
from spinenas.results.storage.events import EpochDone, Finished, Started
from spinenas.results.storage.run_state import RunState
from spinenas.search.executors.base import Job, WorkerEvent
from spinenas.search.executors.failure_rules import RULES


@dataclass(slots=True)
class OpenTrial:
    """A trial without a result.

    Attributes:
        fidelity: fidelity of the next attempt; that of the proposal unless the trial ran out of memory.
        attempt: the attempt that runs or will run next.
        status: ASKED until a worker reports its start.
        epoch: last epoch reported in this attempt.
        in_flight: whether an executor runs it.
        not_before: earliest time for its next attempt, in seconds of the driver's clock.
        losses: number of retried failures by kind.
        passed: last rung after which the trial continued; 0 before the first.
        paused: evaluation without a curve while the trial waits at a rung; else None.
        until: epoch at which the controller wants it to pause; None if it does not.
    """

    proposal: Proposal
    seed: int
    fidelity: Fidelity | None
    attempt: int = 0
    status: Status = Status.ASKED
    epoch: int = 0
    in_flight: bool = False
    not_before: float = 0.0
    losses: Counter[FailureKind] = field(default_factory=Counter)
    passed: int = 0
    paused: Evaluation | None = None
    until: int | None = None

    @property
    def is_parked(self) -> bool:
        """Whether the trial waits until its controller continues it."""
        return self.paused is not None and self.until is not None

    @property
    def is_judged(self) -> bool:
        """Whether halving applies. Replicates always run to their end, because they measure the mean of a network."""
        return self.proposal.stage is Stage.SEARCH and self.proposal.replicate == 0


def open_trial(state: RunState, record: TrialRecord, proposal: Proposal) -> OpenTrial:
    """Return a trial of a resumed run, as the last session left it.

    Args:
        state: of the run.
        record: of the trial, which has no result.
        proposal: of the trial.
    """
    number = record.number
    return OpenTrial(
        proposal,
        record.seed,
        record.fidelity,
        record.attempt,
        record.status,
        losses=Counter(state.losses.get(number, Counter())),
        passed=state.passed.get(number, 0),
        paused=state.paused.get(number),
        until=state.until.get(number),
    )


def job_of(trial: OpenTrial, folder: Path, mirror: str | None, until: int | None) -> Job:
    """Return the next attempt as a job; see `Job` for the arguments."""
    proposal = trial.proposal
    return Job(proposal.number, trial.attempt, proposal.genotype, trial.seed, trial.fidelity, folder, mirror, until)


def refusal(trial: OpenTrial | None, event: WorkerEvent, *, num_asked: int) -> str | None:
    """Return why a report is refused; None if it is accepted.

    Args:
        trial: the trial that the report belongs to; None if finished or unknown.
        event: the report.
        num_asked: number of trials so far.
    """
    if trial is None:
        if not 0 <= event.number < num_asked:
            return "no such trial was asked"
        return "the trial has its result already"
    if event.attempt > trial.attempt or event.attempt < 0 or (event.attempt == trial.attempt and not trial.in_flight):
        if event.attempt == trial.attempt and trial.paused:
            return "the attempt is paused already"
        return f"attempt {event.attempt} was never begun"
    if event.attempt == trial.attempt:
        if isinstance(event, Started) and trial.status is Status.RUNNING:
            return "the start is known already"
        if isinstance(event, EpochDone) and trial.status is not Status.RUNNING:
            return "an epoch came before the start"
        if isinstance(event, EpochDone) and event.epoch <= trial.epoch:
            return "the epoch is over already"
        return None
    if trial.is_parked:
        return "the trial is paused already"
    # An abandoned attempt. Its result counts, because the current attempt has the same network and seed. Its other
    # reports are not needed.
    if not isinstance(event, Finished):
        return "the attempt was given up, or has gone on as another"
    if isinstance(event.result, Failure) and RULES[event.result.kind].again != "never":
        return f"the attempt was given up before it said {event.result.kind}"
    if trial.fidelity != trial.proposal.fidelity:
        return "the attempt was given up for one with a smaller batch"
    return None
