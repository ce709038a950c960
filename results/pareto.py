"""What is best of several figures at once: nothing else has a higher objective at no higher cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")

Figures = tuple[float, ...]
"""Of one network: the objective, higher is better, and then costs, lower is better."""


def dominates(one: Figures, other: Figures) -> bool:
    """Whether one is at least as good in every figure, and not equal."""
    return one != other and one[0] >= other[0] and all(a <= b for a, b in zip(one[1:], other[1:], strict=True))


def front(items: Iterable[Item], figures: Sequence[Figures]) -> list[Item]:
    """Return the items whose figures nothing dominates, best objective first, of equals the earlier one first.

    Args:
        items: in any order; of items with equal figures all are returned.
        figures: of each item.
    """
    # Whatever dominates an item comes before it in this order, and something in the front dominates it too.
    pairs = sorted(zip(items, figures, strict=True), key=lambda pair: (-pair[1][0], *pair[1][1:]))
    found: list[tuple[Item, Figures]] = []
    for item, own in pairs:
        if not any(dominates(other, own) for _, other in found):
            found.append((item, own))
    return [item for item, _ in found]


def front_rows(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a leaderboard on the front of mean objective, multiply-adds and parameters.

    Rows without a result or costs are on no front.
    """
    complete = [row for row in rows if None not in (row["objective"], row["madds"], row["params"])]
    return front(complete, [(row["objective"], row["madds"], row["params"]) for row in complete])
