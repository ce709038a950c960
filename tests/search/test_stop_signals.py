"""SIGTERM ends a search in order at any moment."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest
import ray

from spinenas.search.executors.ray_session import _connect
from spinenas.search.executors.stop_signals import Terminated, sigterm_waits, stopped_by_sigterm


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_raises_at_once_and_a_second_one_is_ignored() -> None:
    with pytest.raises(Terminated, match="sent SIGTERM"), stopped_by_sigterm():  # noqa: PT012
        terminate()
        pytest.fail("it goes on")
    terminate()


def test_sigterm_waits_for_the_end_of_a_protected_block() -> None:
    steps = []
    with pytest.raises(Terminated), stopped_by_sigterm():  # noqa: PT012
        with sigterm_waits():
            with sigterm_waits():
                terminate()
                steps.append("inner")
            steps.append("outer")
        pytest.fail("it goes on")
    assert steps == ["inner", "outer"]
    with sigterm_waits():
        pass  # no signal is pending


def test_without_sigterm_or_in_another_thread_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stopped_by_sigterm(), sigterm_waits():
        pass
    seen = []

    def in_thread() -> None:
        with stopped_by_sigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert seen == [before]
    assert signal.getsignal(signal.SIGTERM) is before


def test_ray_does_not_replace_the_sigterm_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    with pytest.raises(Terminated), stopped_by_sigterm():  # noqa: PT012
        _connect()
        terminate()


def test_sigterm_may_arrive_while_ray_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    def exits(**_: object) -> None:
        raise SystemExit(15)

    monkeypatch.setattr(ray, "init", exits)
    with pytest.raises(Terminated):
        _connect()


def test_a_delayed_sigterm_is_dropped_if_its_block_fails() -> None:
    with pytest.raises(ZeroDivisionError), stopped_by_sigterm(), sigterm_waits():  # noqa: PT012
        terminate()
        raise ZeroDivisionError
    with sigterm_waits():
        pass
