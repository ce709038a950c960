"""Leaving in order when the system says so: Slurm, Kubernetes and spot machines send SIGTERM before the end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(BaseException):
    """The process was sent SIGTERM; like KeyboardInterrupt, nothing that handles errors shall catch it."""

    def __init__(self) -> None:
        super().__init__("it was sent SIGTERM")


class _Waiting:
    """Whether SIGTERM has to wait, and whether one does; there is one process, and so one of these."""

    depth = 0
    came = False


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Raise Terminated where the main thread is when SIGTERM comes; in another thread this changes nothing.

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
        raise  # while the process leaves, a second one is still ignored
    except BaseException:
        signal.signal(signal.SIGTERM, before)
        raise
    signal.signal(signal.SIGTERM, before)


@contextmanager
def sigterm_waits() -> Iterator[None]:
    """Raise Terminated at the end of the block instead of within it; Ray's calls must not be left by an exception."""
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
