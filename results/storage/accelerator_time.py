"""How much accelerator time a run has taken, from its events alone."""

from __future__ import annotations

from datetime import datetime
from typing import Any


class AcceleratorTime:
    """A sum over the attempts at trials: how long each ran times how many accelerators it had.

    What an attempt took whose driver died counts until the last event that driver wrote.
    """

    def __init__(self) -> None:
        self._running: dict[int, tuple[str, float]] = {}  # by trial number: since when, with how many
        self._until_rung: dict[int, float] = {}  # by number of an open trial: seconds of attempts that came to a rung
        self._seconds = 0.0
        self._trial_seconds = 0.0
        self._num_trials = 0
        self._last = ""

    def add(self, event: dict[str, Any]) -> None:
        """Take the next event of the journal."""
        kind = event["event"]
        if kind == "started":
            self._running[event["number"]] = event["at"], event.get("accelerators", 1.0)
        elif kind in ("told", "requeued", "paused"):
            seconds = self._end(event["number"], event["at"])
            if kind == "paused":
                self._until_rung[event["number"]] = self._until_rung.get(event["number"], 0.0) + seconds
            elif kind == "told":
                seconds += self._until_rung.pop(event["number"], 0.0)
            if kind == "told" and seconds:
                self._trial_seconds += seconds
                self._num_trials += 1
        elif kind == "resumed":
            for number in list(self._running):
                self._end(number, self._last)
        self._last = event.get("at", self._last)

    def hours(self, now: str) -> float:
        """What was taken up to now (UTC, ISO 8601), by the attempts that run as well."""
        running = sum(_seconds(since, now) * count for since, count in self._running.values())
        return (self._seconds + running) / 3600

    def hours_with_others(self, now: str, num_others: int) -> float:
        """What it will be, at the mean of the trials so far, when those that run and so many others are finished."""
        mean = self._trial_seconds / self._num_trials if self._num_trials else 0.0
        running = 0.0
        for number, (since, count) in self._running.items():
            before = self._until_rung.get(number, 0.0)
            running += max(mean - before, _seconds(since, now) * count)
        return (self._seconds + running + num_others * mean) / 3600

    @property
    def num_running(self) -> int:
        """Attempts that run."""
        return len(self._running)

    def _end(self, number: int, at: str) -> float:
        since, count = self._running.pop(number, (at, 0.0))
        seconds = _seconds(since, at) * count
        self._seconds += seconds
        return seconds


def _seconds(since: str, until: str) -> float:
    return max(0.0, (datetime.fromisoformat(until) - datetime.fromisoformat(since)).total_seconds())
