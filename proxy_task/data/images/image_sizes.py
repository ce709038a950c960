"""Sizes of images that an annotation file does not give, read from the headers of the files."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.cache_folder import build_once
from spinenas.proxy_task.data.images.image_file import DECODING_ERRORS, ExifRule, header_size, large_images_allowed
from spinenas.proxy_task.data.progress import progress
from spinenas.space.errors import UserError

READERS = 16
"""Threads that read headers; most of their time they wait for the disk."""

Sizes = NDArray[np.int64]
"""(n, 2) width and height."""


def header_sizes(annotations: Annotations, rows: NDArray[np.int64], exif: ExifRule) -> Sizes:
    """Return the sizes of these images. Raises UserError for a file that cannot be read."""
    sizes = np.empty((len(rows), 2), dtype=np.int64)
    with (
        ThreadPoolExecutor(READERS) as pool,
        large_images_allowed(),
        progress("reading image sizes", len(rows)) as tell,
    ):
        for index, size in enumerate(pool.map(lambda row: _size(annotations, row, exif), rows.tolist())):
            sizes[index] = size
            tell(index + 1)
    return sizes


def cached_header_sizes(annotations: Annotations, rows: NDArray[np.int64], exif: ExifRule, root: Path) -> Sizes:
    """Do what `header_sizes` does, once until a file changes; `root` is the cache folder."""
    digest = hashlib.sha256(f"{exif} {annotations.images_folder.resolve()}".encode("utf-8", "surrogateescape"))
    for row in rows.tolist():
        digest.update(json.dumps([annotations.file_names[row], *_state(annotations, row)]).encode())
    target = root / f"sizes-{digest.hexdigest()[:16]}.npy"

    def build(partial: Path) -> None:
        sizes = header_sizes(annotations, rows, exif)
        try:
            with open(partial, "wb") as file:
                np.save(file, sizes, allow_pickle=False)
        except OSError as error:
            raise UserError(f"cannot write the sizes of images into the cache {root}: {error.strerror}") from error

    build_once(target, build)
    sizes: Sizes = np.load(target, allow_pickle=False)
    return sizes


def _state(annotations: Annotations, row: int) -> tuple[int, int]:
    try:
        status = os.stat(annotations.images_folder / annotations.file_names[row])
    except (OSError, ValueError):  # reading the header reports it
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _size(annotations: Annotations, row: int, exif: ExifRule) -> tuple[int, int]:
    name = annotations.file_names[row]
    try:
        return header_size(annotations.images_folder / name, exif)
    except FileNotFoundError:
        problem = "is missing"
    except DECODING_ERRORS as error:
        problem = str(error)
    raise UserError(
        f"image {annotations.image_ids[row]} ({name}) has no 'width' and 'height' in the annotations, and its file "
        f"in {annotations.images_folder} {problem}; write both, or repair the file"
    )
