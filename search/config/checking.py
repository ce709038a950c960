"""Makes configuration dataclasses from plain data, and explains the first problem in one sentence."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from spinenas.search.config.suggestions import suggested_keys
from spinenas.space.errors import UserError

T = TypeVar("T")


@cache
def _adapter(config: type) -> TypeAdapter[Any]:
    # The tuple makes TypeAdapter accept a configuration for plain dataclasses.
    return TypeAdapter(tuple[config], config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))  # type: ignore[valid-type]


def checked(config: type[T], data: Mapping[str, Any]) -> T:
    """Make a configuration dataclass from plain data. Raises UserError naming the first key that is wrong."""
    # Strict mode reads JSON text: tables become dataclasses and lists become tuples. Integers become floats where
    # needed, and nothing else is converted.
    try:
        made: T = _adapter(typing.cast(type, config)).validate_json(json.dumps([data], default=str))[0]
    except ValidationError as error:
        raise UserError(_sentence(config, error)) from None
    return made


def _sentence(config: type, error: ValidationError) -> str:
    """Return the first problem with its key, and the number of further ones, as a sentence."""
    problems = error.errors()
    problem = problems[0]
    path = tuple(str(part) for part in problem["loc"][1:])
    key = ".".join(path)
    if problem["type"] == "unexpected_keyword_argument":
        text = f"configuration key {key!r} is unknown{_nearest_key(config, path)}"
    elif problem["type"] == "missing":
        text = f"configuration key {key!r} is missing; give it a value"
    elif isinstance(cause := problem.get("ctx", {}).get("error"), UserError):
        text = str(cause)
    else:
        rule = problem["msg"].replace("Input should", "it should")
        text = f"configuration key {key!r} is {problem['input']!r}; {rule}"
    return text + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")


def _nearest_key(config: type, path: tuple[str, ...]) -> str:
    """Return the end of a sentence: the keys that an unknown one may mean, or else the keys of its table."""
    known = list(dotted_keys(config))
    if suggested := suggested_keys(".".join(path), known):
        return f"; did you mean {' or '.join(map(repr, suggested))}?"
    table = ".".join(path[:-1])
    siblings = [key for key in known if key.rpartition(".")[0] == table]
    return f"; known are {', '.join(sorted(siblings))}" if siblings else ""


def dotted_keys(part: type, prefix: str = "") -> Iterator[str]:
    """Yield every key of a configuration dataclass, including those of its parts."""
    for name, hint in typing.get_type_hints(part).items():
        yield prefix + name
        for option in typing.get_args(hint) or (hint,):
            if isinstance(option, type) and dataclasses.is_dataclass(option):
                yield from dotted_keys(option, f"{prefix}{name}.")


def check_positive(table: str, part: Any, *names: str) -> None:
    """Raise UserError unless each of these attributes of a table is None or a finite number above 0."""
    for name in names:
        value = getattr(part, name)
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{table}.{name} is {value}; it is a number above 0")
