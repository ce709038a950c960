"""Generates the built-in data set: shapes on textured backgrounds, as an ordinary COCO folder.

A class is a shape in a family of colours, rotated, stretched and shaded. Sizes are log-uniform over a factor of ten, so
that every level of a detector has objects. Each image has its own random stream: a larger set starts with the images of
a smaller one. Objects are bright, coloured by class, on a dark background, so that half a minute of training on a CPU
can detect them. Only operations that IEEE 754 rounds identically everywhere are used.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from spinenas.proxy_task.config import BUILT_IN, DataConfig
from spinenas.proxy_task.data.cache_folder import build_once, cache_root
from spinenas.space.random_streams import generator

Coordinates = NDArray[np.float64]

SHAPES: dict[str, Callable[[Coordinates, Coordinates], NDArray[np.bool_]]] = {
    "cross": lambda u, v: (np.minimum(abs(u), abs(v)) <= 0.3) & (np.maximum(abs(u), abs(v)) <= 1),
    "disc": lambda u, v: u * u + v * v <= 1,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) <= 1,
    "triangle": lambda u, v: (v <= 1) & (2 * abs(u) - v <= 1),
}
"""Whether a point is inside, in coordinates of -1..1 over the shape's width and height; category ids are 1, 2, ..."""

COLOURS = {"cross": (230, 90, 90), "disc": (110, 220, 90), "square": (100, 130, 240), "triangle": (225, 200, 80)}
"""RGB at the centre of each class's family of colours."""

COLOUR_SPREAD = 40
"""Largest deviation of red, green and blue from the centre."""

SMALLEST, LARGEST = 0.075, 0.75
"""Side of an object before rotation and stretching, as a share of the image side: 10 to 96 px at 128 px."""

MIN_OBJECTS, MAX_OBJECTS = 3, 8
MAX_OVERLAP = 0.1
"""Largest intersection of two boxes, as a share of the smaller one."""

SUPERSAMPLING = 4
BUILT_IN_SEED = 0
BUILT_IN_VERSION = 2
"""Part of the folder name of the built-in set; raise it when the images change."""


def resolve_built_in(data: DataConfig, image_size_pixels: int) -> DataConfig:
    """Return a configuration that names a folder: the built-in set, if it is configured, is generated first."""
    if data.folder != BUILT_IN or data.train_annotations is not None:
        return data
    folder = ensure_built_in(
        cache_root(data.cache_folder), data.built_in_train_images, data.built_in_val_images, image_size_pixels
    )
    return replace(data, folder=str(folder))


def ensure_built_in(root: Path, num_train: int, num_val: int, image_size_pixels: int) -> Path:
    """Return the folder of the built-in data set below `root`; generate the set if it is not there."""
    name = f"built-in-{BUILT_IN_VERSION}-{num_train}-{num_val}-{image_size_pixels}px"
    build_once(
        root / name,
        lambda folder: generate_dataset(
            folder,
            num_train=num_train,
            num_val=num_val,
            image_size_pixels=image_size_pixels,
            seed=BUILT_IN_SEED,
        ),
    )
    return root / name


def generate_dataset(folder: Path, *, num_train: int, num_val: int, image_size_pixels: int = 128, seed: int) -> None:
    """Write `images/` and `annotations/instances_{train,val}.json` into a new folder."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    for split, count in (("train", num_train), ("val", num_val)):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(count):
            pixels, objects = draw_image(generator(seed, f"synthetic/{split}", index), image_size_pixels)
            name = f"{split}_{index:05}.png"
            Image.fromarray(pixels).save(folder / "images" / name, compress_level=1)
            side = image_size_pixels
            images.append({"id": index + 1, "file_name": name, "width": side, "height": side})
            for category_id, (x, y, width, height) in objects:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": index + 1,
                        "category_id": category_id,
                        "bbox": [x, y, width, height],
                        "area": width * height,
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": index + 1, "name": name} for index, name in enumerate(SHAPES)]
        document = {"images": images, "annotations": annotations, "categories": categories}
        path = folder / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(document), encoding="utf-8")


Box = tuple[int, int, int, int]
"""x, y, width, height in pixels."""


def draw_image(rng: np.random.Generator, side: int) -> tuple[NDArray[np.uint8], list[tuple[int, Box]]]:
    """Return an image, (side, side, 3), and its objects as (category id, tight box in pixels)."""
    canvas = _background(rng, side)
    count = int(rng.integers(MIN_OBJECTS, MAX_OBJECTS + 1))
    # Large ones first: small ones still fit when little space is left.
    sizes = sorted((SMALLEST * (LARGEST / SMALLEST) ** rng.random(count) * side).tolist(), reverse=True)
    objects: list[tuple[int, Box]] = []
    for size in sizes:
        shape_index = int(rng.integers(len(SHAPES)))
        name, inside = list(SHAPES.items())[shape_index]
        coverage = _shape_coverage(rng, inside, size)
        height, width = coverage.shape
        box = _free_place(rng, (width, height), side, [box for _, box in objects])
        if box is None:
            continue
        x, y = box[:2]
        beneath = canvas[y : y + height, x : x + width]
        beneath += coverage[:, :, None] * (_fill(rng, COLOURS[name], (height, width)) - beneath)
        objects.append((shape_index + 1, box))
    noise = rng.integers(-8, 9, size=(side, side, 3))
    return np.clip(canvas.round() + noise, 0, 255).astype(np.uint8), objects


def _background(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Return coloured noise of several octaves with a few strokes, (side, side, 3) of 0..255."""
    noise = np.zeros((side, side, 3))
    amplitude = 0.2
    for num_cells in (2, 4, 8, 16, 32):
        cells = rng.integers(0, 256, size=(num_cells, num_cells, 3), dtype=np.uint8)
        smooth = Image.fromarray(cells).resize((side, side), Image.Resampling.BICUBIC)
        noise += amplitude * (np.asarray(smooth) - 128.0)
        amplitude *= 0.6
    image = Image.fromarray(np.clip(rng.integers(24, 112, size=3) + noise, 0, 255).astype(np.uint8))
    strokes = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 4))):
        # From edge to edge, so that a stroke does not look like an object.
        ends = [(0, int(rng.integers(side))), (side, int(rng.integers(side)))]
        if rng.random() < 0.5:
            ends = [(y, x) for x, y in ends]
        strokes.line(ends, fill=tuple(rng.integers(0, 256, size=3).tolist()), width=int(rng.integers(1, 4)))
    return np.asarray(image).astype(np.float64)


def _shape_coverage(
    rng: np.random.Generator, inside: Callable[[Coordinates, Coordinates], NDArray[np.bool_]], size: float
) -> NDArray[np.float64]:
    """Return the share of each pixel that a randomly rotated and stretched shape covers, cropped to its tight box."""
    half_width = size / 2 * (0.75 + 0.25 * rng.random())
    half_height = size / 2 * (0.75 + 0.25 * rng.random())
    tangent = 0.4 * (rng.random() - 0.5)  # of half the angle: up to 23 degrees either way, without libm
    cosine = (1 - tangent * tangent) / (1 + tangent * tangent)
    sine = 2 * tangent / (1 + tangent * tangent)
    num_pixels = int(size * 1.5) + 2  # holds the diagonal
    samples = (np.arange(num_pixels * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - num_pixels / 2
    x, y = samples[None, :], samples[:, None]
    filled = inside((cosine * x + sine * y) / half_width, (cosine * y - sine * x) / half_height)
    blocks = filled.reshape(num_pixels, SUPERSAMPLING, num_pixels, SUPERSAMPLING)
    coverage = np.rot90(blocks.mean(axis=(1, 3)), k=int(rng.integers(4)))
    # Pixels covered by less than half are not drawn and not in the box, so that the box is exact.
    coverage = np.where(coverage >= 0.5, coverage, 0.0)
    rows, columns = np.flatnonzero(coverage.any(axis=1)), np.flatnonzero(coverage.any(axis=0))
    return coverage[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _free_place(rng: np.random.Generator, size: tuple[int, int], side: int, taken: list[Box]) -> Box | None:
    """Return a random box of this size with little overlap with the others; None if none is found."""
    width, height = size
    for _ in range(20):
        x, y = int(rng.integers(side - width + 1)), int(rng.integers(side - height + 1))
        if all(_overlap((x, y, width, height), other) <= MAX_OVERLAP for other in taken):
            return x, y, width, height
    return None


def _overlap(a: Box, b: Box) -> float:
    """Return the intersection as a share of the smaller box."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0) / min(a[2] * a[3], b[2] * b[3])


def _fill(rng: np.random.Generator, colour: tuple[int, int, int], size: tuple[int, int]) -> NDArray[np.float64]:
    """Return a colour of the family, lightly shaded, (height, width, 3) of 0..255."""
    own = np.array(colour) + rng.integers(-COLOUR_SPREAD, COLOUR_SPREAD + 1, size=3)
    height, width = size
    slope_x, slope_y = 60 * (rng.random(2) - 0.5)
    across, down = np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height)
    shade = slope_x * across[None, :] + slope_y * down[:, None]
    return np.asarray(np.clip(own + shade[:, :, None], 0, 255))
