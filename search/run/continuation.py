"""What may change between two sessions of a run: where its data lie, and package versions."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spinenas.controller.former_names import removal_message
from spinenas.proxy_task.config import BUILT_IN, DataConfig
from spinenas.results.storage.run_folder import RunFolder
from spinenas.results.storage.run_state import RunState
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.document import read_document, toml_text, value_at, with_overrides
from spinenas.search.config.loading import with_changes
from spinenas.space.errors import UserError

EXPLICIT_PATHS = ("train_annotations", "train_images", "val_annotations", "val_images")

DATA_PATHS = ("folder", *EXPLICIT_PATHS, "cache_folder")
"""Keys of task.data that say where the data lie. The data themselves are compared by their fingerprint."""


MOVED = "# The data lie elsewhere since then. The configuration as given when the run began:\n"
"""Comment of a config.toml, before the former text."""


def check_resumable(folder: RunFolder) -> None:
    """Raise UserError for a run of an earlier version that can only be read.

    These are searches whose controller was removed, and replays whose journal does not say what was planned.
    """
    if (message := removal_message(folder.config())) is not None:
        raise UserError(message)
    if folder.run_info().get("kind") == "replay":
        raise UserError(
            f"{folder.path} holds a replay that an earlier version began, which can be shown but not resumed; "
            "give its `spinenas replay` command with another --out"
        )


def extended(path: str | Path, config: SearchConfig, changes: Mapping[str, Any]) -> SearchConfig:
    """Return the configuration of a run with a larger budget. Raises UserError for a smaller one, or for two.

    Args:
        path: of the run.
        config: its configuration with all earlier changes.
        changes: what is given now: num_trials or epochs, and max_accelerator_hours.
    """
    if "num_trials" in changes and "epochs" in changes:
        raise UserError("--trials and --epochs both set the budget; give one")
    found = with_changes(config, [changes])
    if found.num_epochs < config.num_epochs:
        unit, before = "trials", config.budget.num_trials
        if "epochs" in changes or config.budget.epochs is not None:
            unit, before = "epochs", config.num_epochs
        given = found.num_epochs if unit == "epochs" else found.budget.num_trials
        raise UserError(f"{path} has a budget of {before} {unit}; it can be extended, but not reduced to {given}")
    return found


def with_data(config: SearchConfig, place: DataConfig | str | Path | None) -> SearchConfig:
    """Return the configuration with its data at another place; None leaves them where they are.

    Args:
        place: a data set folder, "built-in", or a configuration whose paths, which are absolute, are taken.
    """
    if place is None:
        return config
    if isinstance(place, DataConfig):
        paths = {name: getattr(place, name) for name in DATA_PATHS}
    else:
        folder = BUILT_IN if str(place) == BUILT_IN else str(Path(place).expanduser().absolute())
        paths = dict.fromkeys(EXPLICIT_PATHS) | {"folder": folder}
    return replace(config, task=replace(config.task, data=replace(config.task.data, **paths)))


def keep_data_paths(folder: RunFolder, data: DataConfig) -> list[Path]:
    """Write where the data lie now into config.json and config.toml, and return these files. Raises UserError."""
    document = folder.config()
    document["task"]["data"] |= {name: getattr(data, name) for name in DATA_PATHS}
    return folder.write_config(document, _moved_toml(folder.path / "config.toml", data))


def _moved_toml(path: Path, data: DataConfig) -> str | None:
    """Return the configuration as given with other paths of the data, the former text as comments below.

    None if the file is missing, damaged or without a key.
    """
    try:
        text, document = read_document(path)
    except UserError:
        return None
    if not document:
        return None
    paths = {f"task.data.{name}": getattr(data, name) for name in DATA_PATHS}
    named = {key: value for key, value in paths.items() if value is not None or value_at(document, key) is not None}
    moved = toml_text(with_overrides(document, named))
    if text == toml_text(document):  # written by spinenas
        return moved
    before, mark, earlier = text.partition(MOVED)
    kept = earlier if mark else "".join(f"# {line}".rstrip() + "\n" for line in before.splitlines())
    return f"{moved}{MOVED}{kept}"


def missing_data(data: DataConfig) -> str | None:
    """Return a path of the data that does not exist; None if all are there."""
    given = [data.train_annotations, data.train_images]
    paths = [data.folder] if None in given and data.folder not in ("", BUILT_IN) else given
    return next((path for path in paths if path is not None and not Path(path).exists()), None)


def elsewhere(run: Path, missing: str) -> str:
    """Return how to resume a run whose data lie elsewhere now."""
    return (
        f"{missing} does not exist here; if the data lie elsewhere now: "
        f"spinenas resume {shlex.quote(str(run))} --data FOLDER"
    )


def changed_versions(state: RunState, now: Mapping[str, str]) -> str | None:
    """Return in a sentence which package versions differ from those of the last session; None if none does."""
    sessions = [state.run, *state.resumes]
    last: Any = next((each["versions"] for each in reversed(sessions) if isinstance(each.get("versions"), dict)), {})
    changed = [
        f"{name} {last[name]} is now {version}" for name, version in now.items() if last.get(name, version) != version
    ]
    if not changed:
        return None
    return f"versions changed since the last session: {', '.join(changed)}; new trials may differ slightly"
