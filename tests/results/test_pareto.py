"""The Pareto front, compared with its definition."""

from __future__ import annotations

import numpy as np
import pytest

from spinenas.results.pareto import dominates, front, front_rows


def test_an_item_dominates_another_that_is_nowhere_better() -> None:
    assert dominates((0.5, 10, 3), (0.4, 10, 3))
    assert dominates((0.5, 9, 3), (0.5, 10, 3))
    assert not dominates((0.5, 11, 3), (0.4, 10, 3))
    assert not dominates((0.5, 10, 3), (0.5, 10, 3))


@pytest.mark.parametrize("seed", range(20))
def test_the_front_holds_every_item_that_nothing_dominates(seed: int) -> None:
    rng = np.random.default_rng(seed)
    figures = [tuple(row) for row in rng.integers(0, 6, size=(40, 3)).tolist()]  # with many equals
    found = front(range(40), figures)
    assert sorted(found) == [i for i in range(40) if not any(dominates(other, figures[i]) for other in figures)]
    objectives = [figures[i][0] for i in found]
    assert objectives == sorted(objectives, reverse=True)


def test_rows_without_a_result_are_on_no_front() -> None:
    def row(number: int, objective: float | None, madds: int | None, params: int | None) -> dict[str, object]:
        return {"number": number, "objective": objective, "madds": madds, "params": params}

    rows = [row(0, 0.5, 10, 5), row(1, 0.4, 10, 4), row(2, 0.4, 11, 5), row(3, None, None, None), row(4, 0.9, None, 1)]
    assert [found["number"] for found in front_rows(rows)] == [0, 1]
