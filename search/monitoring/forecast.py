"""Predicted time left in a search; only the display uses it, and no decision depends on it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from spinenas.controller.base import Proposal
from spinenas.results.record import Evaluation, Fidelity
from spinenas.results.storage.events import Asked, EpochDone, Event, Finished, Requeued, Started
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
        trial_seconds: of a genotype at a fidelity, None for the task's own.
        mean_seconds: of a random genotype.
        epochs: of a trial whose proposal has no fidelity.
        workers: trials at a time.
        device: device type that was calibrated.
    """

    trial_seconds: Callable[[Architecture, Fidelity | None], float]
    mean_seconds: float
    epochs: int
    workers: int
    device: str


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
        1 if config.executor.kind == "serial" else config.executor.workers,
        task.device,
    )


@dataclass(slots=True)
class _Trial:
    """A trial without a result: its predicted duration and the epochs done."""

    seconds: float
    epochs: int
    done: int = 0

    @property
    def seconds_done(self) -> float:
        return self.seconds * self.done / self.epochs


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

    def ask(self, proposal: Proposal) -> None:
        """Take a trial that has no result yet."""
        fidelity = proposal.fidelity
        seconds = self.forecast.trial_seconds(proposal.genotype, fidelity)
        self._open[proposal.number] = _Trial(seconds, fidelity.epochs if fidelity else self.forecast.epochs)
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
                self._open[event.number].done = event.epoch
            case Requeued():
                self._open[event.number].done = 0
            case Finished():
                trial = self._open.pop(event.number)
                has_result = isinstance(event.result, Evaluation)
                self._has_finished |= has_result
                self._seconds_finished += trial.seconds if has_result else trial.seconds_done

    def seconds_left(self, num_left: int, elapsed_seconds: float) -> float | None:
        """Return the seconds until so many trials are finished; None while the trials run on an uncalibrated device.

        It follows the prediction until a trial is finished, and then the pace of this session.

        Args:
            num_left: trials without a result, including those not asked yet.
            elapsed_seconds: since the session began.
        """
        mean = self._seconds_asked / self._num_asked if self._num_asked else self.forecast.mean_seconds
        running = sum(trial.seconds_done for trial in self._open.values())
        left = sum(trial.seconds for trial in self._open.values()) - running
        left += max(0, num_left - len(self._open)) * mean
        if self._has_finished:
            return left * elapsed_seconds / (self._seconds_finished + running)
        return None if self._is_elsewhere else left / max(1, min(self.forecast.workers, num_left))
