"""Fixtures that several files of this folder use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from shuffled_executor import ShuffledExecutor

import spinenas.search.run.lifecycle as loop
from spinenas.results.record import FailureKind
from spinenas.search.config.executor import ExecutorConfig


@pytest.fixture
def shuffled(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes searches use a ShuffledExecutor with the given seed."""

    def use(seed: int, lost: dict[tuple[int, int], FailureKind] | None = None) -> None:
        def make(task: Any, config: ExecutorConfig, folder: Any, note: Any) -> ShuffledExecutor:
            return ShuffledExecutor(task, config.workers, seed, lost or {})

        monkeypatch.setattr(loop, "make_executor", make)

    return use
