"""Draws images of a task with their boxes as trials see them, side by side in one picture."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from spinenas.proxy_task.data.images.labelled_images import LabelledImages
from spinenas.proxy_task.task import ProxyTask
from spinenas.proxy_task.training.augment import MEAN_RGB, STD_RGB
from spinenas.proxy_task.training.batches import augmented_image
from spinenas.space.random_streams import generator

Part = Literal["train", "reward", "val"]
"""Images that trials train on, those held out for the reward, and those of val."""

TILE_PIXELS = 320
"""Side of an image in the picture; smaller images are enlarged."""

COLUMNS, MARGIN_PIXELS, TEXT_PIXELS = 6, 6, 13

TITLE_PIXELS = 2 * TEXT_PIXELS + MARGIN_PIXELS
"""Height of the two lines above the images."""

PADDING = np.array([round(255 * level) for level in MEAN_RGB], dtype=np.uint8)
"""Colour outside the content of an image. Normalised, it is the zero that networks see there."""

MOST_LABELS = 25
"""Labels of an image, those of its largest boxes; more would hide it."""

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45", "#fabed4", "#ffe119")
"""Colours of the categories in turn."""


@dataclass(frozen=True, slots=True)
class ContactSheet:
    """A picture of images with their boxes.

    Attributes:
        png: the file.
        drawn: number of images drawn, and number of all images, by part.
    """

    png: bytes
    drawn: dict[Part, tuple[int, int]]


def contact_sheet(
    task: ProxyTask, parts: Sequence[Part], *, num_images: int, augmented: bool, seed: int, title: str
) -> ContactSheet:
    """Draw random images with their boxes and the names of categories.

    Args:
        parts: which images to draw; each has a share of the picture, and at least one image.
        num_images: how many in total; all, if there are fewer.
        augmented: draw images trained on scaled, cropped and flipped, as a trial with this seed could. Reward and val
            images are never augmented.
        seed: selects the images.
        title: first line of the picture.

    Raises UserError if an image cannot be used.
    """
    rng = generator(seed, "data/contact sheet")
    all_rows = {part: _rows_of(task, part) for part in parts}
    counts = shares({part: len(rows) for part, rows in all_rows.items()}, num_images)
    tiles: list[tuple[str, Image.Image]] = []
    for part, rows in all_rows.items():
        chosen = np.sort(rng.permutation(rows)[: counts[part]]).tolist()
        split = task.data.val if part == "val" else task.data.train
        data = task.data.cached_images(split, task.config.image_size_pixels)
        for row in chosen:
            tile = _tile(task, data, row, rng if augmented and part == "train" else None)
            tiles.append((f"{part}: {data.annotations.file_names[row][-40:]}", tile))
    detail = f"{task.config.image_size_pixels} px" + (", images trained on are augmented" * augmented)
    drawn = {part: (counts[part], len(rows)) for part, rows in all_rows.items()}
    return ContactSheet(_sheet(tiles, (title, detail)), drawn)


def shares(sizes: Mapping[Part, int], num_images: int) -> dict[Part, int]:
    """Divide a number of images among parts of these sizes in proportion; each part has one image, if it can."""
    total = sum(sizes.values())
    if total <= num_images:
        return dict(sizes)
    exact = {part: num_images * size / total for part, size in sizes.items()}
    counts = {part: min(size, max(1, int(exact[part]))) for part, size in sizes.items()}
    while sum(counts.values()) < num_images:
        counts[max(counts, key=lambda part: exact[part] - counts[part])] += 1
    while sum(counts.values()) > num_images:
        counts[max(counts, key=lambda part: (counts[part], counts[part] - exact[part]))] -= 1
    return counts


def _rows_of(task: ProxyTask, part: Part) -> NDArray[np.int64]:
    if part == "train":
        return task.data.train_rows
    return task.data.evaluated_rows(part)


def _sheet(tiles: Sequence[tuple[str, Image.Image]], title: Sequence[str]) -> bytes:
    """Return a PNG of captioned tiles in rows below the title."""
    columns = min(COLUMNS, len(tiles))
    step = TILE_PIXELS + MARGIN_PIXELS
    num_rows = -(-len(tiles) // columns)
    size = (columns * step + MARGIN_PIXELS, TITLE_PIXELS + num_rows * (step + TEXT_PIXELS) + MARGIN_PIXELS)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT_PIXELS - 2)
    for line, text in enumerate(title):
        text = _printable(text)
        while draw.textlength(text, font=font) > size[0] - 2 * MARGIN_PIXELS:
            text = f"...{text[4:]}"  # the end of a path tells more than its start
        draw.text((MARGIN_PIXELS, MARGIN_PIXELS + line * TEXT_PIXELS - 1), text, fill="black", font=font)
    for place, (caption, tile) in enumerate(tiles):
        left = MARGIN_PIXELS + place % columns * step
        top = TITLE_PIXELS + MARGIN_PIXELS + place // columns * (step + TEXT_PIXELS)
        draw.text((left, top - 1), _printable(caption), fill="black", font=font)
        sheet.paste(tile, (left, top + TEXT_PIXELS))
    file = io.BytesIO()
    sheet.save(file, format="PNG")
    return file.getvalue()


def _tile(task: ProxyTask, data: LabelledImages, row: int, rng: np.random.Generator | None) -> Image.Image:
    """Draw one image with its boxes; augmented if there is a generator."""
    if rng is None:
        height, width = data.content(row)
        pixels = np.array(data.images[row])
        pixels[height:], pixels[:, width:] = PADDING, PADDING
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
    """Return a tile of TILE_PIXELS with boxes in pixels of the image.

    A label that finds no free place is left out; the colour of its box still tells the category.
    """
    scale = TILE_PIXELS / pixels.shape[0]
    tile = Image.fromarray(pixels).resize((TILE_PIXELS, TILE_PIXELS), Image.Resampling.BILINEAR)
    draw, font = ImageDraw.Draw(tile), ImageFont.load_default(TEXT_PIXELS - 2)
    boxes = (boxes_yxyx * scale).tolist()
    colours = [COLOURS[(label - 1) % len(COLOURS)] for label in labels.tolist()]
    for (top, left, bottom, right), colour in zip(boxes, colours, strict=True):
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=2)
    taken: list[tuple[float, float, float, float]] = []
    sides = boxes_yxyx[:, 2:] - boxes_yxyx[:, :2]
    for index in np.argsort(-sides.prod(axis=1), kind="stable")[:MOST_LABELS].tolist():
        box, colour, label = boxes[index], colours[index], int(labels[index])
        text = _printable(names[label - 1])[:30]
        width = draw.textlength(text, font=font) + 3
        place = next((place for place in _places(box, width) if not any(_overlap(place, it) for it in taken)), None)
        if place is not None:
            taken.append(place)
            draw.rectangle(place, fill=colour)
            ink = "black" if sum(ImageColor.getrgb(colour)) > 330 else "white"
            draw.text((place[0] + 2, place[1] - 1), text, fill=ink, font=font)
    return tile


def _places(box: Sequence[float], width: float) -> Iterator[tuple[float, float, float, float]]:
    """Yield places of a label at a box, as (left, top, right, bottom) in a tile: outside the box first."""
    top, left, bottom, right = box
    height = TEXT_PIXELS - 1
    for y in (top - height - 1, bottom, top, bottom - height - 1):
        for x in (left, right - width):
            if 0 <= y <= TILE_PIXELS - height:
                x = max(0, min(x, TILE_PIXELS - width))
                yield x, y, x + width, y + height


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]


def _printable(text: str) -> str:
    """Replace what the built-in font cannot draw."""
    return text.encode("latin-1", "replace").decode("latin-1")
