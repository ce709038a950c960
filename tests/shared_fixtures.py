"""Finds the repository and the large golden fixtures, which are stored outside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def shared_folder(name: str) -> Path:
    """Return a folder of the shared fixtures, or skip the test; with CI=true a missing one is a failure."""
    folder = Path(os.environ.get("SPINENAS_SHARED", REPOSITORY.parent / "shared")) / name
    if not folder.is_dir():
        message = f"no shared fixtures at {folder}; set SPINENAS_SHARED to their folder"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return folder
