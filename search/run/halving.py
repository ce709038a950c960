"""Successive halving over epochs: whether a training continues after a rung.

Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020), asynchronous successive
halving, in the variant of Ray Tune, which decides immediately and only once. A trial that reaches a rung (an epoch)
continues if it ranks among the best of those that reached the rung before it. Otherwise it stops for good.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from spinenas.search.config.parts import HalvingConfig


def continues(num_better: Any, num_results: Any, *, reduction: float, min_results: int) -> Any:
    """Decide whether a training continues after a rung; the best 1/reduction, rounded up, do.

    Args:
        num_better: earlier results that are strictly better than its own, so that all equal ones continue. Numbers or
            arrays.
        num_results: results at the rung, its own included. Numbers or arrays.
        min_results: with fewer results, every training continues.
    """
    return (num_results < min_results) | (num_better * reduction < num_results)


class Halving:
    """The results at each rung, and the verdicts that follow.

    Args:
        config: the rungs and the rule.
        by_number: compare a trial with those of lower numbers instead of those that came before it. The verdict is
            then independent of the order of arrival, once `can_judge` is true.
    """

    def __init__(self, config: HalvingConfig, *, by_number: bool = False) -> None:
        self._config, self._by_number = config, by_number
        self._results: dict[int, dict[int, float]] = {rung: {} for rung in config.rungs}  # by trial, as they arrive

    def next_rung(self, *, after: int, below: int) -> int | None:
        """The first rung after an epoch and below another; None if no rung follows."""
        return next((rung for rung in self._results if after < rung < below), None)

    def add(self, number: int, rung: int, objective: float) -> None:
        """Add the result of a trial that has reached a rung."""
        self._results[rung][number] = objective

    def can_judge(self, rung: int, lower_numbers: Iterable[int]) -> bool:
        """Whether there can be a verdict on a trial at a rung.

        Args:
            lower_numbers: trials of lower numbers that have rungs and no result yet.
        """
        return not self._by_number or all(number in self._results[rung] for number in lower_numbers)

    def should_continue(self, number: int, rung: int) -> bool:
        """Decide whether a trial that has reached a rung continues."""
        results = self._results[rung]
        own = results[number]
        if self._by_number:
            known = [objective for other, objective in results.items() if other <= number]
        else:
            known = list(results.values())[: list(results).index(number) + 1]
        num_better = sum(objective > own for objective in known)
        rule = self._config
        return bool(continues(num_better, len(known), reduction=rule.reduction, min_results=rule.min_results))
