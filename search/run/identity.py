"""What must be the same for a run to be continued, and which versions it ran with."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from spinenas.search.config.config import SearchConfig
from spinenas.search.executors.base import Task
from spinenas.space.errors import UserError
from spinenas.space.search_space import space_by_name

SEARCH_PROTOCOL = 1
"""Raised whenever the code changes what a resumed run would search: it is then no longer the same run.

The replicates at the end are not part of it: a run begun before they stopped at a settled winner stops there too."""


def identity_of(task: Task, config: SearchConfig) -> dict[str, Any]:
    """What must be the same for a run to be continued."""
    protocol = config.controller.chosen.protocol
    return {
        "space": space_by_name(config.space.name).identity,
        "data": task.fingerprint,
        "task_key": task.key,
        "search_protocol": SEARCH_PROTOCOL,
        **({} if protocol == 1 else {"controller_protocol": protocol}),  # without it, 1
    }


def check_identity(path: str | Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to continue a run as another one. Raises UserError naming what changed."""
    said = {
        "space": "the search space changed",
        "data": "the data changed",
        "task_key": "the task changed",
        "search_protocol": "this version of the code searches differently",
        "controller_protocol": "its controller proposes other networks in this version (the controller protocol)",
    }
    for name, words in said.items():
        default = 1 if name == "controller_protocol" else None
        old, new = before.get(name, default), now.get(name, default)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            changed = [key for key in new if old.get(key) != new[key]]
            old, new = {key: old.get(key) for key in changed}, {key: new[key] for key in changed}
        raise UserError(
            f"{path} cannot be resumed, {words}: it was {old}, it is {new}; bring back what it was, or start a new run"
        )


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    packages = ("spinenas", "torch", "ray", "numpy", "hotcoco")
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"  # such as our own code on a worker that it was sent to
