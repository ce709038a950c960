"""Makes a configuration from a TOML document, which may begin with a preset."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spinenas.controller.former_names import removal_message, with_current_names
from spinenas.proxy_task.data.annotation_files.layout import is_coco_file
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.document import merged_tables, read_document, with_overrides, without_none
from spinenas.search.config.presets import PRESETS, preset
from spinenas.space.errors import UserError


def load_config(document: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> SearchConfig:
    """Make a configuration from a TOML document, which may name a preset. Raises UserError.

    Args:
        document: nested tables; the key `preset` names the preset with the other values.
        overrides: values by dotted key such as "task.train.epochs"; they win over the document.
    """
    overrides = overrides or {}
    document = with_one_budget(document, overrides)
    tables = with_current_names({key: value for key, value in document.items() if key != "preset"})
    given = without_none(merged_tables(tables, with_current_names(with_overrides({}, overrides))))
    if "preset" in document:
        if not isinstance(document["preset"], str):
            raise UserError(f'preset is {document["preset"]!r}; it is the name of a preset, such as "quickstart"')
        sizes = {f"budget.{name}": value for name, value in given.get("budget", {}).items()}
        given = merged_tables(with_one_budget(preset(document["preset"]).to_json(), sizes), given)
    return SearchConfig.from_json(given)


_SIZES = ("budget.num_trials", "budget.epochs")
"""Keys that say how many trainings a search may use; of a file and an override, the override counts."""


def with_one_budget(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document without the size of the budget, if an override gives it in trainings or epochs.

    Raises UserError if the overrides give both.
    """
    given = [key for key in _SIZES if overrides.get(key) is not None]
    if len(given) > 1:
        raise UserError("--trials and --epochs (budget.num_trials and budget.epochs) both set the budget; give one")
    budget = document.get("budget")
    if not given or not isinstance(budget, Mapping):
        return dict(document)
    kept = {name: value for name, value in budget.items() if f"budget.{name}" not in _SIZES}
    return {**document, "budget": kept}


RETIRED_KEYS = ("executor.processes_per_trial",)
"""Keys without effect that the configurations of earlier runs hold."""


def stored_config(data: Mapping[str, Any]) -> SearchConfig:
    """Make the configuration of a run from its config.json, which an earlier version may have written.

    A removed controller is replaced by the default one, so that the run can still be read; `resume` refuses such a run.
    Raises UserError.
    """
    tables = without_retired_keys(data)
    if removal_message(tables) is not None:
        del tables["controller"]
    return SearchConfig.from_json(tables)


def with_changes(config: SearchConfig, changes: Iterable[Mapping[str, Any]]) -> SearchConfig:
    """Return the configuration with the budget of the last resumption; trainings and epochs follow each other."""
    budget = config.budget
    for each in changes:
        given = {name: each[name] for name in ("num_trials", "epochs", "max_accelerator_hours") if name in each}
        if "epochs" in given:
            given["num_trials"] = max(1, given["epochs"] // config.task.train.epochs)
        elif "num_trials" in given:
            given["epochs"] = None
        budget = replace(budget, **given)
    return replace(config, budget=budget)


def without_retired_keys(data: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out RETIRED_KEYS, which are accepted in a run's config.json alone."""
    kept = dict(data)
    for key in RETIRED_KEYS:
        part, _, name = key.partition(".")
        if isinstance(kept.get(part), Mapping):
            kept[part] = {each: value for each, value in kept[part].items() if each != name}
    return kept


def load_config_file(path: str | Path, overrides: Mapping[str, Any] | None = None) -> SearchConfig:
    """Make a configuration from a TOML file. Raises UserError.

    Args:
        path: the file.
        overrides: values by dotted key; they win over the file.
    """
    return load_config(read_document(Path(path))[1], overrides)


def read_source(source: str) -> tuple[str | None, dict[str, Any]]:
    """Return the tables of a preset, a file or the folder of a run, and the text of a TOML file. Raises UserError."""
    path = Path(source)
    if source in PRESETS or not (path.exists() or path.suffix or path.name != source):
        return None, {"preset": source}
    if (path / "config.json").is_file():
        path = path / "config.json"
    elif path.is_dir():
        raise UserError(
            f"{source} is a folder without a run; name a preset, a TOML file or a run, and give a data set by --data"
        )
    elif is_coco_file(path):
        raise UserError(
            f"{source} is an annotation file, not a configuration; name a preset, a TOML file or a run, and give the "
            "data set by --data"
        )
    elif not path.exists() and (similar := difflib.get_close_matches(path.stem, PRESETS, n=1)):
        raise UserError(f"there is no file {source}; did you mean the preset {similar[0]!r}?")
    text, document = read_document(path)
    if path.suffix == ".json":  # of a run, perhaps of an earlier version
        return None, without_retired_keys(document)
    return text, document
