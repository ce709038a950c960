"""Pareto front: the items that no other item beats in objective and costs at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")

Figures = tuple[float, ...]
"""Figures of one item: the objective (higher is better), then costs (lower is better)."""


def dominates(one: Figures, other: Figures) -> bool:
    """Return whether one is at least as good as the other in every figure, and not equal."""
    return one != other and one[0] >= other[0] and all(a <= b for a, b in zip(one[1:], other[1:], strict=True))


def front(items: Iterable[Item], figures: Sequence[Figures]) -> list[Item]:
    """Return the items that no other item dominates, best objective first and ties in their given order.

    Args:
        items: items in any order; those with equal figures are all kept.
        figures: figures of each item.
    """
    # Sorted so that an item comes after all that dominate it; one of these is already in the front.
    pairs = sorted(zip(items, figures, strict=True), key=lambda pair: (-pair[1][0], *pair[1][1:]))
    found: list[tuple[Item, Figures]] = []
    for item, own in pairs:
        if not any(dominates(other, own) for _, other in found):
            found.append((item, own))
    return [item for item, _ in found]


def front_rows(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the leaderboard rows on the front of mean objective, multiply-adds and parameters.

    Rows without a result or costs are left out.
    """
    complete = [row for row in rows if None not in (row["objective"], row["madds"], row["params"])]
    return front(complete, [(row["objective"], row["madds"], row["params"]) for row in complete])
