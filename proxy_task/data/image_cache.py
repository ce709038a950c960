"""Images decoded and resized once into one memory-mapped file; it knows nothing of boxes or training.

Each image is a square letterbox: its long side resized to the square's side, aspect kept, at the top left,
zeros elsewhere. The geometry is exact: a point (x, y) of the original is at (x, y) x scale.

The file is an .npy array with a record behind it of how many images are finished: whoever builds after an interrupted
builder goes on from there.
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
"""Part of every cache's name; raise it when the same image would give other pixels."""

RECORD_SECONDS = 5.0
"""How often a builder records how far it is: what is decoded again after a kill."""

AHEAD = 64
"""Images for each thread that are begun or wait, so that none is idle while the disk is waited for."""

MAX_NAMED = 3
"""How many unreadable images an error names."""

DECODING_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow raises for damaged files; a broken PNG is a SyntaxError to it."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageCache:
    """Decoded images of one annotation file; open it in each process (pickling would copy the pixels).

    Attributes:
        images: (N, size, size, 3) uint8, RGB, read-only and shared by all processes that opened it.
        scales: (N,) resized / original, the same for both axes.
        content_sizes_wh: (N, 2) width and height of the part that is image, in pixels of the cache.
    """

    images: NDArray[np.uint8]
    scales: NDArray[np.float64]
    content_sizes_wh: NDArray[np.int64]


def open_cache(annotations: Annotations, size: int, root: Path, *, workers: int | None = None) -> ImageCache:
    """Open these images at `size` pixels from the cache in `root`, built first if need be.

    It is built by `workers` threads; None for as many as there are cores.

    Every image is checked as it is decoded: all that are missing, damaged or not of the size the annotations
    give are found, and the first few are named in one UserError.
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
        raise UserError(f"the image cache {path} is damaged; delete it, and it is built again") from error
    return ImageCache(images, scales, content_sizes_wh)


def cache_path(annotations: Annotations, size: int, root: Path) -> Path:
    """Return where these images are kept at `size` pixels."""
    return root / f"images-{size}px-{_key(annotations, size)}.npy"


def files_digest(annotations: Annotations) -> str:
    """Return a hash of the images' names and lengths in bytes, which tells a replaced set without reading it."""
    digest = hashlib.sha256()
    for name, status in _files(annotations):
        digest.update(json.dumps([name, status.st_size if status else -1]).encode())
    return digest.hexdigest()


def _files(annotations: Annotations) -> Iterator[tuple[str, os.stat_result | None]]:
    """Yield the names of the images with what the file system says of each, None for those that are missing."""
    folder = str(annotations.images_folder)
    for name in annotations.file_names:
        try:
            yield name, os.stat(os.path.join(folder, name))
        except OSError:
            yield name, None  # building the cache says which images these are


def letterbox_geometry(
    widths: NDArray[np.int64], heights: NDArray[np.int64], size: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return scales (N,) and content sizes (N, 2) of images whose long side becomes `size`.

    The short side is rounded down and the rest, less than a pixel of the cache, cut off: stretching it to a
    whole pixel would give the two axes different scales.
    """
    sides = np.stack([widths, heights], axis=1)
    long_sides = sides.max(axis=1)
    return size / long_sides, np.maximum(sides * size // long_sides[:, None], 1)


def _key(annotations: Annotations, size: int) -> str:
    """Name what the pixels depend on; boxes do not count, so that editing them decodes nothing again."""
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
            # Written, not assigned to the memory map: a full disk is then an OSError and not a bus error.
            # Rows below the image are left out and stay holes in the file.
            write(pixels.data.cast("B"), start + index * image_bytes)
            return None

        def write(data: bytes | memoryview, offset: int, *, after_all_else: bool = False) -> None:
            try:
                if after_all_else:
                    os.fsync(file.fileno())
                _write_all(file.fileno(), data, offset)
            except OSError as error:
                raise UserError(f"cannot write the image cache {partial}: {error.strerror}") from error

        pool = ThreadPoolExecutor(max_workers=workers)
        try:
            with progress("decoding images", total, finished) as tell, warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large photographs are fine
                recorded = time.monotonic()
                for fault in _map_in_order(pool, cache_image, range(finished, total), AHEAD * workers):
                    finished += 1
                    tell(finished)
                    if fault:
                        faults.append(fault)
                    # Nothing behind an unusable image counts as finished: who goes on from here has to find it as well.
                    is_due = finished == total or time.monotonic() - recorded >= RECORD_SECONDS
                    if is_due and not faults:
                        write(_progress_record(finished), start + num_bytes, after_all_else=True)
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
    """Return where the pixels begin in the file and how many images in it are finished; it is made if there is none."""
    try:
        pixels = np.lib.format.open_memmap(partial, mode="r")
        if pixels.shape == shape and pixels.dtype == np.uint8:
            finished = _read_progress(partial, pixels.offset + pixels.nbytes)
            if finished:
                return pixels.offset, finished
    except (OSError, ValueError, EOFError):
        pass  # none, or none of ours
    return np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape).offset, 0


def _progress_record(finished: int) -> bytes:
    """Return a text of fixed length; half of it, or of two of them, is none."""
    text = f"finished {finished:012} "
    return f"{text}{hashlib.sha256(text.encode()).hexdigest()}\n".encode()


def _read_progress(path: Path, offset: int) -> int:
    """Return what was recorded, 0 without a whole record."""
    with open(path, "rb") as file:
        file.seek(offset)
        text = file.read(len(_progress_record(0)))
    digits = text[9:21]
    return int(digits) if digits.isdigit() and text == _progress_record(int(digits)) else 0


def _map_in_order(
    pool: ThreadPoolExecutor, do: Callable[[int], str | None], indices: Iterable[int], ahead: int
) -> Iterator[str | None]:
    """Map in a pool as its `map` does, with no more than `ahead` that are begun or wait."""
    waiting: deque[Future[str | None]] = deque()
    for index in indices:
        waiting.append(pool.submit(do, index))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write at an offset; the kernel may take less at a time, as on a disk that is nearly full."""
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], offset + written)


def _read_letterbox(annotations: Annotations, index: int, size: int) -> NDArray[np.uint8]:
    """Return one image as (rows with image, size, 3) uint8."""
    expected = (int(annotations.widths[index]), int(annotations.heights[index]))
    with Image.open(annotations.images_folder / annotations.file_names[index]) as image:
        # Orientation in EXIF is not applied: COCO's boxes, widths and heights are of the pixels as stored.
        if image.size != expected:
            raise ValueError(f"is {image.width} x {image.height} px, the annotations say {expected[0]} x {expected[1]}")
        scales, contents = letterbox_geometry(annotations.widths[[index]], annotations.heights[[index]], size)
        width, height = contents[0].tolist()
        # JPEG decodes at 1/2, 1/4 or 1/8 in a fraction of the time; twice the target keeps the quality.
        draft = image.draft(None, (2 * width, 2 * height))
        decoded_width = draft[1][2] if draft else expected[0]  # before it is rounded up to whole pixels
        scale = float(scales[0]) * expected[0] / decoded_width
        rgb = _to_rgb(image)
        box = (0, 0, min(width / scale, rgb.width), min(height / scale, rgb.height))
        resized = rgb.resize((width, height), Image.Resampling.BILINEAR, box=box)
    pixels = np.zeros((height, size, 3), dtype=np.uint8)
    pixels[:, :width] = np.asarray(resized)
    return pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return 8-bit RGB; transparency is dropped, what it hides shows as stored."""
    image.load()
    if image.mode.startswith("I;16"):
        # Pillow clips these to 255 instead of scaling.
        levels = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"has pixels of mode {image.mode}, whose range is not known; save it with 8 or 16 bits")
    return image.convert("RGB")
