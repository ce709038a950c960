"""The events of a journal as JSON, for tests that compare what is on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spinenas.results.storage.events import Skipped
from spinenas.results.storage.journal import read_events


def json_events(path: Path) -> list[dict[str, Any]]:
    """Return all events that count, in order."""
    return [event.to_json() for event in read_events(path) if not isinstance(event, Skipped)]
