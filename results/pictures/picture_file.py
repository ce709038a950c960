"""Writes SVG text as an SVG or PNG file."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from spinenas.results.storage.atomic_write import check_destination, write_chosen_file
from spinenas.space.errors import UserError

PNG_WIDTH_PIXELS = 2400
"""300 dots per inch at 20 cm, enough for print."""


def check_picture_path(path: Path, *, force: bool = False) -> None:
    """Raise UserError for a path with another suffix, or an existing file that may not be replaced."""
    if path.suffix.lower() not in (".svg", ".png"):
        raise UserError(f"{path} is not the name of a picture; end it in .svg or .png")
    check_destination(path, force=force)


def write_picture(svg: str, path: Path, *, force: bool = False) -> None:
    """Write SVG text atomically, as FILE.svg or rendered as FILE.png. Raises UserError."""
    check_picture_path(path, force=force)
    write_chosen_file(path, svg.encode() if path.suffix.lower() == ".svg" else png_bytes(svg))


def png_bytes(svg: str, width_pixels: int = PNG_WIDTH_PIXELS) -> bytes:
    """Render SVG as PNG in light colours. Raises UserError if resvg is not installed."""
    try:
        import resvg_py
    except ImportError as error:
        raise UserError(
            "a PNG needs resvg-py, which is not installed; pip install 'spinenas[draw]' or, in a clone, "
            "pip install -e '.[draw]' -c constraints.txt; or end the name in .svg"
        ) from error
    from PIL import ImageFont

    # Pillow's own font gives the same PNG on every machine, even on one without fonts.
    font = ImageFont.load_default(10)
    assert isinstance(font, ImageFont.FreeTypeFont)
    assert isinstance(font.path, io.BytesIO)
    with tempfile.NamedTemporaryFile(suffix=".ttf") as file:
        file.write(font.path.getvalue())
        file.flush()
        return resvg_py.svg_to_bytes(
            svg_string=svg, width=width_pixels, sans_serif_family=font.getname()[0], font_files=[file.name]
        )
