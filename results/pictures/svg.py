"""Text and numbers in SVG, and rules in two sets of colours; knows nothing of what is drawn."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.sax.saxutils import escape


def escaped(text: str) -> str:
    """Text for XML, characters that it cannot hold replaced."""
    return escape(re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text))


def text_width(text: str, size: float) -> float:
    """About the width of a line in user units; on the safe side, as the viewer's font is not known."""
    return 0.53 * size * len(text)


def cut(text: str, room: float, size: float) -> str:
    """Return a line of text without its middle if there is no room for all of it."""
    most = max(8, int(room / text_width("n", size)))
    if len(text) <= most:
        return text
    return text[: most // 2 - 2] + "..." + text[len(text) - (most - most // 2 - 2) :]


def short(value: float) -> str:
    """A length in a tenth of a unit, as short as it goes."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")


def style_sheet(rules: str, colours: Mapping[str, tuple[str, str]]) -> str:
    """Return rules in light colours and, where the viewer is dark, in dark ones.

    Args:
        rules: one rule a line, in which @name stands for a colour.
        colours: light and dark, by name.
    """
    light, dark = ({name: pair[place] for name, pair in colours.items()} for place in (0, 1))
    dark_rules = "\n".join(rule for rule in rules.strip().splitlines() if "@" in rule)
    return f"{_painted(rules, light)}@media (prefers-color-scheme: dark) {{\n{_painted(dark_rules, dark)}\n}}"


def _painted(rules: str, colours: Mapping[str, str]) -> str:
    return re.sub(r"@([a-z-]+)", lambda match: colours[match[1]], rules)
