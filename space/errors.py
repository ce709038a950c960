"""The exception for invalid input, and helpers for its messages.

The command line prints the message and exits with status 1 or 2; every other exception is a bug of ours.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Invalid input. The message is one sentence that names the thing, the rule and the remedy."""


class GenotypeError(UserError):
    """A genotype breaks a rule; the message names the block and the rule."""


@contextmanager
def explained_os_errors(problem: str, remedy: str) -> Iterator[None]:
    """Turn an error of the operating system in the block into a UserError: "PROBLEM: cause; REMEDY".

    These are each OSError, and the ValueErrors that Python raises for a path that the system cannot have: one with a
    NUL character, or with a character that the locale cannot encode. Other ValueErrors pass.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        cause = _cause_in_the_system(error)
        if cause is None:
            raise
        raise UserError(f"{problem}: {cause}; {remedy}") from error


def _cause_in_the_system(error: OSError | ValueError) -> str | None:
    """Return why the operating system refused; None for an error with another origin."""
    match error:
        case OSError():
            return error.strerror or first_line(error)
        case UnicodeEncodeError():
            character = error.object[error.start]
            return f"the encoding {error.encoding} of this system's file names has no character {character!a}"
        case ValueError() if str(error).startswith("embedded null"):
            return "the path contains the character NUL"
    return None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type if the message is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message: "; did you mean 'x'?" or a list of the known names.

    Without a similar name, the shortest one that contains the name or has the same number is suggested:
    spinenet-49s for 49s, r50-fpn for resnet-50.
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    close = close or [other for other in known if name and other.startswith(name.lower())]
    if len(name) > 1:
        close = close or sorted((other for other in known if name.lower() in other), key=len)
    numbers = set(re.findall(r"\d+", name))
    close = close or sorted((other for other in known if numbers & set(re.findall(r"\d+", other))), key=len)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(known)}" if known else ""
