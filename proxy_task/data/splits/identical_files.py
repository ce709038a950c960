"""Finds image files with the same bytes.

Only files of equal size are read: first a piece from the middle of each, then whole files whose pieces are equal. The
result is kept in the cache folder until a file changes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.cache_folder import build_once
from spinenas.proxy_task.data.progress import progress

PIECE_BYTES = 4096
READERS = 16
"""Threads that read files; most of their time they wait for the disk."""


def image_paths(annotations: Annotations) -> list[str]:
    """Return the path of each image, whether it exists or not."""
    folder = str(annotations.images_folder.resolve())
    return [os.path.normpath(os.path.join(folder, name)) for name in annotations.file_names]


def same_bytes(paths: Sequence[str], root: Path) -> NDArray[np.int64]:
    """Return for each file the first one with the same bytes, which is itself if there is none.

    A file that is missing or unreadable equals no other; the image cache reports it.

    Args:
        paths: files; one may be listed several times.
        root: cache folder.
    """
    states = [_state(path) for path in paths]
    digest = hashlib.sha256()
    for path, state in zip(paths, states, strict=True):
        digest.update(json.dumps([path, *state]).encode())
    target = root / f"same-bytes-{digest.hexdigest()[:16]}.npy"

    def build(partial: Path) -> None:
        first = _compare(paths, [state[0] for state in states])
        with open(partial, "wb") as file:
            np.save(file, first, allow_pickle=False)

    build_once(target, build)
    first: NDArray[np.int64] = np.load(target, allow_pickle=False)
    return first


def _state(path: str) -> tuple[int, int]:
    """Return the size of a file in bytes and when it was changed; -1 for a file that cannot be used."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # a name with NUL, for example
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _compare(paths: Sequence[str], sizes: Sequence[int]) -> NDArray[np.int64]:
    first = np.arange(len(paths))
    alike = _alike((row for row, size in enumerate(sizes) if size >= 0), lambda row: sizes[row])
    with ThreadPoolExecutor(READERS) as pool, progress("comparing files", sum(map(len, alike))) as tell:
        for read in (_piece, _whole):
            rows = [row for of_one in alike for row in of_one]
            contents: dict[int, Hashable] = {}
            reading = pool.map(read, [paths[row] for row in rows], [sizes[row] for row in rows])
            for row, content in zip(rows, reading, strict=True):
                if content is not None:
                    contents[row] = sizes[row], content
                tell(len(contents))
            alike = _alike(contents, contents.__getitem__)
    for of_one in alike:
        first[of_one] = of_one[0]
    return first


def _alike(rows: Iterable[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    """Return the rows that share a key with another row, by key."""
    by_key: defaultdict[Hashable, list[int]] = defaultdict(list)
    for row in rows:
        by_key[key(row)].append(row)
    return [sorted(of_one) for of_one in by_key.values() if len(of_one) > 1]


def _piece(path: str, size: int) -> bytes | None:
    """Return a piece from the middle of a file, which differs between compressed images; None if unreadable."""
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(max(0, size - PIECE_BYTES) // 2)
            return hashlib.blake2b(file.read(PIECE_BYTES), digest_size=16).digest()
    except OSError:
        return None


def _whole(path: str, size: int) -> bytes | None:
    """Return the hash of a file; None if unreadable."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None
