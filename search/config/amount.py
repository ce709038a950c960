"""Reads large numbers with a suffix, such as 60G or 28.5M."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from spinenas.space.errors import UserError

_FACTORS = {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def amount(text: str) -> float:
    """Return the number that a text such as "5G" means, in powers of a thousand. Raises UserError."""
    factor = _FACTORS.get(text.strip()[-1:].upper())
    try:
        return float(text.strip()[:-1]) * factor if factor else float(text)
    except ValueError:
        raise UserError(f"{text!r} is not a number; write it as 5G, 28.5M or 5e9") from None


def _from_document(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return amount(value)
    except UserError:
        raise PydanticCustomError("amount", 'it is a number such as 5e9, or a text such as "5G" or "28.5M"') from None


Amount = Annotated[float, BeforeValidator(_from_document)]
"""A number that a configuration may also give as a text with a suffix."""
