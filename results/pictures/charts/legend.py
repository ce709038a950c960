"""Legend of a chart, and names of its rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spinenas.results.pictures.charts.axes import Scale
from spinenas.results.pictures.charts.data_reduction import Point
from spinenas.results.pictures.charts.marks import Band, Bars, Dots, Line, Mark, Rule, Whiskers, mark_elements
from spinenas.results.pictures.charts.style import LINE_HEIGHT, MARGIN, TEXT_SIZE, WIDTH, room_for, text_element
from spinenas.results.pictures.svg import cut


def legend(marks: Sequence[Mark], top: float) -> tuple[list[str], float]:
    """Return one entry per name, in as many lines as needed, and the bottom y."""
    found: list[str] = []
    x, y = MARGIN, top
    seen = set()
    for mark in marks:
        if isinstance(mark, Rule) or not mark.name or mark.name in seen:
            continue
        seen.add(mark.name)
        name = cut(mark.name, (WIDTH - 2 * MARGIN - 24) / 1.2, TEXT_SIZE)
        room = 24 + room_for(name)
        if x > MARGIN and x + room > WIDTH - MARGIN:
            x, y = MARGIN, y + LINE_HEIGHT
        found += [_sample(mark, x, y - 4), text_element(x + 24, y, name, "")]
        x += room + 14
    return found, y + LINE_HEIGHT + 3 if found else top


def _sample(mark: Mark, x: float, y: float) -> str:
    """Return a sample of a mark, 18 units wide."""
    across, down = Scale(0, 1, x, x + 18), Scale(0, 1, y + 5, y - 5)
    match mark:
        case Dots():
            shown: Mark = Dots("", [(0.5, 0.5)], mark.colour, mark.style)
        case Line():
            shown = Line("", [(0, 0.5), (1, 0.5)], mark.colour, dashed=mark.dashed)
        case Band():
            shown = Band("", [(0, 0, 1), (1, 0, 1)], mark.colour)
        case Bars():
            shown = Bars("", [(0, 0, 1, 1)], mark.colour)
        case _:
            shown = Whiskers("", [(0, 0.5, 1, 0.5)], mark.colour if isinstance(mark, Whiskers) else "quiet")
    return "".join(mark_elements(shown, across, down))


@dataclass(frozen=True, slots=True)
class RuleElements:
    """Rules as (x, top y), and their names, which do not overlap."""

    lines: list[Point]
    names: list[str]


def rule_elements(rules: Sequence[Rule], across: Scale, top: float) -> tuple[RuleElements, float]:
    """Return the rules, with names in as many lines as needed, and the bottom y of the names."""
    rows: list[float] = []  # right end of the last name in each row
    placed = []
    for rule in sorted(rules, key=lambda rule: rule.x):
        name = cut(rule.name, 160, TEXT_SIZE)
        half = room_for(name) / 2
        middle = min(max(across.at(rule.x), MARGIN + half), WIDTH - MARGIN - half)
        row = next((index for index, end in enumerate(rows) if end + 8 <= middle - half), len(rows))
        rows[row : row + 1] = [middle + half]
        placed.append((across.at(rule.x), middle, row, name))
    lines = [(at, top + LINE_HEIGHT * row + 3) for at, _, row, _ in placed]
    names = [text_element(middle, top + LINE_HEIGHT * row, name, "name middle") for _, middle, row, name in placed]
    return RuleElements(lines, names), top + LINE_HEIGHT * len(rows)
