"""Fixtures that several files of this folder use."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from shuffled_executor import ShuffledExecutor

import spinenas.controller.predictor.gaussian_process as gaussian_process
import spinenas.search.run.lifecycle as loop
from spinenas.controller.predictor.features import Features
from spinenas.results.record import FailureKind
from spinenas.search.config.executor import ExecutorConfig


@pytest.fixture
def cached_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute the scales of the predictor's features once for all searches."""
    monkeypatch.setattr(gaussian_process, "Features", _cached)


_cached = cache(Features)


@pytest.fixture
def shuffled(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes searches use a ShuffledExecutor with the given seed."""

    def use(seed: int, lost: dict[tuple[int, int], FailureKind] | None = None) -> None:
        def make(task: Any, config: ExecutorConfig, folder: Any, note: Any) -> ShuffledExecutor:
            return ShuffledExecutor(task, config.workers, seed, lost or {})

        monkeypatch.setattr(loop, "make_executor", make)

    return use
