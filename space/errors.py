"""The one exception for everything a user gave that cannot be used; it knows nothing of what the rules are.

The command line prints its sentence and exits with status 1 or 2; every other exception is a bug of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A value from outside is wrong. The message is one sentence: the thing, the rule and the remedy."""


class GenotypeError(UserError):
    """A genotype breaks a rule; the message names the block and the rule."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or what it is if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" or a list of the known names, to end an error message with."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    close = close or [other for other in known if name and other.startswith(name.lower())]
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(known)}" if known else ""
