"""Runs searches: configuration, driver, executors, studies and the command line.

A name of this package is imported when it is used, so that a command which reads a run does not load what runs one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spinenas.search.config.config import SearchConfig
    from spinenas.search.config.presets import PRESETS, preset
    from spinenas.search.run.lifecycle import resume, run_search
    from spinenas.search.run.run import Run

__all__ = ["PRESETS", "Run", "SearchConfig", "preset", "resume", "run_search"]

_MODULES = {
    "PRESETS": "config.presets",
    "Run": "run.run",
    "SearchConfig": "config.config",
    "preset": "config.presets",
    "resume": "run.lifecycle",
    "run_search": "run.lifecycle",
}
"""Where each name is defined."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
