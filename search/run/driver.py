"""One session of a run: asks the controller, submits trials, and records every event before acting on it.

The driver knows neither how a controller works (`proposals.py` asks it) nor where jobs run (an executor does). Reports
of workers may be late, repeated, out of order or about unknown trials. The driver takes each one once or refuses it
with a reason (`open_trial.py`).
"""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from spinenas.controller.base import Continuation, Controller
from spinenas.results.record import Evaluation, Failure, FailureKind, Status
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
    Started,
)
from spinenas.results.storage.journal import Journal
from spinenas.results.storage.run_folder import RunFolder
from spinenas.results.storage.run_state import RunState
from spinenas.results.storage.utc import now
from spinenas.search.config.config import SearchConfig
from spinenas.search.executors.base import ENDS, Executor, Task, WorkerEvent
from spinenas.search.executors.failure_rules import RULES, pause_seconds
from spinenas.search.monitoring.base import Display
from spinenas.search.run.controller_replay import Result
from spinenas.search.run.halving import Halving
from spinenas.search.run.open_trial import OpenTrial, job_of, open_trial, refusal
from spinenas.search.run.proposals import Proposals
from spinenas.search.run.retry import retry_after
from spinenas.space.errors import UserError
from spinenas.space.random_streams import seed_for

logger = logging.getLogger(__name__)


def trial_seed(run_seed: int, key: str, replicate: int) -> int:
    """Seed of a training. It depends on run seed, network and replicate alone, so searches train a network alike."""
    return seed_for(run_seed, f"trial/{key}", replicate)


class Driver:
    """One session of a run. It alone writes the journal, asks, tells and submits.

    With halving, a trial is submitted up to its next rung and pauses there without a worker. In an ordered run a
    verdict waits until all trials of lower numbers have reached the rung or have ended. A controller can also name the
    epoch at which a trial pauses; it is told the result there, and may ask for more epochs at any later time.
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
        """Make a session; nothing happens before `run`.

        Args:
            config: the configuration with the current budget.
            window: steps asked ahead in an ordered run; a resumption with other workers does not change it.
            time_taken: accelerator time of earlier sessions.
            clock: returns seconds; used only for pauses between attempts.
        """
        self._config, self._folder, self._journal, self._task = config, folder, journal, task
        self._executor, self._display, self._clock = executor, display, clock
        self._proposals = Proposals(controller, config.budget, window=window, note=display.note)
        self._open: dict[int, OpenTrial] = {}  # trials without a result, by number
        self._waiting: list[OpenTrial] = []  # open trials to be submitted, in order of arrival
        self._halving = Halving(config.halving, by_number=window is not None)
        self._time = time_taken or AcceleratorTime()
        self._num_errors = 0

    def run(self) -> None:
        """Run until the budget is spent, nothing more is proposed, or an exception ends it.

        Raises UserError when the journal cannot be written, the run has another owner, or too many trials failed
        because of a bug or invalid data.
        """
        while True:
            # One moment for both: the wait must end when a trial that is not ready now becomes ready.
            moment = self._clock()
            self._submit(moment)
            # Without a free worker nothing was asked, so the controller may still have proposals.
            is_all_asked, active = self._proposals.is_all_asked, self._active()
            if not active and (self._executor.num_free > 0 or is_all_asked):
                self._end_parked()
                return
            if is_all_asked and all(trial.in_flight for trial in active):
                self._executor.release_idle()
            self._executor.wait(self._on_event, self._longest_wait(moment))

    def replay(self, state: RunState, epochs: Mapping[int, int]) -> None:
        """Restore the state of the controller, and queue the trials that have no result.

        Args:
            state: of the run.
            epochs: by number of a trial, the last epoch that it reported.
        """
        checkpointed = self._folder.checkpointed_trials()
        proposals = self._proposals.replay(state)
        for result in state.rung_results:
            self._halving.add(*result)
        for record in state.unfinished:
            trial = open_trial(state, record, proposals[record.number])
            self._open[record.number] = trial
            if record.status is Status.RUNNING:
                self._requeue(trial, Requeued(record.number, record.attempt + 1, "the search was stopped"))
                has_checkpoint = record.number in checkpointed or self._config.storage.mirror is not None
                if has_checkpoint and record.number in epochs:
                    self._display.note(
                        f"trial {record.number} was interrupted; it continues after epoch {epochs[record.number]}"
                    )
                else:
                    self._display.note(f"trial {record.number} was interrupted; it has no checkpoint and starts again")
            elif record.status is Status.ASKED:
                self._waiting.append(trial)
        self._judge()
        for number in checkpointed:
            if number in state.trials and number not in self._open:  # the driver died before removing it
                self._journal.unmirror_file(self._folder.remove_checkpoint(number))

    def record(self, event: Event, *, sync: bool = True) -> None:
        """Write an event to the journal with the present time, and show it."""
        event = replace(event, at=now())
        self._journal.append(event, sync=sync)
        self._time.add(event)
        self._display.show(event)

    def _active(self) -> list[OpenTrial]:
        """Trials that run, wait for a worker, or wait for a verdict of halving."""
        return [trial for trial in self._open.values() if not trial.is_parked]

    def _submit(self, moment: float) -> None:
        while self._executor.num_free > 0:
            ready = next((trial for trial in self._waiting if trial.not_before <= moment), None)
            if ready is not None:
                self._waiting.remove(ready)
            trial = ready or self._ask()
            if trial is None:
                return
            trial.in_flight = True
            folder = self._folder.trial_folder(trial.proposal.number).absolute()
            self._executor.submit(job_of(trial, folder, self._config.storage.mirror, self._next_rung(trial)))

    def _next_rung(self, trial: OpenTrial) -> int | None:
        if trial.until is not None:
            return trial.until
        if not trial.is_judged:
            return None
        return self._halving.next_rung(after=trial.passed, below=(trial.fidelity or self._task.fidelity).epochs)

    def _longest_wait(self, moment: float) -> float | None:
        """Seconds until a trial that pauses may be submitted; None if none does."""
        pauses = [trial.not_before - moment for trial in self._waiting if trial.not_before > moment]
        return min(pauses, default=None)

    def _ask(self) -> OpenTrial | None:
        """Return a new or continued trial, or None while nothing is asked for."""
        step = self._proposals.ask(self._time, now=now(), num_open=len(self._active()))
        if step is None:
            return None
        if isinstance(step, Continuation):
            trial = self._open[step.number]
            self._promote(trial, until=step.until, num_told=self._proposals.num_told)
            return trial
        key = step.network_key
        seed = trial_seed(self._config.seed, key, step.replicate)
        self.record(Asked(step.to_json(), key, seed, self._task.key, self._proposals.num_told))
        trial = OpenTrial(step, seed, step.fidelity, until=step.until)
        self._open[step.number] = trial
        return trial

    def _on_event(self, event: WorkerEvent) -> None:
        trial = self._open.get(event.number)
        reason = refusal(trial, event, num_asked=self._proposals.num_asked)
        if reason is not None:
            if isinstance(event, ENDS):
                self.record(Refused(event.number, event.attempt, reason))
            return
        assert trial is not None, "only reports of open trials are accepted"
        match event:
            case Started():
                trial.status = Status.RUNNING
                self.record(event, sync=False)
            case EpochDone():
                trial.epoch = event.epoch
                self.record(event, sync=False)
            case Paused():
                self._pause(trial, event.evaluation)
                self._judge()
            case Finished():
                again = None
                if isinstance(event.result, Failure) and event.attempt == trial.attempt:
                    again = retry_after(event.result, trial, self._config.executor, self._task.fidelity)
                if again is not None:
                    self._requeue(trial, again)
                else:
                    self._finish(trial, event.attempt, event.result)
                    self._judge()

    def _requeue(self, trial: OpenTrial, event: Requeued) -> None:
        """Queue a trial for another attempt. A trial that may always be tried again pauses first."""
        trial.attempt, trial.status, trial.epoch, trial.in_flight = event.attempt, Status.ASKED, 0, False
        if event.failure_kind is not None:
            trial.losses[event.failure_kind] += 1
            if RULES[event.failure_kind].again == "always":
                trial.not_before = self._clock() + pause_seconds(trial.losses[event.failure_kind])
        trial.fidelity = event.fidelity or trial.fidelity
        self.record(event)
        self._waiting.append(trial)

    def _pause(self, trial: OpenTrial, evaluation: Evaluation) -> None:
        """Record the result of a trial at its rung. The trial then waits for a verdict."""
        number = trial.proposal.number
        evaluation = self._keep_curve(number, evaluation)
        assert evaluation.stopped_after is not None, "a paused trial has the epoch of its rung"
        trial.status, trial.in_flight, trial.paused = Status.PAUSED, False, evaluation
        # Not synced: only the verdict is acted on, and its sync includes this line.
        # The controller acts on its results, so it is told them in the form of the journal.
        self.record(Paused(number, trial.attempt, evaluation), sync=trial.is_parked)
        if trial.is_parked:
            self._proposals.finish(number, evaluation)
        else:
            self._halving.add(number, evaluation.stopped_after, evaluation.objective)

    def _promote(self, trial: OpenTrial, *, until: int | None = None, num_told: int | None = None) -> None:
        """Continue a paused trial. The caller submits it."""
        assert trial.paused is not None, "only a paused trial continues"
        rung, objective = trial.paused.stopped_after, trial.paused.objective
        assert rung is not None, "a paused trial has the epoch of its rung"
        trial.attempt += 1
        trial.status, trial.epoch, trial.passed, trial.paused, trial.until = Status.ASKED, 0, rung, None, until
        self.record(Promoted(trial.proposal.number, trial.attempt, rung, objective, num_told, until))

    def _end_parked(self) -> None:
        """Give each trial that the controller paused and did not continue its result."""
        for number, trial in sorted(self._open.items()):
            assert trial.paused is not None, "all others have their results"
            self._close(number, trial.attempt, trial.paused)
            self._proposals.end(number, trial.paused)

    def _judge(self) -> None:
        """Continue or end each paused trial that can be judged now."""
        for number, trial in list(self._open.items()):  # in order of numbers, as a verdict can allow the next one
            if trial.paused is None or trial.is_parked:
                continue
            rung = trial.paused.stopped_after
            assert rung is not None, "a paused trial has the epoch of its rung"
            lower = [other for other, of in self._open.items() if other < number and of.is_judged]
            if not self._halving.can_judge(rung, lower):
                continue
            if self._halving.should_continue(number, rung):
                self._promote(trial)
                self._waiting.append(trial)
            else:
                self._finish(trial, trial.attempt, trial.paused)

    def _finish(self, trial: OpenTrial, attempt: int, result: Result) -> None:
        number = trial.proposal.number
        if attempt < trial.attempt:  # an earlier attempt was faster, so the current one is not needed
            if trial.in_flight:
                self._executor.cancel(number)
            elif trial.paused is None:
                self._waiting.remove(trial)
        if isinstance(result, Evaluation) and result.stopped_after is None:
            result = self._keep_curve(number, result)
        self._close(number, attempt, result)
        # The controller receives the result in the form of the journal, so that a replay gives it the same.
        self._proposals.finish(number, result)
        if isinstance(result, Failure) and RULES[result.kind].stops_run:
            self._count_error(number, result)

    def _close(self, number: int, attempt: int, result: Result) -> None:
        self.record(Finished(number, attempt, result))
        self._journal.unmirror_file(self._folder.remove_checkpoint(number))
        del self._open[number]

    def _keep_curve(self, number: int, evaluation: Evaluation) -> Evaluation:
        """Write the curve to its own file, and return the evaluation without it, but with its objectives by epoch."""
        self._journal.mirror_file(self._folder.write_curve(number, evaluation.curve))
        measured = tuple((int(entry["epoch"]), entry["AP"]) for entry in evaluation.curve if "AP" in entry)
        return replace(evaluation, curve=(), by_epoch=measured)

    def _count_error(self, number: int, failure: Failure) -> None:
        self._num_errors += 1
        if self._num_errors >= self._config.executor.max_errors:
            what = "invalid data" if failure.kind is FailureKind.INVALID_DATA else "a bug"
            raise UserError(
                f"{self._num_errors} trials failed because of a bug or invalid data, the last one, {number}, because "
                f"of {what}: {failure.message}; fix the cause and resume the run; the traceback is printed by: "
                f"spinenas show {shlex.quote(str(self._folder.path))} {number} --json"
            )
