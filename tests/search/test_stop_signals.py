"""SIGTERM ends a search in order, wherever it is."""

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


def test_it_is_raised_at_once_and_a_second_one_is_ignored() -> None:
    with pytest.raises(Terminated, match="sent SIGTERM"), stopped_by_sigterm():  # noqa: PT012
        terminate()
        pytest.fail("it goes on")
    terminate()


def test_it_waits_for_the_end_of_a_block_that_must_not_be_left() -> None:
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
        pass  # nothing is left of it


def test_nothing_changes_without_it_or_in_another_thread() -> None:
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


def test_ray_does_not_take_it_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    with pytest.raises(Terminated), stopped_by_sigterm():  # noqa: PT012
        _connect()
        terminate()


def test_it_may_come_while_ray_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    def exits(**_: object) -> None:
        raise SystemExit(15)

    monkeypatch.setattr(ray, "init", exits)
    with pytest.raises(Terminated):
        _connect()


def test_one_that_waited_for_a_block_that_failed_does_not_come_later() -> None:
    with pytest.raises(ZeroDivisionError), stopped_by_sigterm(), sigterm_waits():  # noqa: PT012
        terminate()
        raise ZeroDivisionError
    with sigterm_waits():
        pass
