"""Accelerator time of a run, computed from its events alone."""

from __future__ import annotations

from datetime import datetime

from spinenas.results.storage.events import Asked, Event, Finished, Paused, Requeued, Resumed, Skipped, Started


class AcceleratorTime:
    """Sum over all attempts: duration times number of accelerators.

    An attempt whose driver was killed counts until this driver's last sign of life: its last event, or the last
    heartbeat of its lease, which the next session records.

    The mean duration of a trial, by which the time of further ones is predicted, includes all its rungs. A controller
    that pauses trainings asks for each rung on its own, and the mean is then that of a step from one to the next.
    """

    def __init__(self) -> None:
        self._running: dict[int, tuple[str, float]] = {}  # by trial number: start and number of accelerators
        self._until_rung: dict[int, float] = {}  # by number of an open trial: seconds of its attempts up to a rung
        self._stepwise: set[int] = set()  # trials whose controller pauses them
        self._seconds = 0.0
        self._trial_seconds = 0.0
        self._num_trials = 0
        self._last = ""

    def add(self, event: Event | Skipped) -> None:
        """Take the next event of the journal."""
        match event:
            case Asked(proposal):
                if proposal.get("until") is not None:
                    self._stepwise.add(event.number)
            case Started(number):
                self._running[number] = event.at, event.accelerators
            case Requeued(number):
                self._end(number, event.at)
            case Paused(number):
                seconds = self._until_rung.get(number, 0.0) + self._end(number, event.at)
                if number in self._stepwise:
                    self._count(seconds)
                else:
                    self._until_rung[number] = seconds
            case Finished(number):
                self._count(self._end(number, event.at) + self._until_rung.pop(number, 0.0))
            case Resumed(changes):
                for number in list(self._running):
                    self._end(number, self.until(changes.get("killed_at")))
        self._last = event.at or self._last

    def _count(self, seconds: float) -> None:
        if seconds:
            self._trial_seconds += seconds
            self._num_trials += 1

    def hours(self, now: str) -> float:
        """Accelerator hours up to now (UTC, ISO 8601), running attempts included."""
        running = sum(_seconds(since, now) * count for since, count in self._running.values())
        return (self._seconds + running) / 3600

    def hours_with_others(self, now: str, num_others: int) -> float:
        """Predicted hours when the running trials and `num_others` more have finished, at the mean of past trials."""
        mean = self._trial_seconds / self._num_trials if self._num_trials else 0.0
        running = sum(
            max(mean - self._until_rung.get(number, 0.0), _seconds(since, now) * count)
            for number, (since, count) in self._running.items()
        )
        return (self._seconds + running + num_others * mean) / 3600

    def until(self, killed_at: object) -> str:
        """When the attempts of a session that is over ended: at its last event, or its last sign of life after that."""
        return max(self._last, killed_at) if isinstance(killed_at, str) else self._last

    @property
    def num_running(self) -> int:
        """Number of running attempts."""
        return len(self._running)

    def _end(self, number: int, at: str) -> float:
        since, count = self._running.pop(number, (at, 0.0))
        seconds = _seconds(since, at) * count
        self._seconds += seconds
        return seconds


def _seconds(since: str, until: str) -> float:
    return max(0.0, (datetime.fromisoformat(until) - datetime.fromisoformat(since)).total_seconds())
