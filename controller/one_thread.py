"""Runs numpy's matrix products on one thread, so that results do not depend on the number of threads."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

from threadpoolctl import ThreadpoolController


def one_blas_thread() -> AbstractContextManager[object]:
    """Return a context in which matrix products use one thread; entering it takes some 15 microseconds.

    OpenBLAS adds in another order with another number of threads, and a learning controller would then propose other
    networks. Small products gain nothing from more threads.
    """
    limit: AbstractContextManager[object] = _libraries().limit(limits=1, user_api="blas")
    return limit


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()
