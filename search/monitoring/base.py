"""The display interface, and a display that shows nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from spinenas.results.leaderboard import ScalarizedObjective
from spinenas.results.storage.events import Event
from spinenas.results.storage.run_state import RunState
from spinenas.search.monitoring.forecast import Forecast


class Display(Protocol):
    """Who watches a search; a context manager around it, told each event after it is in the journal."""

    def expect(self, forecast: Forecast) -> None:
        """Take what trials are predicted to take, before `begin`; never called where nothing is predicted."""

    def begin(
        self, num_trials: int, past: RunState | None, scalarize: ScalarizedObjective | None = None
    ) -> AbstractContextManager[object]:
        """Start watching.

        Args:
            past: state of a run that is resumed.
            scalarize: the objective by which networks are compared; None for AP itself.
        """

    def show(self, event: Event) -> None:
        """Take the next event."""

    def note(self, text: str) -> None:
        """Take a remark that is no event."""


class SilentDisplay:
    """A display for nobody."""

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
