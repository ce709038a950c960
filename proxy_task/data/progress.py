"""Progress of long work on data, on stderr: a bar on a terminal, otherwise a line every half minute.

It is independent of a search's display, because data is also prepared without one: on the other machines of a cluster,
and from Python.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 30.0
"""Seconds between two lines; shorter work prints nothing."""

REFRESHES_PER_SECOND = 4


@contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of finished items.

    Args:
        what: name of the work.
        total: number of items.
        done: number of items finished earlier, which the estimate of the time left ignores.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(what, total, done)
        return
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("left")
    with Progress(*columns, console=console, refresh_per_second=REFRESHES_PER_SECOND, transient=True) as bar:
        task = bar.add_task(what, total=total, completed=done)
        yield lambda now_done: bar.update(task, completed=now_done)


def _lines(what: str, total: int, done: int) -> Callable[[int], None]:
    began = said = time.monotonic()

    def tell(now_done: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= LINE_SECONDS and now_done > done:
            said = now
            left = timedelta(seconds=round((now - began) / (now_done - done) * (total - now_done)))
            print(f"{what}: {now_done} of {total}, {left} left", file=sys.stderr, flush=True)

    return tell
