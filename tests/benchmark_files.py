"""Imports scripts of the folder benchmarks/."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from shared_fixtures import REPOSITORY

BENCHMARKS = REPOSITORY / "benchmarks"


def loaded_benchmark(name: str) -> ModuleType:
    """Import a benchmark as its own script does: with its folder first on the path."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))
