"""Former names of controllers and their options, as stored runs, configurations and kept outcomes may have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED_CONTROLLERS = {"screened": "predictor-guided"}
RENAMED_OPTIONS = {"optimism": "ucb_coefficient"}

REMOVED_CONTROLLERS = {
    "hybrid": (
        "this version no longer has the controller 'hybrid'; start a new run with 'predictor-guided', which finds "
        "networks as good, or use the version that this run was begun with (`versions` in its run.json)"
    )
}
"""Error message for each removed controller, if it is chosen. Its table of options is ignored otherwise."""


def current_name(name: str) -> str:
    """Return the present name of a controller; an unknown name is returned unchanged."""
    return RENAMED_CONTROLLERS.get(name, name)


def current_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a controller's options under their present names."""
    return {RENAMED_OPTIONS.get(option, option): value for option, value in options.items()}


def table_name(name: str) -> str:
    """Return the configuration's name for a controller's table of options."""
    return name.replace("-", "_")


def removal_message(document: Mapping[str, Any]) -> str | None:
    """Return the error message of the removed controller that a configuration document chooses; None for any other."""
    given = document.get("controller")
    name = given.get("name") if isinstance(given, Mapping) else None
    return REMOVED_CONTROLLERS.get(name) if isinstance(name, str) else None


def with_current_names(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration document whose table `controller` has the present names."""
    given = document.get("controller")
    if not isinstance(given, Mapping):
        return dict(document)
    former = {table_name(name): table_name(new) for name, new in RENAMED_CONTROLLERS.items()}
    tables: dict[str, Any] = {}
    for key, value in given.items():
        name = former.get(table_name(key), table_name(key))
        if name in REMOVED_CONTROLLERS:
            continue
        if isinstance(value, Mapping):
            tables[name] = {**tables.get(name, {}), **current_options(value)}
        else:
            tables[key] = value
    if isinstance(given.get("name"), str):
        tables["name"] = current_name(given["name"])
    return {**document, "controller": tables}
