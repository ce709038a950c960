"""Runs numpy's matrix products on one thread, so that sums do not depend on the machine's number of threads."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

from threadpoolctl import ThreadpoolController


def one_blas_thread() -> AbstractContextManager[object]:
    """Return a context in which matrix products take one thread; it costs some 15 microseconds.

    With several threads OpenBLAS adds in another order, so that a learning controller would propose other networks
    where the number of threads differs. Small products gain nothing from more threads.
    """
    limit: AbstractContextManager[object] = _libraries().limit(limits=1, user_api="blas")
    return limit


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()
