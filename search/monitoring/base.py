"""The display interface; the base class shows nothing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from spinenas.results.storage.events import Event
from spinenas.search.monitoring.progress import Progress


class Display:
    """Shows a search. This base shows nothing; a display overrides what it needs."""

    def begin(self, progress: Progress) -> AbstractContextManager[object]:
        """Return the context manager around a session.

        Args:
            progress: at the start of the session; `show` adds each event to it.
        """
        return nullcontext()

    def show(self, event: Event) -> None:
        """Show an event, once the journal has it."""

    def name_networks(self, names: Mapping[str, str]) -> None:
        """Give networks names by network key, which are shown with their trials."""

    def note(self, text: str) -> None:
        """Show a message to the user."""
