"""Text, numbers and style sheets for SVG."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.sax.saxutils import escape


def escaped(text: str) -> str:
    """Escape text for XML, and replace characters that XML does not allow."""
    return escape(re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text))


def text_width(text: str, size: float) -> float:
    """Return a safe estimate of a line's width in user units; the viewer's font is unknown."""
    return 0.53 * size * len(text)


def cut(text: str, room: float, size: float) -> str:
    """Return a line of text, without its middle if it does not fit."""
    most = max(8, int(room / text_width("n", size)))
    if len(text) <= most:
        return text
    return text[: most // 2 - 2] + "..." + text[len(text) - (most - most // 2 - 2) :]


def short(value: float) -> str:
    """Format a length to a tenth of a unit, as short as possible."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")


def style_sheet(rules: str, colours: Mapping[str, tuple[str, str]]) -> str:
    """Return style rules with light colours, and dark ones for viewers in dark mode.

    Args:
        rules: one rule per line; @name stands for a colour.
        colours: (light, dark) by name.
    """
    light, dark = ({name: pair[place] for name, pair in colours.items()} for place in (0, 1))
    dark_rules = "\n".join(rule for rule in rules.strip().splitlines() if "@" in rule)
    return f"{_painted(rules, light)}@media (prefers-color-scheme: dark) {{\n{_painted(dark_rules, dark)}\n}}"


def _painted(rules: str, colours: Mapping[str, str]) -> str:
    return re.sub(r"@([a-z-]+)", lambda match: colours[match[1]], rules)
