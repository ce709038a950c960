"""Times in the format of events."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """Current time in the format of events: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
