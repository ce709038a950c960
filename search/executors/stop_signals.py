"""Orderly stop on the signals that end a process, and on Ctrl-C.

Slurm, Kubernetes and spot machines send SIGTERM before they end a process. A terminal that is closed, or whose
connection is lost, sends SIGHUP.
"""

from __future__ import annotations

import os
import select
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """The process received SIGTERM or SIGHUP; like KeyboardInterrupt, error handlers do not catch it.

    Attributes:
        signal: which of the two.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        self.signal = signal.Signals(number)
        super().__init__(f"it was sent {self.signal.name}")


class _Waiting:
    """Process-wide state: whether stops must wait, and the one that is waiting."""

    depth = 0
    came: BaseException | None = None


def _stop(reason: BaseException) -> None:
    """Raise the exception that stops the main thread, at once or at the end of a protected block."""
    if not _Waiting.depth:
        raise reason
    _Waiting.came = reason


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Raise Terminated in the main thread when SIGTERM or SIGHUP arrives; in another thread, this changes nothing.

    A second signal is ignored: Slurm sends one from itself and one from the job's script. A SIGHUP that is ignored,
    as under `nohup`, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        if number == signal.SIGHUP:
            _leave_lost_terminal()
        _stop(Terminated(number))

    before = {
        number: signal.signal(number, stop)
        for number in ENDING
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN
    }

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield
    except Terminated:
        raise  # a second signal is still ignored while the process leaves
    except BaseException:
        restore()
        raise
    restore()


@contextmanager
def interrupted_in_order(on_first: Callable[[], None], on_second: Callable[[], None]) -> Iterator[None]:
    """On Ctrl-C call `on_first` and raise KeyboardInterrupt; on a second one call `on_second` and end the process.

    The second one ends the process even after the block, while Ray's processes are being ended. In another thread
    than the main one, and where Ctrl-C is ignored or handled already, this changes nothing.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    came = False

    def first(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        signal.signal(signal.SIGINT, second)
        on_first()
        _stop(KeyboardInterrupt())

    def second(number: int, frame: FrameType | None) -> None:
        try:
            on_second()
        finally:
            os._exit(128 + signal.SIGINT)  # a local Ray ends with this process

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        if not came:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def sigterm_waits() -> Iterator[None]:
    """Delay stops to the end of the block; an exception must not interrupt Ray's calls."""
    _Waiting.depth += 1
    try:
        yield
    finally:
        _Waiting.depth -= 1
        came = None
        if not _Waiting.depth:
            came, _Waiting.came = _Waiting.came, None
    if came is not None:
        raise came


def _leave_lost_terminal() -> None:
    """Send output that goes to a terminal, or to a pipe that nobody reads any more, nowhere.

    SIGHUP says that the terminal is gone: every write would fail, and a write to a `tee` that it ended as well.
    """
    descriptors = {1, 2}
    with suppress(AttributeError, OSError, ValueError):  # a stream without a descriptor
        descriptors.add(sys.stderr.fileno())
    for descriptor in descriptors:
        with suppress(OSError):  # the descriptor is closed
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) or _has_no_reader(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


def _has_no_reader(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)  # errors alone
    return bool(poll.poll(0))
