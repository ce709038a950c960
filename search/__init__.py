"""Runs searches: configuration, driver, executors, studies and the command line."""

from spinenas.search.config.config import SearchConfig
from spinenas.search.config.presets import PRESETS, preset
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.search.run.run import Run

__all__ = ["PRESETS", "Run", "SearchConfig", "preset", "resume", "run_search"]
