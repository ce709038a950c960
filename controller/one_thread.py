"""Sums that do not depend on how many threads a machine has: numpy's matrix products on one thread."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

from threadpoolctl import ThreadpoolController


def one_blas_thread() -> AbstractContextManager[object]:
    """Return a context in which matrix products take one thread; it costs some 15 microseconds.

    With several, OpenBLAS adds in another order, so that a learning controller would go on in another way where the
    number of threads differs. Small products gain nothing from them either.
    """
    limit: AbstractContextManager[object] = _libraries().limit(limits=1, user_api="blas")
    return limit


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()
