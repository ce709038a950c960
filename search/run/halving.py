"""Successive halving over epochs: does a training go on after a rung? Knows nothing of who trains, or where.

Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020), asynchronous successive
halving, in the form that decides once and at once, as Ray Tune has it: a trial that reaches a rung, an epoch, goes on
if it is among the best of those that reached it before, and is stopped for good if not.
"""

from __future__ import annotations

from collections.abc import Sequence


class Halving:
    """The results at each rung, and what follows from them.

    Args:
        rungs: epochs, ascending.
        reduction: of the results at a rung the best 1/reduction, rounded up, go on.
        min_results: all go on while fewer results are there, the trial's own among them.
        by_number: judge a trial by those of lower numbers instead of those that came before it: the same verdict,
            whoever comes first, once `is_at` holds of each of them that will ever be there.
    """

    def __init__(
        self, rungs: Sequence[int] = (), *, reduction: float = 3.0, min_results: int = 4, by_number: bool = False
    ) -> None:
        self._results: dict[int, dict[int, float]] = {rung: {} for rung in rungs}  # by trial, in order of arrival
        self._reduction, self._min_results = reduction, min_results
        self._by_number = by_number

    def next_rung(self, *, after: int, below: int) -> int | None:
        """The first rung after an epoch and below another; None if no rung follows."""
        return next((rung for rung in self._results if after < rung < below), None)

    def add(self, number: int, rung: int, objective: float) -> None:
        """Take the result of a trial that has reached a rung."""
        self._results[rung][number] = objective

    def is_at(self, number: int, rung: int) -> bool:
        """Whether the trial has reached the rung."""
        return number in self._results[rung]

    def goes_on(self, number: int, rung: int) -> bool:
        """The verdict on a trial that has reached a rung; of equals all go on."""
        results = self._results[rung]
        own = results[number]
        if self._by_number:
            known = [objective for other, objective in results.items() if other <= number]
        else:
            known = list(results.values())[: list(results).index(number) + 1]
        num_better = sum(objective > own for objective in known)
        return len(known) < self._min_results or num_better * self._reduction < len(known)
