"""The identity of a run, which must not change when the run resumes, and the package versions of a run."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from spinenas.controller.former_names import table_name
from spinenas.controller.registry import CONTROLLERS
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.document import flattened
from spinenas.search.executors.base import Task
from spinenas.space.errors import UserError
from spinenas.space.search_space import space_by_name

SEARCH_PROTOCOL = 1
"""Increased when a change of the code would make a resumed run search differently. Such a run cannot resume.

The rule that ends replicates once a winner is settled is not covered: it also applies to earlier runs."""


def identity_of(task: Task, config: SearchConfig) -> dict[str, Any]:
    """Return the values that must not change when a run resumes."""
    return identity(config, data=task.fingerprint, task_key=task.key)


def identity(config: SearchConfig, *, data: Any, task_key: Any) -> dict[str, Any]:
    """Return the identity of a run with this configuration, data fingerprint and task key."""
    protocol = config.controller.chosen.protocol
    return {
        "space": space_by_name(config.space.name).identity,
        "data": data,
        "task_key": task_key,
        "search_protocol": SEARCH_PROTOCOL,
        **({} if protocol == 1 else {"controller_protocol": protocol}),  # without it, 1
    }


def check_identity(path: str | Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise UserError, naming the changes, if a run cannot resume."""
    former_version = "use the version of spinenas that began it, or start a new run"
    said = {
        "space": ("the search space changed", "restore the former value, or start a new run"),
        "data": ("the data changed", ""),
        "task_key": (
            "the task changed (its key)",
            "restore config.json if it was edited; otherwise this version of spinenas computes the task differently, "
            "so use the former one, or start a new run",
        ),
        "search_protocol": ("this version of the code searches differently", former_version),
        "controller_protocol": (
            "its controller proposes other networks in this version (the controller protocol)",
            former_version,
        ),
    }
    for name, (words, remedy) in said.items():
        default = 1 if name == "controller_protocol" else None
        old, new = before.get(name, default), now.get(name, default)
        if old == new:
            continue
        if name == "data" and is_split_by_picture(old, new):
            raise UserError(
                f"{path} cannot be resumed: several entries or files of its data show one picture, and since the run "
                "began spinenas has learned to hold such images out together, so that the reward images are others; "
                "start a new run"
            )
        if name == "data" and isinstance(old, dict) and isinstance(new, dict):
            raise UserError(f"{path} cannot be resumed, {words}: {changed_data(old, new)}")
        raise UserError(f"{path} cannot be resumed, {words}: it was {old!r}, it is {new!r}; {remedy}")


def changed_data(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return how the data with the second fingerprint differ from those with the first, and what to do."""
    changed = {key for key in before | now if before.get(key) != now.get(key)}
    restore = "restore the {}, or start a new run with another --out"
    for split in ("train", "val"):
        annotations, images = f"{split}_annotations", f"{split}_images"
        if {annotations, images} <= changed:
            sizes = [_size(split, fingerprint) for fingerprint in (now, before)]
            words = f"{sizes[0]}, the run had {sizes[1]}" if sizes[0] != sizes[1] else "labels and files are others"
            return (
                f"these are other {split} images: {words}; name the folder of the run's own data by --data, restore "
                "them, or start a new run with another --out"
            )
        if annotations in changed:
            return f"the {split} annotations were edited since the run began; {restore.format('file')}"
        if images in changed:
            return f"{split} image files were replaced since the run began; {restore.format('files')}"
    words = ", ".join(f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in sorted(changed))
    return f"{words}; {restore.format('former value')}"


def _size(split: str, fingerprint: dict[str, Any]) -> str:
    """Return the number of images of a split and, for train, of categories, in words."""
    if split == "val":
        return f"{fingerprint.get('num_val_images')} images"
    num_images = fingerprint.get("num_train_images", 0) + fingerprint.get("num_reward_images", 0)
    num_categories = len(fingerprint.get("categories", ()))
    return f"{num_images} images of {num_categories} {'category' if num_categories == 1 else 'categories'}"


def is_split_by_picture(before: Any, now: Any) -> bool:
    """Whether the data is held out by pictures now, and was held out by image ids before, in an earlier version."""
    return isinstance(before, dict) and isinstance(now, dict) and "hold_out" in now and "hold_out" not in before


def check_same_search(path: Path, begun_with: SearchConfig, given: SearchConfig) -> None:
    """Raise UserError, naming the first difference, if a configuration belongs to another search."""
    kinds = [
        "a study of given architectures" if c.controller.name == "plan" else "a search" for c in (begun_with, given)
    ]
    if kinds[0] != kinds[1]:
        raise UserError(f"{path} holds {kinds[0]}, not {kinds[1]}; give another --out")
    before, after = (dict(flattened(config.to_json())) for config in (begun_with, given))
    fixed_keys = {"executor.ordered", "executor.threads_per_trial"}
    if begun_with.executor.ordered:
        fixed_keys.add("executor.workers")
    unnamed = tuple(f"controller.{table_name(name)}." for name in CONTROLLERS if name != begun_with.controller.name)
    for key in before | after:
        if key in fixed_keys or not key.startswith(("executor.", "logging.", *unnamed)):
            check_equal(path, key, before.get(key), after.get(key))


def check_equal(path: Path, name: str, before: object, given: object) -> None:
    """Raise UserError unless a value equals that at the start of the run."""
    if before != given:
        raise UserError(
            f"{path} holds another run: its {name} is {before!r}, not {given!r}; "
            "repeat the command that began it, or give another --out"
        )


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    packages = ("spinenas", "torch", "ray", "numpy", "hotcoco")
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"  # such as spinenas itself on a worker that received its code
