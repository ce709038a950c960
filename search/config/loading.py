"""Reads a configuration from a TOML document, which may start from a preset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spinenas.controller.former_names import with_current_names
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.document import merged_tables, read_document, with_overrides
from spinenas.search.config.presets import preset
from spinenas.space.errors import UserError


def load_config(document: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> SearchConfig:
    """Make a configuration from a TOML document, which may name a preset. Raises UserError.

    Args:
        document: nested tables; `preset` names what to start from, else the defaults are.
        overrides: values by dotted key such as "task.train.epochs", which win.
    """
    tables = with_current_names({key: value for key, value in document.items() if key != "preset"})
    given = merged_tables(tables, with_current_names(with_overrides({}, overrides or {})))
    if "preset" in document:
        if not isinstance(document["preset"], str):
            raise UserError(f'preset is {document["preset"]!r}; it is the name of one, such as "quickstart"')
        given = merged_tables(preset(document["preset"]).to_json(), given)
    return SearchConfig.from_json(given)


def load_config_file(path: str | Path, overrides: Mapping[str, Any] | None = None) -> SearchConfig:
    """Read a TOML file. Raises UserError.

    Args:
        path: the file; its key `preset` names what to start from.
        overrides: values by dotted key, which win over the file.
    """
    return load_config(read_document(Path(path))[1], overrides)
