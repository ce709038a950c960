"""Orderly stop on SIGTERM, which Slurm, Kubernetes and spot machines send before they end a process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(BaseException):
    """The process received SIGTERM; like KeyboardInterrupt, error handlers do not catch it."""

    def __init__(self) -> None:
        super().__init__("it was sent SIGTERM")


class _Waiting:
    """Process-wide state: whether SIGTERM must wait, and whether one is waiting."""

    depth = 0
    came = False


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Raise Terminated in the main thread when SIGTERM arrives; called in another thread, this changes nothing.

    A second SIGTERM is ignored: Slurm sends one from itself and one from the job's script.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if _Waiting.depth:
            _Waiting.came = True
        else:
            raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except Terminated:
        raise  # a second SIGTERM is still ignored while the process leaves
    except BaseException:
        signal.signal(signal.SIGTERM, before)
        raise
    signal.signal(signal.SIGTERM, before)


@contextmanager
def sigterm_waits() -> Iterator[None]:
    """Delay Terminated to the end of the block; an exception must not interrupt Ray's calls."""
    _Waiting.depth += 1
    try:
        yield
    finally:
        _Waiting.depth -= 1
        came = _Waiting.came and not _Waiting.depth
        if came:
            _Waiting.came = False
    if came:
        raise Terminated
