"""Reads one image file: its header, and its pixels as a letterbox of a given size."""

from __future__ import annotations

import contextlib
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose

from spinenas.proxy_task.config import DataConfig

ExifRule = Literal["auto", "displayed", "stored"]
"""Coordinates of boxes in images with an EXIF orientation; "auto" lets the sizes in the annotations decide."""

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

ORIENTATION_TAG = 0x0112

UPRIGHT: dict[int, tuple[Transpose, bool, bool]] = {
    2: (Transpose.FLIP_LEFT_RIGHT, True, False),
    3: (Transpose.ROTATE_180, True, True),
    4: (Transpose.FLIP_TOP_BOTTOM, False, True),
    5: (Transpose.TRANSPOSE, False, False),
    6: (Transpose.ROTATE_270, True, False),
    7: (Transpose.TRANSVERSE, True, True),
    8: (Transpose.ROTATE_90, False, True),
}
"""By EXIF orientation: how to turn the stored image upright, and whether x and y then run against a stored axis."""

FIRST_SWAPPED = 5
"""From this EXIF orientation on, width and height are swapped."""

SHORT_LEVELS = 4096
"""A 16-bit image with no level as high as this probably holds 12 bits."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How image files become pixels.

    Attributes:
        exif: see `ExifRule`.
        bit_depth: bits used by images with 16 bits per pixel.
        max_megapixels: largest image to decode; a JPEG counts at the reduced size at which it is decoded.
    """

    exif: ExifRule = "auto"
    bit_depth: int = 16
    max_megapixels: float = 179.0

    def as_fingerprint(self) -> dict[str, Any]:
        """Return the options that change pixels, without those at their defaults."""
        options = {"exif": self.exif, "bit_depth": self.bit_depth}
        return {name: value for name, value in options.items() if value != getattr(Decoding(), name)}


def decoding_of(config: DataConfig) -> Decoding:
    """Return how a configuration wants image files decoded."""
    return Decoding(config.exif, config.bit_depth, config.max_megapixels)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a decoded file says about itself.

    Attributes:
        orientation: EXIF orientation, 1 to 8.
        is_turned: whether the image was turned upright.
        has_short_levels: whether 16-bit pixels have only low levels.
    """

    orientation: int = 1
    is_turned: bool = False
    has_short_levels: bool = False


@contextlib.contextmanager
def large_images_allowed() -> Iterator[None]:
    """Switch off Pillow's limit for the size of images, which is checked before a JPEG can be reduced."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def header_size(path: Path, exif: ExifRule) -> tuple[int, int]:
    """Return the width and height of a file without decoding it: displayed or stored, "auto" means stored."""
    with _opened(path) as image:
        width, height = image.size
        is_swapped = exif == "displayed" and _orientation(image) >= FIRST_SWAPPED
    return (height, width) if is_swapped else (width, height)


def read_letterbox(
    path: Path, expected: tuple[int, int], content: tuple[int, int], scale: float, canvas_width: int, decoding: Decoding
) -> tuple[NDArray[np.uint8], ImageFacts]:
    """Decode and resize an image.

    Args:
        path: the file.
        expected: width and height in the annotations.
        content: width and height of the resized image.
        scale: resized / original.
        canvas_width: width of the result; the rest of each row is zero.
        decoding: how to read it.

    Returns:
        Pixels (height of the content, canvas_width, 3) uint8, and facts about the file.

    Raises:
        FileNotFoundError, or one of DECODING_ERRORS: where the file cannot be used.
    """
    width, height = content
    with _opened(path) as image:
        orientation = _orientation(image)
        is_turned = _is_turned(image.size, orientation, expected, decoding.exif)
        stored_width, stored_height = image.size
        turns_sides = is_turned and orientation >= FIRST_SWAPPED
        # JPEG decodes at 1/2, 1/4 or 1/8 scale in a fraction of the time. Twice the target size keeps the quality.
        draft = image.draft(None, (2 * height, 2 * width) if turns_sides else (2 * width, 2 * height))
        _check_megapixels(image.size, decoding)
        # Before rounding up to whole pixels.
        decoded_width, decoded_height = draft[1][2:] if draft else (stored_width, stored_height)
        decoded_scale = scale * stored_width / decoded_width
        rgb, has_short_levels = _to_rgb(image, decoding.bit_depth)
        left = top = 0.0
        if is_turned and orientation in UPRIGHT:
            method, x_runs_back, y_runs_back = UPRIGHT[orientation]
            spare = rgb.width - decoded_width, rgb.height - decoded_height
            spare_x, spare_y = spare[::-1] if turns_sides else spare
            left, top = spare_x * x_runs_back, spare_y * y_runs_back
            rgb = rgb.transpose(method)
        box = (left, top, min(left + width / decoded_scale, rgb.width), min(top + height / decoded_scale, rgb.height))
        resized = rgb.resize((width, height), Image.Resampling.BILINEAR, box=box)
    pixels = np.zeros((height, canvas_width, 3), dtype=np.uint8)
    pixels[:, :width] = np.asarray(resized)
    return pixels, ImageFacts(orientation, is_turned and orientation != 1, has_short_levels)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        image = Image.open(path)
    except UnidentifiedImageError as error:
        raise ValueError(_unknown_format(path)) from error
    except UnicodeEncodeError as error:
        raise ValueError("has a name that this locale cannot encode; set LC_ALL=C.UTF-8") from error
    with image:
        yield image


def _unknown_format(path: Path) -> str:
    """Return what a file that Pillow cannot read is, and what to do."""
    with open(path, "rb") as file:
        start = file.read(256)
    if start[4:8] == b"ftyp":
        return "is a HEIC photo or a video; convert it to JPEG, for example with `magick mogrify -format jpg`"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS instead of the image; fetch the images with `git lfs pull`"
    if start[128:132] == b"DICM":
        return "is a DICOM file; convert it to PNG"
    if start.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        return "is a web page instead of an image; download it again"
    return "is no image in a format that Pillow reads" if start.strip(b"\0") else "is empty"


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 if there is none. Pillow itself turns TIFF images upright."""
    if image.format == "TIFF":
        return 1
    try:
        # The method of the base class: that of PNG decodes the pixels.
        orientation = Image.Image.getexif(image).get(ORIENTATION_TAG, 1)
    except DECODING_ERRORS:  # a damaged EXIF block; the pixels may be whole
        return 1
    return orientation if orientation in UPRIGHT else 1


def _is_turned(stored: tuple[int, int], orientation: int, expected: tuple[int, int], exif: ExifRule) -> bool:
    """Whether an image is to be turned upright. Raises ValueError if its size is not the expected one."""
    displayed = stored[::-1] if orientation >= FIRST_SWAPPED else stored
    is_turned = exif == "displayed" or (exif == "auto" and stored != expected == displayed)
    found = displayed if is_turned else stored
    if found != expected:
        how = ""
        if displayed != stored:
            way = "displayed" if is_turned else "stored"
            how = f" as {way} (EXIF orientation {orientation}, task.data.exif is {exif})"
        raise ValueError(f"is {found[0]} x {found[1]} px{how}, the annotations say {expected[0]} x {expected[1]}")
    return is_turned


def _check_megapixels(size: tuple[int, int], decoding: Decoding) -> None:
    megapixels = size[0] * size[1] / 1e6
    if megapixels > decoding.max_megapixels:
        raise ValueError(
            f"has {megapixels:.0f} megapixels, more than task.data.max_megapixels, which is {decoding.max_megapixels:g}"
            f"; save it smaller, or raise task.data.max_megapixels to {math.ceil(megapixels)}"
        )


def _to_rgb(image: Image.Image, bit_depth: int) -> tuple[Image.Image, bool]:
    """Return 8-bit RGB, and whether 16-bit pixels have only low levels.

    The alpha channel is dropped, and hidden pixels appear as stored.
    """
    is_deep_colour = not image.mode.startswith("I") and any(
        ";16" in str(tile.args) for tile in getattr(image, "tile", ())
    )
    image.load()
    has_short_levels = False
    if image.mode.startswith("I;16"):
        # Pillow would clip these to 255 instead of scaling them.
        levels = np.asarray(image).astype(np.uint32)
        highest, top = int(levels.max()), 2**bit_depth - 1
        if highest > top:
            raise ValueError(f"has the level {highest}, more than task.data.bit_depth of {bit_depth} bits allows")
        has_short_levels = bit_depth == 16 and 0 < highest < SHORT_LEVELS
        image = Image.fromarray(((levels * 255 + top // 2) // top).astype(np.uint8))
    elif is_deep_colour:
        if bit_depth != 16:
            raise ValueError(
                "has 16 bits per colour, of which 8 are read; convert it to 8 bits to use task.data.bit_depth"
            )
        highest = int(np.asarray(image.convert("RGB")).max())
        has_short_levels = 0 < highest < SHORT_LEVELS // 256
    if image.mode in ("I", "F"):
        raise ValueError(f"has pixels of mode {image.mode}, whose range is not known; save it with 8 or 16 bits")
    return image.convert("RGB"), has_short_levels
