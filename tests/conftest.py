"""Fixtures for all folders of tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `os.fsync` return at once. Tests that end no process do not need it, and it is slow."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
