"""Writes a configuration as a TOML file that explains every key and where its value comes from."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from spinenas.search.config.config import SearchConfig
from spinenas.search.config.document import flattened, toml_value, with_overrides
from spinenas.search.config.presets import preset
from spinenas.search.config.reference import Key, configuration_tables

_WIDTH = 100


def sources(config: SearchConfig, document: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, str]:
    """Return where each value of a resolved configuration comes from, by dotted key.

    Args:
        config: the resolved configuration.
        document: the configuration file, which may name a preset.
        overrides: values by dotted key that were laid over the file.
    """
    defaults = dict(flattened(SearchConfig().to_json()))
    values = dict(flattened(config.to_json()))
    found = {key: "default" if value == defaults[key] else "derived" for key, value in values.items()}
    if "preset" in document:
        of_preset = dict(flattened(preset(document["preset"]).to_json()))
        changed = {key for key, value in of_preset.items() if value != defaults[key]}
        found |= dict.fromkeys(changed, f"preset {document['preset']}")
    found |= dict.fromkeys(dict(flattened(document)), "file")
    found |= dict.fromkeys(dict(flattened(with_overrides({}, overrides))), "command line")
    return {key: found[key] for key in values}


def commented_toml(config: SearchConfig, sources: Mapping[str, str]) -> str:
    """Return a configuration as TOML that `load_config` reads back as the same configuration.

    Options of controllers that are not named and options that have their defaults are left out.

    Args:
        config: what to write.
        sources: where each value comes from, by dotted key.
    """
    values = dict(flattened(config.to_json()))
    blocks = []
    for table in configuration_tables():
        is_unused = table.name.startswith("controller.") and table.name != f"controller.{config.controller.name}"
        keys = [key for key in table.keys if not is_unused or values[key.name] != key.default]
        if not keys:
            continue
        lines = [*_comment(table.meaning), *([f"[{table.name}]"] if table.name else [])]
        for key in keys:
            lines += ["", *_key_lines(key, values[key.name], sources[key.name])]
        blocks.append("\n".join(lines))
    return "\n\n\n".join(blocks) + "\n"


def _key_lines(key: Key, value: Any, source: str) -> Iterator[str]:
    yield from _comment(key.meaning + (f" Unit: {key.unit}." if key.unit else ""))
    note = source if value == key.default else f"{source}; the default is {toml_value(key.default)}"
    yield f"{key.name.rpartition('.')[2]} = {toml_value(value)}  # {note}"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2, break_on_hyphens=False, break_long_words=False)]
