"""Cache of decoded and resized images: one memory-mapped file for each set of images and size.

Each image is a square letterbox: its long side is resized to the side of the square, its aspect ratio is kept, it lies
at the top left, and the rest is zero. The geometry is exact: a point (x, y) of the original is at (x, y) x scale.

The file is an .npy array followed by a record of the number of finished images. An interrupted build resumes from it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import struct
import time
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.cache_folder import build_once
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

DECODING_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""Exceptions of Pillow for damaged files; for a broken PNG it is a SyntaxError."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageCache:
    """Decoded images of one annotation file. Open it in each process; pickling would copy the pixels.

    Attributes:
        images: (N, size, size, 3) uint8, RGB, read-only and shared by all processes that opened it.
        scales: (N,) resized / original, the same for both axes.
        content_sizes_wh: (N, 2) width and height of the image within its square, in pixels of the cache.
    """

    images: NDArray[np.uint8]
    scales: NDArray[np.float64]
    content_sizes_wh: NDArray[np.int64]


def open_cache(annotations: Annotations, size: int, root: Path, *, workers: int | None = None) -> ImageCache:
    """Open these images at `size` pixels from the cache in `root`; if they are not there, decode them first.

    Decoding uses `workers` threads; None for one per core. It checks every image. A UserError gives the number of
    images that are missing, damaged or of another size than in the annotations, and names the first few.
    """
    scales, content_sizes_wh = letterbox_geometry(annotations.widths, annotations.heights, size)
    shape = (len(scales), size, size, 3)
    path = cache_path(annotations, size, root)
    build_once(
        path, lambda partial: _build(partial, annotations, shape, workers or os.cpu_count() or 1), resumable=True
    )
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"the image cache {path} is damaged; delete it, and it will be built again") from error
    return ImageCache(images, scales, content_sizes_wh)


def cache_path(annotations: Annotations, size: int, root: Path) -> Path:
    """Return the cache file of these images at `size` pixels."""
    return root / f"images-{size}px-{_key(annotations, size)}.npy"


def files_digest(annotations: Annotations) -> str:
    """Return a hash of the names and byte sizes of the images, which detects replaced images without reading them."""
    digest = hashlib.sha256()
    for name, status in _files(annotations):
        digest.update(json.dumps([name, status.st_size if status else -1]).encode())
    return digest.hexdigest()


def _files(annotations: Annotations) -> Iterator[tuple[str, os.stat_result | None]]:
    """Yield the name and file status of each image; None as the status of a missing file."""
    folder = str(annotations.images_folder)
    for name in annotations.file_names:
        try:
            yield name, os.stat(os.path.join(folder, name))
        except OSError:
            yield name, None  # building the cache reports missing images


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


def _key(annotations: Annotations, size: int) -> str:
    """Return a hash of all that the pixels depend on. Boxes are left out, so that editing them keeps the cache."""
    digest = hashlib.sha256(f"{FORMAT_VERSION} {size} {annotations.images_folder.resolve()}".encode())
    rows = zip(_files(annotations), annotations.widths.tolist(), annotations.heights.tolist(), strict=True)
    for (name, status), width, height in rows:
        state = [status.st_size, status.st_mtime_ns] if status else []
        digest.update(json.dumps([name, width, height, *state]).encode())
    return digest.hexdigest()[:16]


def _build(partial: Path, annotations: Annotations, shape: tuple[int, ...], workers: int) -> None:
    total, size = shape[:2]
    num_bytes = math.prod(shape)
    held = partial.stat().st_blocks * 512 if partial.exists() else 0
    free = shutil.disk_usage(partial.parent).free
    if num_bytes > free + held:
        raise UserError(
            f"the image cache needs {num_bytes / 1e9:.3g} GB and {partial.parent} has {(free + held) / 1e9:.3g} free; "
            "make room, or name another folder by task.data.cache_folder or SPINENAS_CACHE"
        )
    start, finished = _open_partial(partial, shape)
    logger.info("decoding images %d to %d to %d px into %s", finished, total, size, partial.parent)
    faults: list[str] = []
    image_bytes = size * size * 3

    with open(partial, "r+b", buffering=0) as file:

        def cache_image(index: int) -> str | None:
            try:
                pixels = _read_letterbox(annotations, index, size)
            except FileNotFoundError:
                return f"{annotations.file_names[index]} (is missing)"
            except DECODING_ERRORS as error:
                return f"{annotations.file_names[index]} ({error})"
            # Written rather than assigned to the memory map, where a full disk would be a bus error.
            # Rows below the image are not written and remain holes in the file.
            write(pixels.data.cast("B"), start + index * image_bytes)
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
            with progress("decoding images", total, finished) as tell, warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large photographs are valid
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


def _read_letterbox(annotations: Annotations, index: int, size: int) -> NDArray[np.uint8]:
    """Return one image, (height of the content, size, 3) uint8."""
    expected = (int(annotations.widths[index]), int(annotations.heights[index]))
    with Image.open(annotations.images_folder / annotations.file_names[index]) as image:
        # EXIF orientation is not applied: COCO's boxes, widths and heights refer to the pixels as stored.
        if image.size != expected:
            raise ValueError(f"is {image.width} x {image.height} px, the annotations say {expected[0]} x {expected[1]}")
        scales, contents = letterbox_geometry(annotations.widths[[index]], annotations.heights[[index]], size)
        width, height = contents[0].tolist()
        # JPEG decodes at 1/2, 1/4 or 1/8 scale in a fraction of the time. Twice the target size keeps the quality.
        draft = image.draft(None, (2 * width, 2 * height))
        decoded_width = draft[1][2] if draft else expected[0]  # before rounding up to whole pixels
        scale = float(scales[0]) * expected[0] / decoded_width
        rgb = _to_rgb(image)
        box = (0, 0, min(width / scale, rgb.width), min(height / scale, rgb.height))
        resized = rgb.resize((width, height), Image.Resampling.BILINEAR, box=box)
    pixels = np.zeros((height, size, 3), dtype=np.uint8)
    pixels[:, :width] = np.asarray(resized)
    return pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return 8-bit RGB. The alpha channel is dropped, and hidden pixels appear as stored."""
    image.load()
    if image.mode.startswith("I;16"):
        # Pillow would clip these to 255 instead of scaling them.
        levels = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"has pixels of mode {image.mode}, whose range is not known; save it with 8 or 16 bits")
    return image.convert("RGB")
