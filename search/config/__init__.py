"""The configuration of a search: its tables, presets and files."""

from spinenas.search.config.config import SearchConfig
from spinenas.search.config.constraints import ConstraintsConfig
from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.loading import load_config, load_config_file
from spinenas.search.config.objective import ObjectiveConfig
from spinenas.search.config.parts import BudgetConfig, HalvingConfig, LoggingConfig, SpaceConfig, StorageConfig
from spinenas.search.config.presets import PRESETS, preset

__all__ = [
    "PRESETS",
    "BudgetConfig",
    "ConstraintsConfig",
    "ControllerConfig",
    "ExecutorConfig",
    "HalvingConfig",
    "LoggingConfig",
    "ObjectiveConfig",
    "SearchConfig",
    "SpaceConfig",
    "StorageConfig",
    "load_config",
    "load_config_file",
    "preset",
]
