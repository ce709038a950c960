"""Compares two drawn architectures by position, so an inserted block makes all later blocks differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from spinenas.results.pictures.architecture.parts import Layout, Role


@dataclass(frozen=True, slots=True)
class Difference:
    """Differences of two architectures by position.

    Attributes:
        words: properties that differ, by node; ("only",) for nodes of just one architecture.
        common: connections (source, target, role) of both architectures.
    """

    words: dict[int, tuple[str, ...]]
    common: frozenset[tuple[int, int, Role]]


def difference_of(first: Layout, second: Layout) -> Difference:
    """Compare two architectures."""
    words: dict[int, tuple[str, ...]] = {}
    for node, (a, b) in enumerate(zip_longest(first.boxes, second.boxes)):
        if a is None or b is None:
            words[node] = ("only",)
            continue
        compared = (
            ("level", a.level, b.level),
            ("type", a.kind, b.kind),
            ("inputs", _inputs(first, node), _inputs(second, node)),
            ("output", a.is_output, b.is_output),
            ("stem", a.is_stem, b.is_stem),
            ("built", a.is_built, b.is_built),
        )
        found = tuple(word for word, of_first, of_second in compared if of_first != of_second)
        if found:
            words[node] = found
    return Difference(words, frozenset(_keys(first) & _keys(second)))


def _inputs(layout: Layout, node: int) -> set[tuple[int, bool]]:
    """Return the sources of a node, each with whether it is merged."""
    return {(wire.source, wire.role == Role.MERGE) for wire in layout.wires if wire.target == node}


def _keys(layout: Layout) -> set[tuple[int, int, Role]]:
    return {(wire.source, wire.target, wire.role) for wire in layout.wires}


def difference_summary(difference: Difference, layouts: Sequence[Layout]) -> str:
    """Return the number of different positions and connections in words."""
    if not difference.words:
        return "No difference."
    total = max(len(layout.boxes) for layout in layouts)
    only = [len(_keys(layout) - difference.common) for layout in layouts]
    return (
        f"{len(difference.words)} of {total} positions differ. Connections: {len(difference.common)} in both, "
        f"{only[0]} only above, {only[1]} only below."
    )
