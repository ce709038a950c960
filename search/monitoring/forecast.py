"""Predicted time left in a search; only the display uses it, and no decision depends on it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from spinenas.controller.base import Proposal
from spinenas.results.record import Evaluation, Fidelity
from spinenas.results.storage.events import Asked, EpochDone, Event, Finished, Paused, Promoted, Requeued, Started
from spinenas.search.config.config import SearchConfig
from spinenas.search.executors.base import Task
from spinenas.space.baseline import Architecture
from spinenas.space.search_space import space_by_name

NUM_SAMPLED = 32
"""Number of random genotypes whose mean predicts a trial that is not asked yet."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Predicted durations of trials.

    Attributes:
        trial_seconds: of a genotype at a fidelity, None for the task's own; without a calibration, any unit of work.
        mean_seconds: of a random genotype.
        epochs: of a trial whose proposal has no fidelity.
        workers: trials at a time.
        device: device type that was calibrated; None without a calibration.
    """

    trial_seconds: Callable[[Architecture, Fidelity | None], float]
    mean_seconds: float
    epochs: int
    workers: int
    device: str | None


def forecast_for(task: Task, config: SearchConfig) -> Forecast | None:
    """Return the forecast from the calibration that is stored for the task; None if there is none.

    Args:
        task: prepared.
    """
    from spinenas.proxy_task.task import ProxyTask  # torch

    if not isinstance(task, ProxyTask):
        return None
    from spinenas.proxy_task.cost_model import load_model, random_genotypes

    model = load_model(task)
    if model is None:
        return None

    def trial_seconds(genotype: Architecture, fidelity: Fidelity | None) -> float:
        return model.predict(task, genotype, fidelity).trial_seconds

    genotypes = random_genotypes(space_by_name(config.space.name), NUM_SAMPLED)
    return Forecast(
        trial_seconds,
        statistics.fmean(trial_seconds(genotype, None) for genotype in genotypes),
        task.fidelity.epochs,
        _num_workers(config),
        task.device,
    )


def count_of_epochs(task: Task, config: SearchConfig) -> Forecast:
    """Return the forecast for a task without a calibration, by which each epoch is the same work."""
    epochs = task.fidelity.epochs

    def work(genotype: Architecture, fidelity: Fidelity | None) -> float:
        return float(fidelity.epochs if fidelity else epochs)

    return Forecast(work, float(epochs), epochs, _num_workers(config), None)


def _num_workers(config: SearchConfig) -> int:
    return 1 if config.executor.kind == "serial" else config.executor.workers


@dataclass(slots=True)
class _Trial:
    """A trial without a result.

    Attributes:
        seconds: its predicted duration.
        epochs: number of its epochs.
        done: last epoch done.
        before: epochs that an earlier session did; None until its first epoch in this session.
        until: epoch at which its controller lets it pause; None for the end.
    """

    seconds: float
    epochs: int
    done: int = 0
    before: int | None = 0
    until: int | None = None

    @property
    def seconds_left(self) -> float:
        if self.until is not None:
            return self.seconds * max(0, self.until - self.done) / self.epochs
        return self.seconds * (1 - self.done / self.epochs)

    @property
    def seconds_done(self) -> float:
        """Work of this session."""
        return self.seconds * max(0, self.done - (self.before or 0)) / self.epochs


@dataclass(slots=True)
class Workload:
    """Work done in this session and work left, in predicted seconds, computed from events.

    A trial counts by its own prediction, and a running trial by its epochs.
    """

    forecast: Forecast
    _open: dict[int, _Trial] = field(default_factory=dict)
    _seconds_finished: float = 0.0
    _has_finished: bool = False
    _seconds_asked: float = 0.0
    _num_asked: int = 0
    _is_elsewhere: bool = False

    @property
    def is_calibrated(self) -> bool:
        """Whether durations are predicted before anything is done."""
        return self.forecast.device is not None

    @property
    def num_open(self) -> int:
        """Number of trials without a result, paused ones included."""
        return len(self._open)

    def ask(self, proposal: Proposal, *, is_resumed: bool = False, done: int = 0) -> None:
        """Take a trial that has no result yet; one of an earlier session may continue from its checkpoint.

        Args:
            proposal: its `until` is the next pause.
            is_resumed: whether an earlier session asked for it.
            done: epoch after which it has paused.
        """
        fidelity = proposal.fidelity
        seconds = self.forecast.trial_seconds(proposal.genotype, fidelity)
        epochs = fidelity.epochs if fidelity else self.forecast.epochs
        trial = _Trial(seconds, epochs, done, before=None if is_resumed else 0, until=proposal.until)
        self._open[proposal.number] = trial
        self._seconds_asked += seconds
        self._num_asked += 1

    def add(self, event: Event) -> None:
        """Take the next event of the journal."""
        match event:
            case Asked():
                self.ask(Proposal.from_json(event.proposal))
            case Started():
                self._is_elsewhere |= event.device != self.forecast.device
            case EpochDone():
                trial = self._open[event.number]
                trial.done = min(event.epoch, trial.epochs)
                if trial.before is None:
                    trial.before = trial.done - 1
            case Requeued():
                self._open[event.number].done = 0
            case Paused() if self._open[event.number].until is not None:
                self._open[event.number].done = event.evaluation.stopped_after or 0
                self._has_finished = True
            case Promoted() if event.num_told is not None:
                self._open[event.number].until = event.until
            case Finished():
                trial = self._open.pop(event.number)
                has_result = isinstance(event.result, Evaluation)
                self._has_finished |= has_result
                if has_result:
                    trial.done = trial.until or trial.epochs
                self._seconds_finished += trial.seconds_done

    def seconds_left(self, num_left: float, elapsed_seconds: float) -> float | None:
        """Return the seconds until so many trials are finished; None while they are unknown.

        With a calibration of this device it follows the prediction until a trial is finished or paused, and then the
        pace of this session. Without one it follows the pace from the first epoch on.

        Args:
            num_left: trials without a result, including those not asked yet. If trainings pause, the latter are a
                number of epochs, in complete trainings.
            elapsed_seconds: since the session began.
        """
        mean = self._seconds_asked / self._num_asked if self._num_asked else self.forecast.mean_seconds
        left = sum(trial.seconds_left for trial in self._open.values())
        left += max(0, num_left - self.num_open) * mean
        done = self._seconds_finished + sum(trial.seconds_done for trial in self._open.values())
        if done and (self._has_finished or self._is_elsewhere or not self.is_calibrated):
            return left * elapsed_seconds / done
        return (
            None
            if self._is_elsewhere or not self.is_calibrated
            else left / max(1, min(self.forecast.workers, num_left))
        )
