"""Running a search: configuration, presets, the loop, executors and the command line."""

from spinenas.search.config import SearchConfig
from spinenas.search.loop import resume, run_search
from spinenas.search.presets import PRESETS, preset
from spinenas.search.run import Run

__all__ = ["PRESETS", "Run", "SearchConfig", "preset", "resume", "run_search"]
