"""Cache of decoded and resized images: one memory-mapped file for each set of images and size.

Each image is a square letterbox: its long side is resized to the side of the square, its aspect ratio is kept, it lies
at the top left, and the rest is zero. The geometry is exact: a point (x, y) of the original is at (x, y) x scale.

The file is an .npy array followed by a record of the number of finished images, from which an interrupted build
resumes, and a byte of facts about each image file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.cache_folder import build_once
from spinenas.proxy_task.data.findings import Finding
from spinenas.proxy_task.data.images.image_facts import NUM_BYTES, as_byte, facts_findings
from spinenas.proxy_task.data.images.image_file import (
    DECODING_ERRORS,
    Decoding,
    ImageFacts,
    large_images_allowed,
    read_letterbox,
)
from spinenas.proxy_task.data.progress import progress
from spinenas.space.errors import UserError

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
"""Part of every cache's name; raise it when decoding the same image would give other pixels."""

RECORD_SECONDS = 5.0
"""Interval of the progress records; after a kill, at most the images of one interval are decoded again."""

QUEUED_PER_THREAD = 64
"""Images in work or waiting for each thread, so that no thread is idle while others wait for the disk."""

MAX_NAMED = 3
"""Most unreadable images that an error names."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageCache:
    """Decoded images of one annotation file. Open it in each process; pickling would copy the pixels.

    Attributes:
        images: (N, size, size, 3) uint8, RGB, read-only and shared by all processes that opened it.
        scales: (N,) resized / original, the same for both axes.
        content_sizes_wh: (N, 2) width and height of the image within its square, in pixels of the cache.
        findings: what was noticed about the files when they were decoded.
    """

    images: NDArray[np.uint8]
    scales: NDArray[np.float64]
    content_sizes_wh: NDArray[np.int64]
    findings: tuple[Finding, ...] = ()


def open_cache(
    annotations: Annotations,
    size: int,
    root: Path,
    *,
    decoding: Decoding = Decoding(),  # noqa: B008 (frozen)
    workers: int | None = None,
) -> ImageCache:
    """Open these images at `size` pixels from the cache in `root`; if they are not there, decode them first.

    Decoding uses `workers` threads; None for one per core. It checks every image. A UserError gives the number of
    images that are missing, damaged or of another size than in the annotations, and names the first few.
    """
    scales, content_sizes_wh = letterbox_geometry(annotations.widths, annotations.heights, size)
    shape = (len(scales), size, size, 3)
    path = cache_path(annotations, size, root, decoding)
    build_once(
        path,
        lambda partial: _build(partial, annotations, shape, decoding, workers or os.cpu_count() or 1),
        resumable=True,
    )
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"the image cache {path} is damaged; delete it, and it will be built again") from error
    facts = _read_facts(path, images.offset + images.nbytes, len(images))
    return ImageCache(images, scales, content_sizes_wh, facts_findings(annotations, facts, decoding))


def cache_path(
    annotations: Annotations,
    size: int,
    root: Path,
    decoding: Decoding = Decoding(),  # noqa: B008 (frozen)
) -> Path:
    """Return the cache file of these images at `size` pixels."""
    return root / f"images-{size}px-{_key(annotations, size, decoding)}.npy"


def files_digest(annotations: Annotations) -> str:
    """Return a hash of the names and byte sizes of the images, which detects replaced images without reading them."""
    digest = hashlib.sha256()
    for name, status in _files(annotations):
        digest.update(json.dumps([name, status.st_size if status else -1]).encode())
    return digest.hexdigest()


def _files(annotations: Annotations) -> Iterator[tuple[str, os.stat_result | None]]:
    """Yield the name in the annotations and the file status of each image; None as the status of a missing file."""
    folder = str(annotations.images_folder)
    for name, written in zip(annotations.file_names, annotations.written_names, strict=True):
        try:
            yield written, os.stat(os.path.join(folder, name))
        except (OSError, ValueError):  # a ValueError is a name that the locale cannot encode
            yield written, None  # building the cache reports missing images


def letterbox_geometry(
    widths: NDArray[np.int64], heights: NDArray[np.int64], size: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return scales (N,) and content sizes (N, 2) of images whose long side becomes `size`.

    The short side is rounded down, which cuts off less than a pixel of the cache. Stretching it to a whole pixel
    would give the two axes different scales.
    """
    sides = np.stack([widths, heights], axis=1)
    long_sides = sides.max(axis=1)
    return size / long_sides, np.maximum(sides * size // long_sides[:, None], 1)


def _key(annotations: Annotations, size: int, decoding: Decoding) -> str:
    """Return a hash of all that the pixels depend on. Boxes are left out, so that editing them keeps the cache."""
    folder = os.fsencode(annotations.images_folder.resolve())
    digest = hashlib.sha256(f"{FORMAT_VERSION} {size} ".encode() + folder)
    options = decoding.as_fingerprint()
    if options:  # without them, the key is as it was before they existed
        digest.update(json.dumps(options).encode())
    rows = zip(_files(annotations), annotations.widths.tolist(), annotations.heights.tolist(), strict=True)
    for (name, status), width, height in rows:
        state = [status.st_size, status.st_mtime_ns] if status else []
        digest.update(json.dumps([name, width, height, *state]).encode())
    return digest.hexdigest()[:16]


def space_for_cache(annotations: Annotations, size: int, root: Path, decoding: Decoding) -> str:
    """Return how much room the cache needs and has, in words. Raises UserError if there is too little."""
    target = cache_path(annotations, size, root, decoding)
    num_bytes = 3 * len(annotations.image_ids) * size**2
    if target.exists():
        return f"{target.parent} holds the image cache ({num_bytes / 1e9:.3g} GB)"
    free = _check_space(target.with_name(target.name + ".partial"), num_bytes)
    return f"the image cache needs {num_bytes / 1e9:.3g} GB, {target.parent} has {free / 1e9:.3g} free"


def _check_space(partial: Path, num_bytes: int) -> int:
    """Return the bytes that are free for a cache file, those that it holds included. Raises UserError if too few."""
    held = partial.stat().st_blocks * 512 if partial.exists() else 0
    place = next(folder for folder in partial.parents if folder.exists())
    free = shutil.disk_usage(place).free + held
    if num_bytes > free:
        raise UserError(
            f"the image cache needs {num_bytes / 1e9:.3g} GB and {partial.parent} has {free / 1e9:.3g} free; "
            "make room, or name another folder by task.data.cache_folder or SPINENAS_CACHE"
        )
    return free


def _build(partial: Path, annotations: Annotations, shape: tuple[int, ...], decoding: Decoding, workers: int) -> None:
    total, size = shape[:2]
    num_bytes = math.prod(shape)
    _check_space(partial, num_bytes)
    start, finished = _open_partial(partial, shape)
    logger.info("decoding images %d to %d to %d px into %s", finished, total, size, partial.parent)
    faults: list[str] = []
    image_bytes = size * size * 3
    facts_start = start + num_bytes + len(_progress_record(0))

    with open(partial, "r+b", buffering=0) as file:

        def cache_image(index: int) -> str | None:
            try:
                pixels, facts = _read(annotations, index, size, decoding)
            except FileNotFoundError:
                return f"{_printable(annotations.file_names[index])} (is missing)"
            except DECODING_ERRORS as error:
                return f"{_printable(annotations.file_names[index])} ({_printable(str(error))})"
            # Written rather than assigned to the memory map, where a full disk would be a bus error.
            # Rows below the image are not written and remain holes in the file.
            write(pixels.data.cast("B"), start + index * image_bytes)
            write(as_byte(facts), facts_start + index * NUM_BYTES)
            return None

        def write(data: bytes | memoryview, offset: int, *, after_sync: bool = False) -> None:
            try:
                if after_sync:
                    os.fsync(file.fileno())
                _write_all(file.fileno(), data, offset)
            except OSError as error:
                raise UserError(f"cannot write the image cache {partial}: {error.strerror}") from error

        pool = ThreadPoolExecutor(max_workers=workers)
        try:
            with progress("decoding images", total, finished) as tell, large_images_allowed():
                recorded = time.monotonic()
                for fault in _map_in_order(pool, cache_image, range(finished, total), QUEUED_PER_THREAD * workers):
                    finished += 1
                    tell(finished)
                    if fault:
                        faults.append(fault)
                    # Images after an unusable one never count as finished, so that a resumed build finds it again.
                    is_due = finished == total or time.monotonic() - recorded >= RECORD_SECONDS
                    if is_due and not faults:
                        write(_progress_record(finished), start + num_bytes, after_sync=True)
                        recorded = time.monotonic()
        finally:
            pool.shutdown(cancel_futures=True)
    if faults:
        more = f" and {len(faults) - MAX_NAMED} more" if len(faults) > MAX_NAMED else ""
        raise UserError(
            f"{len(faults)} of {total} images in {annotations.images_folder} cannot be used: "
            f"{', '.join(faults[:MAX_NAMED])}{more}; repair them or take them out of the annotations"
        )


def _open_partial(partial: Path, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the offset of the pixels in the file and the number of finished images; create the file if needed."""
    try:
        pixels = np.lib.format.open_memmap(partial, mode="r")
        if pixels.shape == shape and pixels.dtype == np.uint8:
            finished = _read_progress(partial, pixels.offset + pixels.nbytes)
            if finished:
                return pixels.offset, finished
    except (OSError, ValueError, EOFError):
        pass  # no file, or one of another program
    return np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape).offset, 0


def _progress_record(finished: int) -> bytes:
    """Return a record of fixed length, with a checksum that reveals an incomplete one."""
    text = f"finished {finished:012} "
    return f"{text}{hashlib.sha256(text.encode()).hexdigest()}\n".encode()


def _read_progress(path: Path, offset: int) -> int:
    """Return the recorded number of finished images; 0 without a complete record."""
    with open(path, "rb") as file:
        file.seek(offset)
        text = file.read(len(_progress_record(0)))
    digits = text[9:21]
    return int(digits) if digits.isdigit() and text == _progress_record(int(digits)) else 0


def _map_in_order(
    pool: ThreadPoolExecutor, do: Callable[[int], str | None], indices: Iterable[int], limit: int
) -> Iterator[str | None]:
    """Do what the pool's `map` does, with at most `limit` items in work or waiting."""
    waiting: deque[Future[str | None]] = deque()
    for index in indices:
        waiting.append(pool.submit(do, index))
        if len(waiting) == limit:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of it at an offset. The kernel may write less at a time, as on a disk that is nearly full."""
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], offset + written)


def _read(annotations: Annotations, index: int, size: int, decoding: Decoding) -> tuple[NDArray[np.uint8], ImageFacts]:
    """Return one image, (height of the content, size, 3) uint8, and facts about its file."""
    width, height = annotations.widths[[index]], annotations.heights[[index]]
    scales, contents = letterbox_geometry(width, height, size)
    return read_letterbox(
        annotations.images_folder / annotations.file_names[index],
        expected=(int(width[0]), int(height[0])),
        content=(int(contents[0, 0]), int(contents[0, 1])),
        scale=float(scales[0]),
        canvas_width=size,
        decoding=decoding,
    )


def _read_facts(path: Path, offset: int, count: int) -> NDArray[np.uint8]:
    """Return the bytes of facts that follow the pixels; zeros in a cache that has none."""
    with open(path, "rb") as file:
        file.seek(offset + len(_progress_record(0)))
        facts = np.frombuffer(file.read(count * NUM_BYTES), dtype=np.uint8)
    return facts if len(facts) == count else np.zeros(count, dtype=np.uint8)


def _printable(text: str) -> str:
    """Return a text without characters that a terminal cannot show."""
    return text if text.isprintable() else repr(text)[1:-1]
