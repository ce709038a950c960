"""The one who runs a search: asks, submits, tells, and writes each step down before it is acted on.

A driver is a session of a run: it knows neither how a controller thinks nor where jobs run. Whatever workers report,
late, twice, out of order or of trials that never were, is taken once or refused with a reason.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from spinenas.controller.base import Controller, SpaceExhausted
from spinenas.controller.replicates import ReplicateLeaders
from spinenas.results.record import Evaluation, Failure, FailureKind, Fidelity, Status
from spinenas.results.storage.accelerator_time import AcceleratorTime
from spinenas.results.storage.events import (
    Asked,
    EpochDone,
    Event,
    Finished,
    Paused,
    Promoted,
    Refused,
    Requeued,
    Resumed,
    Started,
    Stopped,
)
from spinenas.results.storage.journal import Journal, now
from spinenas.results.storage.run_folder import RunFolder
from spinenas.results.storage.run_state import RunState
from spinenas.search.config.config import SearchConfig
from spinenas.search.executors.base import ENDS, Executor, Job, Task, WorkerEvent
from spinenas.search.executors.failure_rules import RULES, pause_seconds
from spinenas.search.monitoring.base import Display
from spinenas.search.run.controller_replay import Result, replay_into
from spinenas.search.run.halving import Halving
from spinenas.search.run.open_trial import OpenTrial, refusal
from spinenas.space.errors import UserError
from spinenas.space.random_streams import seed_for

logger = logging.getLogger(__name__)


def trial_seed(run_seed: int, key: str, replicate: int) -> int:
    """Seed of a training; of the network and its replicate alone, so that any search trains it the same."""
    return seed_for(run_seed, f"trial/{key}", replicate)


class Driver:
    """One session of a run: the only one who writes its journal, asks, tells and submits.

    Results reach the controller when they arrive or, in an ordered run, in the order of their numbers and only
    as far as the next ask needs them; how many it knew is kept with each asked event.

    With halving a trial is submitted up to its next rung, and pauses there without a worker. Whether it goes on follows
    from the results that came to the rung before it or, in an ordered run, from those of lower numbers, for which it
    waits until each of these trials has come to the rung or has ended.
    """

    def __init__(
        self,
        config: SearchConfig,
        folder: RunFolder,
        journal: Journal,
        task: Task,
        controller: Controller,
        executor: Executor,
        display: Display,
        *,
        window: int | None = None,
        time_taken: AcceleratorTime | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Bring everything together; nothing happens before `run`.

        Args:
            config: with the budget as it is now.
            window: of an ordered run, which is part of what the run is; other workers on resume do not change it.
            time_taken: by earlier sessions.
            clock: seconds, for pauses between attempts alone.
        """
        self._config, self._folder, self._journal, self._task = config, folder, journal, task
        self._controller, self._executor, self._display = controller, executor, display
        self._clock = clock
        self._num_trials = config.budget.num_trials
        self._window = window
        self._num_asked = self._num_told = 0
        self._untold: dict[int, Result] = {}  # results the controller does not know yet
        self._open: dict[int, OpenTrial] = {}  # all that have no result, by number
        self._waiting: list[OpenTrial] = []  # those of them that are to be submitted, in the order in which they came
        self._halving = Halving(
            config.halving.rungs,
            reduction=config.halving.reduction,
            min_results=config.halving.min_results,
            by_number=window is not None,
        )
        self._time = time_taken or AcceleratorTime()
        self._num_errors = 0
        self._over = False  # nothing more will be proposed

    def run(self) -> None:
        """Go on until the budget is spent, nothing more is proposed, or an exception ends it.

        Raises UserError when the journal cannot be written, the run has another owner, or too many trials failed
        by a bug or invalid data.
        """
        while True:
            # One moment for both: what is not ready to be submitted now is what the wait must end for.
            moment = self._clock()
            self._submit(moment)
            # Without a free worker nothing was asked, and there may be more to ask when one is there.
            if not self._open and (self._executor.num_free > 0 or self._is_all_asked()):
                return
            if self._is_all_asked() and not self._waiting and not any(trial.paused for trial in self._open.values()):
                self._executor.release_idle()
            self._executor.wait(self._on_event, self._longest_wait(moment))

    def replay(self, state: RunState) -> None:
        """Bring the controller to where it was, and queue the trials that have no result."""
        proposals, self._untold = replay_into(self._controller, state, ordered=self._window is not None)
        self._num_asked, self._num_told = len(state.trials), len(state.told) - len(self._untold)
        for result in state.rung_results:
            self._halving.add(*result)
        for record in state.unfinished:
            trial = OpenTrial(
                proposals[record.number],
                record.seed,
                record.fidelity,
                record.attempt,
                record.status,
                losses=Counter(state.losses.get(record.number, Counter())),
                passed=state.passed.get(record.number, 0),
                paused=state.paused.get(record.number),
            )
            self._open[record.number] = trial
            if record.status is Status.RUNNING:
                self._requeue(trial, "the search was stopped")
            elif record.status is Status.ASKED:
                self._waiting.append(trial)
        self._judge()
        for number in self._folder.checkpointed_trials():
            if number in state.trials and number not in self._open:  # its driver died as it removed it
                self._journal.unmirror_file(self._folder.remove_checkpoint(number))

    def begin_again(self, changes: dict[str, Any]) -> None:
        """Keep in the journal that, and with what changes, a run is resumed."""
        self._record(Resumed(changes))

    def note_stopped(self, reason: str) -> None:
        """Keep in the journal why this session ends before the run does."""
        self._record(Stopped(reason))

    def _submit(self, moment: float) -> None:
        while self._executor.num_free > 0:
            ready = next((trial for trial in self._waiting if trial.not_before <= moment), None)
            if ready is not None:
                self._waiting.remove(ready)
            trial = ready or self._ask()
            if trial is None:
                return
            trial.in_flight = True
            number = trial.proposal.number
            self._executor.submit(
                Job(
                    number,
                    trial.attempt,
                    trial.proposal.genotype,
                    trial.seed,
                    trial.fidelity,
                    self._folder.trial_folder(number).absolute(),
                    self._config.storage.mirror,
                    self._next_rung(trial),
                )
            )

    def _next_rung(self, trial: OpenTrial) -> int | None:
        if not trial.is_judged:
            return None
        return self._halving.next_rung(after=trial.passed, below=(trial.fidelity or self._task.fidelity).epochs)

    def _longest_wait(self, moment: float) -> float | None:
        """Seconds until a trial that pauses may be submitted; None if none does."""
        pauses = [trial.not_before - moment for trial in self._waiting if trial.not_before > moment]
        return min(pauses, default=None)

    def _is_all_asked(self) -> bool:
        return self._over or self._num_asked >= self._num_trials

    def _ask(self) -> OpenTrial | None:
        """Return a new trial, or None when there is none now; what is in flight may change that."""
        if self._is_all_asked() or self._is_time_up():
            return None
        if self._window is not None:
            while self._num_told <= self._num_asked - self._window:
                if self._num_told not in self._untold:
                    return None
                self._tell(self._num_told)
        try:
            proposal = self._controller.ask()
            while proposal is None and self._num_told in self._untold:
                self._tell(self._num_told)  # an ordered run: one more, as the controller cannot do without
                proposal = self._controller.ask()
        except SpaceExhausted as reason:
            self._over = True
            self._display.note(f"nothing is left to try after {self._num_asked} trials: {reason}")
            return None
        if proposal is None:
            return None
        assert proposal.number == self._num_asked, "a controller numbers its proposals 0, 1, 2, ..."
        self._num_asked += 1
        key = proposal.network_key
        seed = trial_seed(self._config.seed, key, proposal.replicate)
        self._record(Asked(proposal.to_json(), key, seed, self._task.key, self._num_told))
        trial = OpenTrial(proposal, seed, proposal.fidelity)
        self._open[proposal.number] = trial
        return trial

    def _is_time_up(self) -> bool:
        """Whether another trial would exceed the accelerator time, the last share of which is for replicates."""
        limit = self._config.budget.max_accelerator_hours
        if limit is None:
            return False
        at = now()
        num_others = len(self._open) - self._time.num_running + 1  # those that have not started yet, and the new one
        if self._time.hours_with_others(at, num_others) > limit:
            self._over = True
            self._display.note(
                f"no further trial: {self._time.hours(at):.2f} of {limit:g} accelerator hours are spent, and another "
                "would exceed them"
            )
            return True
        share = self._config.budget.replicate_share
        if isinstance(self._controller, ReplicateLeaders) and self._time.hours(at) > (1 - share) * limit:
            self._controller.end_search()
        return False

    def _on_event(self, event: WorkerEvent) -> None:
        trial = self._open.get(event.number)
        reason = refusal(trial, event, num_asked=self._num_asked)
        if reason is not None:
            if isinstance(event, ENDS):
                self._record(Refused(event.number, event.attempt, reason))
            return
        assert trial is not None, "what is not refused is of an open trial"
        match event:
            case Started():
                trial.status = Status.RUNNING
                self._record(event, sync=False)
            case EpochDone():
                trial.epoch = event.epoch
                self._record(event, sync=False)
            case Paused():
                self._pause(trial, event.evaluation)
                self._judge()
            case Finished():
                if event.attempt < trial.attempt or not self._try_again(trial, event.result):
                    self._finish(trial, event.attempt, event.result)
                    self._judge()

    def _try_again(self, trial: OpenTrial, result: Result) -> bool:
        """Queue a trial again if the rule for its failure says so."""
        if not isinstance(result, Failure):
            return False
        executor, kind = self._config.executor, result.kind
        again, num_losses = RULES[kind].again, trial.losses[kind] + 1
        if again == "always":
            self._requeue(trial, result.message, kind=kind, pause=pause_seconds(num_losses))
        elif again == "max_attempts" and num_losses < executor.max_attempts:
            self._requeue(trial, result.message, kind=kind)
        elif again == "out_of_memory_retries" and num_losses <= executor.out_of_memory_retries:
            fidelity = trial.fidelity or self._task.fidelity
            if fidelity.batch_size == 1:
                return False
            fidelity = replace(fidelity, batch_size=fidelity.batch_size // 2)
            reason = f"{result.message}; next with batches of {fidelity.batch_size}"
            self._requeue(trial, reason, kind=kind, fidelity=fidelity)
        else:
            return False
        return True

    def _requeue(
        self,
        trial: OpenTrial,
        reason: str,
        *,
        kind: FailureKind | None = None,
        pause: float = 0.0,
        fidelity: Fidelity | None = None,
    ) -> None:
        trial.attempt += 1
        trial.status, trial.epoch, trial.in_flight = Status.ASKED, 0, False
        trial.not_before = self._clock() + pause
        if kind is not None:
            trial.losses[kind] += 1
        trial.fidelity = fidelity or trial.fidelity
        self._record(Requeued(trial.proposal.number, trial.attempt, reason, kind, fidelity))
        self._waiting.append(trial)

    def _pause(self, trial: OpenTrial, evaluation: Evaluation) -> None:
        """Keep what a trial has at its rung, where it waits for a verdict."""
        number = trial.proposal.number
        evaluation = self._keep_curve(number, evaluation)
        assert evaluation.stopped_after is not None, "a paused trial knows where"
        trial.status, trial.in_flight, trial.paused = Status.PAUSED, False, evaluation
        # It is on the disk with the verdict, which alone is acted on.
        self._record(Paused(number, trial.attempt, evaluation), sync=False)
        self._halving.add(number, evaluation.stopped_after, evaluation.objective)

    def _judge(self) -> None:
        """Let paused trials go on or end, those on which there can be a verdict by now."""
        for number, trial in list(self._open.items()):  # in the order of numbers: a verdict can allow the next
            if trial.paused is None:
                continue
            rung = trial.paused.stopped_after
            assert rung is not None, "a paused trial knows where"
            if self._window is not None and any(
                other.is_judged and not self._halving.is_at(lower, rung)
                for lower, other in self._open.items()
                if lower < number
            ):
                continue
            if self._halving.goes_on(number, rung):
                trial.attempt += 1
                objective = trial.paused.objective
                trial.status, trial.epoch, trial.passed, trial.paused = Status.ASKED, 0, rung, None
                self._record(Promoted(number, trial.attempt, rung, objective))
                self._waiting.append(trial)
            else:
                self._finish(trial, trial.attempt, trial.paused)

    def _finish(self, trial: OpenTrial, attempt: int, result: Result) -> None:
        number = trial.proposal.number
        if attempt < trial.attempt:  # an attempt given up was faster: the present one is not needed
            if trial.in_flight:
                self._executor.cancel(number)
            elif trial.paused is None:
                self._waiting.remove(trial)
        if isinstance(result, Evaluation) and result.stopped_after is None:
            result = self._keep_curve(number, result)
        self._record(Finished(number, attempt, result))
        self._journal.unmirror_file(self._folder.remove_checkpoint(number))
        del self._open[number]
        # The controller gets what the journal has, so that a replayed one knows the same.
        self._untold[number] = result
        if self._window is None:
            self._tell(number)
        if isinstance(result, Failure) and RULES[result.kind].stops_run:
            self._count_error(number, result)

    def _keep_curve(self, number: int, evaluation: Evaluation) -> Evaluation:
        """Write the curve beside the journal; return the rest."""
        self._journal.mirror_file(self._folder.write_curve(number, evaluation.curve))
        return replace(evaluation, curve=())

    def _count_error(self, number: int, failure: Failure) -> None:
        self._num_errors += 1
        if self._num_errors >= self._config.executor.max_errors:
            what = "invalid data" if failure.kind is FailureKind.INVALID_DATA else "a bug"
            raise UserError(
                f"{self._num_errors} trials failed by what others may fail by too, the last one, {number}, by {what}: "
                f"{failure.message}; see `spinenas show {self._folder.path} {number} --json` for the traceback, mend "
                "it and resume the run"
            )

    def _tell(self, number: int) -> None:
        self._controller.tell(number, self._untold.pop(number))
        self._num_told += 1

    def _record(self, event: Event, *, sync: bool = True) -> None:
        event = replace(event, at=now())
        self._journal.append(event, sync=sync)
        self._time.add(event)
        self._display.show(event)
