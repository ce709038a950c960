"""Writes a configuration as a TOML file that explains every key and where its value comes from."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from spinenas.controller.former_names import table_name, with_current_names
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.document import toml_value, value_at, with_overrides
from spinenas.search.config.presets import preset
from spinenas.search.config.reference import Key, configuration_tables

_WIDTH = 100


def sources(
    config: SearchConfig, document: Mapping[str, Any], overrides: Mapping[str, Any], *, origin: str = "file"
) -> dict[str, str]:
    """Return where each value of a resolved configuration comes from, by dotted key.

    Args:
        config: the resolved configuration.
        document: the tables of a file or a run; they may name a preset.
        overrides: values by dotted key that were laid over the document.
        origin: what the document is, "file" or "run".
    """
    values, missing = config.to_json(), object()
    layers = {"command line": with_current_names(with_overrides({}, overrides)), origin: with_current_names(document)}
    of_preset = preset(document["preset"]).to_json() if "preset" in document else {}
    found = {}
    for key in (key for table in configuration_tables() for key in table.keys):
        value, preset_value = value_at(values, key.name), value_at(of_preset, key.name, key.default)
        given = [name for name, layer in layers.items() if value_at(layer, key.name, missing) is not missing]
        if given:
            found[key.name] = given[0]
        elif value == preset_value != key.default:
            found[key.name] = f"preset {document['preset']}"
        else:
            found[key.name] = "default" if value == key.default else "derived"
    return found


def commented_toml(config: SearchConfig, sources: Mapping[str, str]) -> str:
    """Return a configuration as TOML that `load_config` reads back as the same configuration.

    Options of controllers other than the chosen one are left out where they have their defaults.

    Args:
        config: what to write.
        sources: where each value comes from, by dotted key.
    """
    values = config.to_json()
    chosen = f"controller.{table_name(config.controller.name)}"
    blocks = []
    for table in configuration_tables():
        is_unused = table.name.startswith("controller.") and table.name != chosen
        keys = [key for key in table.keys if not is_unused or value_at(values, key.name) != key.default]
        if not keys:
            continue
        lines = [*_comment(table.meaning), *([f"[{table.name}]"] if table.name else [])]
        for key in keys:
            lines += ["", *_key_lines(key, value_at(values, key.name), sources[key.name])]
        blocks.append("\n".join(lines))
    return "\n\n\n".join(blocks) + "\n"


def _key_lines(key: Key, value: Any, source: str) -> Iterator[str]:
    yield from _comment(key.meaning + (f" Unit: {key.unit}." if key.unit else ""))
    note = source if value == key.default else f"{source}; the default is {toml_value(key.default)}"
    yield f"{key.name.rpartition('.')[2]} = {toml_value(value)}  # {note}"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2, break_on_hyphens=False, break_long_words=False)]
