"""Where derived data is kept, and how it is made once per machine; it knows nothing of what is made.

A target exists only when it is complete: it is built under another name and renamed. The kernel frees the
lock of a killed builder; the `.partial` it leaves is gone on from by the next one where that can be done, else removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path

from spinenas.space.errors import UserError

logger = logging.getLogger(__name__)


def cache_root(folder: str | None) -> Path:
    """Return the configured cache folder, else $SPINENAS_CACHE, else the user's (on Linux ~/.cache/spinenas)."""
    configured = folder or os.environ.get("SPINENAS_CACHE")
    return Path(configured).expanduser().absolute() if configured else user_cache_path("spinenas")


def build_once(
    target: Path,
    build: Callable[[Path], None],
    *,
    resumable: bool = False,
    is_intact: Callable[[Path], bool] = Path.exists,
) -> None:
    """Make `target` (a file or a folder) unless it exists; of several processes one builds, the others wait.

    Whatever `build` raises is passed on, and nothing of its work stays.

    Args:
        target: what is made.
        build: is given the path to write to.
        goes_on: `build` can go on from what an interrupted one has written there, which then stays.
        is_whole: says whether the target is there and sound; one that is not is made anew.
    """
    if is_intact(target):
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = open(target.with_name(target.name + ".lock"), "w")  # noqa: SIM115 (closed by the with below)
    except OSError as error:
        raise UserError(
            f"cannot write to the cache folder {target.parent} ({error.strerror}); "
            "name another one by task.data.cache_folder or SPINENAS_CACHE"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for another process that builds %s", target)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if is_intact(target):
            return
        partial = target.with_name(target.name + ".partial")
        if not resumable:
            _remove(partial)
        try:
            build(partial)
            _replace(partial, target)
        except BaseException as error:
            # An exception that is no Exception is an interruption, from the keyboard or by SIGTERM.
            if not resumable or isinstance(error, Exception):
                _remove(partial)
            raise


def _replace(partial: Path, target: Path) -> None:
    """Rename; a damaged target goes first, which processes that have it open do not notice."""
    if target.exists():
        logger.warning("%s is damaged and was made anew", target)
        _remove(target)
    os.replace(partial, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
