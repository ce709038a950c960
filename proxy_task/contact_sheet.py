"""Draws images of a task with their boxes as training sees them, side by side in one picture."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from spinenas.proxy_task.data.images.labelled_images import LabelledImages
from spinenas.proxy_task.task import ProxyTask
from spinenas.proxy_task.training.augment import MEAN_RGB, STD_RGB
from spinenas.proxy_task.training.batches import augmented_image
from spinenas.space.random_streams import generator

TILE_PIXELS = 320
"""Side of an image in the picture; smaller images are enlarged."""

COLUMNS, MARGIN_PIXELS, TEXT_PIXELS = 6, 6, 13

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45", "#fabed4", "#ffe119")
"""Colours of the categories in turn."""


def contact_sheet(task: ProxyTask, *, num_images: int, augmented: bool, seed: int) -> bytes:
    """Return a PNG of random training images with their boxes and the names of categories.

    Args:
        num_images: how many; all, if there are fewer.
        augmented: draw them scaled, cropped and flipped, as a trial with this seed could.
        seed: selects the images.

    Raises UserError if an image cannot be used.
    """
    rng = generator(seed, "data/contact sheet")
    rows = np.sort(rng.permutation(task.data.train_rows)[:num_images]).tolist()
    data = task.data.cached_images(task.data.train, task.config.image_size_pixels)
    tiles = [_tile(task, data, row, rng if augmented else None) for row in rows]
    columns = min(COLUMNS, len(tiles))
    step = TILE_PIXELS + MARGIN_PIXELS
    size = (columns * step + MARGIN_PIXELS, -(-len(tiles) // columns) * (step + TEXT_PIXELS) + MARGIN_PIXELS)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT_PIXELS - 2)
    for place, (row, tile) in enumerate(zip(rows, tiles, strict=True)):
        left = MARGIN_PIXELS + place % columns * step
        top = MARGIN_PIXELS + place // columns * (step + TEXT_PIXELS)
        name = _printable(data.annotations.file_names[row])
        draw.text((left, top - 1), name[-48:], fill="black", font=font)
        sheet.paste(tile, (left, top + TEXT_PIXELS))
    file = io.BytesIO()
    sheet.save(file, format="PNG")
    return file.getvalue()


def _tile(task: ProxyTask, data: LabelledImages, row: int, rng: np.random.Generator | None) -> Image.Image:
    """Draw one image with its boxes; augmented if there is a generator."""
    if rng is None:
        pixels = np.array(data.images[row])
        boxes_yxyx, labels = data.objects(row)
    else:
        image, boxes, channels = augmented_image(data, row, rng, task.config.train)
        boxes_yxyx, labels = boxes[channels > 0].numpy(), channels[channels > 0].numpy()
        restored = image.permute(1, 2, 0).numpy() * np.array(STD_RGB) + np.array(MEAN_RGB)
        pixels = (restored * 255).round().clip(0, 255).astype(np.uint8)
    return _with_boxes(pixels, boxes_yxyx, labels, data.annotations.category_names)


def _with_boxes(
    pixels: NDArray[np.uint8], boxes_yxyx: NDArray[np.float64], labels: NDArray[np.int64], names: tuple[str, ...]
) -> Image.Image:
    """Return a tile of TILE_PIXELS with boxes in pixels of the image."""
    scale = TILE_PIXELS / pixels.shape[0]
    tile = Image.fromarray(pixels).resize((TILE_PIXELS, TILE_PIXELS), Image.Resampling.BILINEAR)
    draw, font = ImageDraw.Draw(tile), ImageFont.load_default(TEXT_PIXELS - 2)
    for (top, left, bottom, right), label in zip((boxes_yxyx * scale).tolist(), labels.tolist(), strict=True):
        colour = COLOURS[(label - 1) % len(COLOURS)]
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=2)
        text = _printable(names[label - 1])
        background = draw.textbbox((left + 3, top + 2), text, font=font)
        draw.rectangle((background[0] - 1, background[1] - 1, background[2] + 1, background[3] + 1), fill="white")
        draw.text((left + 3, top + 2), text, fill="black", font=font)
    return tile


def _printable(text: str) -> str:
    """Replace what the built-in font cannot draw."""
    return text.encode("latin-1", "replace").decode("latin-1")
