"""Leaving in order when the system says so: Slurm, Kubernetes and spot machines send SIGTERM before the end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(BaseException):
    """The process was sent SIGTERM; like KeyboardInterrupt, nothing that handles errors shall catch it."""


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
        raise Terminated("it was sent SIGTERM")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is stop:
            signal.signal(signal.SIGTERM, before)
