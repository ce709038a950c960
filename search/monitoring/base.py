"""The display interface, and a display that shows nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from spinenas.results.leaderboard import ScalarizedObjective
from spinenas.results.storage.events import Event
from spinenas.results.storage.run_state import RunState
from spinenas.search.monitoring.forecast import Forecast


class Display(Protocol):
    """Shows a search. `begin` gives a context manager around it; `show` gets each event once the journal has it."""

    def expect(self, forecast: Forecast) -> None:
        """Take the predicted durations of trials, before `begin`; not called without a prediction."""

    def begin(
        self, num_trials: int, past: RunState | None, scalarize: ScalarizedObjective | None = None
    ) -> AbstractContextManager[object]:
        """Start the display.

        Args:
            past: state of a run that is resumed.
            scalarize: the objective by which networks are compared; None for AP itself.
        """

    def show(self, event: Event) -> None:
        """Show an event."""

    def note(self, text: str) -> None:
        """Show a message to the user."""


class SilentDisplay:
    """A display that shows nothing."""

    def expect(self, forecast: Forecast) -> None:
        pass

    def begin(
        self, num_trials: int, past: RunState | None, scalarize: ScalarizedObjective | None = None
    ) -> AbstractContextManager[object]:
        return nullcontext()

    def show(self, event: Event) -> None:
        pass

    def note(self, text: str) -> None:
        pass
