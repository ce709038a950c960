"""Describes every configuration key. Types, defaults and meanings come from the configuration dataclasses."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from spinenas.controller.former_names import table_name
from spinenas.controller.registry import CONTROLLERS
from spinenas.search.config.amount import Amount
from spinenas.search.config.config import SearchConfig

_UNITS = {
    "_pixels": "pixels",
    "_minutes": "minutes",
    "_gib": "GiB",
    "accelerator_hours": "hours",
    "per_accelerator_hour": "currency per hour",
    "epochs": "epochs",
    "rungs": "epochs",
    "_images": "images",
    "train.batch_size": "images",
    "eval.batch_size": "images",
    "batch_size": "trials",
    "steps": "steps or share",
    "_madds": "multiply-adds",
    "_params": "parameters",
    "channels": "channels",
    "_trials": "trials",
    "workers": "workers",
    "_share": "share",
    "_fraction": "share",
    "step_at": "share",
    "cpus_per_worker": "CPU cores",
    "gpus_per_worker": "GPUs",
    "tpus_per_worker": "chips",
    "threads_per_trial": "threads",
}
"""Units by the end of a key's name, for keys with numbers; the first that fits counts."""

_TYPE_WORDS: dict[Any, str] = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "true or false",
    Amount: 'number or text such as "5G"',
}


@dataclass(frozen=True, slots=True)
class Key:
    """One configuration key.

    Attributes:
        name: the dotted name, such as "task.train.epochs".
        type: what a configuration file may give, in words.
        unit: what a number counts; "" where there is nothing to name.
        default: the plain value without a preset.
        meaning: one or more sentences.
    """

    name: str
    type: str
    unit: str
    default: Any
    meaning: str


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a configuration.

    Attributes:
        name: the dotted name; "" for the top level.
        meaning: one or more sentences.
        keys: its keys, without those of the tables inside it.
    """

    name: str
    meaning: str
    keys: tuple[Key, ...]


def configuration_tables() -> list[Table]:
    """Return all tables of a configuration in the order of a configuration file."""
    return list(_tables(SearchConfig, "", SearchConfig().to_json()))


def controller_tables() -> dict[str, Table]:
    """Return the table with the options of each controller, by name."""
    tables = {table.name: table for table in configuration_tables()}
    return {name: tables[f"controller.{table_name(name)}"] for name in CONTROLLERS}


def _tables(owner: type, name: str, defaults: dict[str, Any]) -> Iterator[Table]:
    meanings = attribute_docs(owner)
    keys, inner = [], []
    for field, hint in typing.get_type_hints(owner, include_extras=True).items():
        key = f"{name}.{field}".removeprefix(".")
        if dataclasses.is_dataclass(hint):
            inner.append((typing.cast(type, hint), key, defaults[field]))
        else:
            keys.append(Key(key, type_words(hint), _unit(key, hint), defaults[field], meanings.get(field, "")))
    summaries = {f"controller.{table_name(name)}": entry.summary for name, entry in CONTROLLERS.items()}
    yield Table(name, summaries.get(name) or summary(owner), tuple(keys))
    for part in inner:
        yield from _tables(*part)


def attribute_docs(owner: type) -> dict[str, str]:
    """Return the meaning of each attribute that the `Attributes:` section of a docstring lists."""
    section = (inspect.getdoc(owner) or "").partition("Attributes:\n")[2]
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if entry := re.match(r"    (\w+(?:, \w+)*): (.*)", line):
            names = entry[1].split(", ")
            meanings |= dict.fromkeys(names, entry[2])
        elif line.startswith(" " * 8):
            meanings |= {name: f"{meanings[name]} {line.strip()}" for name in names}
    return {name: _sentence(meaning) for name, meaning in meanings.items()}


def summary(owner: type) -> str:
    """Return the text of a docstring before its sections, as one line."""
    return " ".join((inspect.getdoc(owner) or "").partition("Attributes:\n")[0].split())


def _sentence(text: str) -> str:
    """Return an entry of a docstring as a sentence; None is the text "none" in a configuration file."""
    return re.sub(r"\bNone\b", '"none"', text[:1].upper() + text[1:])


def type_words(hint: Any) -> str:
    """Return the values that a configuration file may give for a type, in words."""
    if hint in _TYPE_WORDS:
        return _TYPE_WORDS[hint]
    if dataclasses.is_dataclass(hint):
        return f"table of {', '.join(field.name for field in dataclasses.fields(hint))}"
    options = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin is Literal:
        return " or ".join(f'"{option}"' for option in options)
    if origin in (types.UnionType, typing.Union):
        return " or ".join('"none"' if option is type(None) else type_words(option) for option in options)
    if origin is tuple and options[-1] is not Ellipsis:
        return f"list of {len(options)} {type_words(options[0])}s"
    if origin is tuple:
        return f"list of {type_words(options[0])}s"
    return str(getattr(hint, "__name__", hint))


def _unit(key: str, hint: Any) -> str:
    if not re.search("integer|number", type_words(hint)):
        return ""
    return next((unit for end, unit in _UNITS.items() if key.endswith(end)), "")
