"""The cache folder, and building files in it once per machine.

A target is built under another name and then renamed, so that it exists only when complete. The kernel frees the lock
of a builder that was killed. The next builder resumes from the `.partial` it left if that is possible, else removes it.
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
    """Build `target` (a file or a folder) unless it exists. Of several processes one builds, and the others wait.

    Exceptions of `build` are passed on, and its work is removed.

    Args:
        target: path of the result.
        build: gets the path to write to.
        resumable: whether `build` can resume from what an interrupted build has written, which is then kept.
        is_intact: whether the target exists and is undamaged; otherwise it is built again.
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
            # A BaseException that is not an Exception is an interruption: from the keyboard, or by SIGTERM.
            if not resumable or isinstance(error, Exception):
                _remove(partial)
            raise


def _replace(partial: Path, target: Path) -> None:
    """Rename, and first remove a damaged target. Processes that have it open are not affected."""
    if target.exists():
        logger.warning("%s is damaged and was built again", target)
        _remove(target)
    os.replace(partial, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
