"""Batches of training images with what each anchor shall predict, made where the network runs.

A CPU makes them image by image, when they are asked for. For an accelerator a thread draws and gathers the next ones
meanwhile; augmentation and matching are done there by the batch, in shapes that are the same for every batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinenas.proxy_task.config import TrainConfig
from spinenas.proxy_task.data.labelled_images import LabelledImages
from spinenas.proxy_task.detector.matching import targets
from spinenas.proxy_task.training.augment import (
    Window,
    augmented,
    augmented_batch,
    draw_window,
    letterboxed,
    stacked_windows,
)
from spinenas.proxy_task.training.compilation import maybe_compiled
from spinenas.proxy_task.training.device import accelerator_memory_gib

T = TypeVar("T")

Batch = tuple[Tensor, Tensor, Tensor]
"""Augmented images (B, 3, S, S), class channels (B, A) and box targets (B, A, 4)."""

RESIDENT_SHARE = 1 / 8
"""Images move into an accelerator's memory when they take no more than this share of it."""

AHEAD = 2
"""Batches that are made for an accelerator while it works."""

MATCHED_AT_ONCE = 2**26
"""Pairs of a box and an anchor whose overlaps are in an accelerator's memory at a time, padding included."""


def on_device(data: LabelledImages, device: torch.device) -> LabelledImages:
    """Return the same images, in the memory of an accelerator if they fit."""
    assert isinstance(data.images, np.ndarray)
    if device.type == "cpu" or data.images.nbytes > RESIDENT_SHARE * accelerator_memory_gib() * 2**30:
        return data
    return replace(data, images=torch.from_numpy(np.array(data.images)).to(device))


def pixels(data: LabelledImages, rows: NDArray[np.int64], device: torch.device) -> Tensor:
    """Return cached images (B, S, S, 3), uint8: on the device, or where they can be copied to it from."""
    if isinstance(data.images, Tensor):
        return data.images[torch.from_numpy(rows).to(data.images.device)]
    gathered = torch.from_numpy(data.images[rows])
    return gathered.pin_memory() if device.type == "cuda" else gathered  # only pinned memory is copied in passing


def shown_plainly(data: LabelledImages, rows: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images (B, 3, S, S) as evaluation shows them, and height and width (B, 2) of their contents."""
    contents = torch.from_numpy(data.contents[rows]).to(device)
    images = letterboxed(pixels(data, rows, device).to(device, non_blocking=True), contents)
    return images.contiguous(memory_format=torch.channels_last), contents


def batches(
    data: LabelledImages,
    order: NDArray[np.int64],
    rng: np.random.Generator,
    anchors: Tensor,
    train: TrainConfig,
) -> Iterator[Batch]:
    """Give the batches of one epoch on the anchors' device; what is left over of the order is not.

    Args:
        order: rows of the images; fewer than a batch are one.
        rng: draws the augmentation; the same on every device.
    """
    size = train.batch_size
    parts = [order[start : start + size] for start in range(0, max(1, len(order) - size + 1), size)]
    if anchors.device.type == "cpu":
        for rows in parts:
            yield cpu_batch(data, rows, rng, anchors, train)
        return
    for drawn in made_ahead(draw_batch(data, rows, rng, train, anchors.device) for rows in parts):
        yield device_batch(drawn, anchors, train)


def cpu_batch(
    data: LabelledImages, rows: NDArray[np.int64], rng: np.random.Generator, anchors: Tensor, train: TrainConfig
) -> Batch:
    """Make a batch image by image, each with its own number of boxes."""
    images, classes, box_targets = [], [], []
    for row in rows.tolist():
        window = _window(data, row, rng, train)
        images.append(augmented(torch.from_numpy(np.array(data.images[row])), window))
        class_target, box_target = targets(anchors, *_objects(data, row, window, 1))
        classes.append(class_target)
        box_targets.append(box_target)
    stacked = torch.stack(images).contiguous(memory_format=torch.channels_last)
    return stacked, torch.stack(classes), torch.stack(box_targets)


@dataclass(frozen=True, slots=True, eq=False)
class DrawnBatch:
    """All of a batch that is not computed on the accelerator.

    Attributes:
        images: (B, S, S, 3) uint8 as cached, on either side.
        windows: (B, 2, 4) as `stacked_windows` returns them.
        boxes_yxyx: (B, N, 4) float32, N the most of any image, padded with zeros.
        labels: (B, N) int64.
    """

    images: Tensor
    windows: Tensor
    boxes_yxyx: Tensor
    labels: Tensor


def draw_batch(
    data: LabelledImages, rows: NDArray[np.int64], rng: np.random.Generator, train: TrainConfig, device: torch.device
) -> DrawnBatch:
    """Draw the windows of a batch for a device, and gather its images."""
    windows = [_window(data, row, rng, train) for row in rows.tolist()]
    objects = [_objects(data, row, window, data.most_boxes) for row, window in zip(rows.tolist(), windows, strict=True)]
    boxes_yxyx, labels = (torch.stack(part) for part in zip(*objects, strict=True))
    return DrawnBatch(pixels(data, rows, device), stacked_windows(windows), boxes_yxyx, labels)


def device_batch(drawn: DrawnBatch, anchors: Tensor, train: TrainConfig) -> Batch:
    """Augment and match a drawn batch on the anchors' device."""
    device = anchors.device
    images, windows, boxes_yxyx, labels = (
        x.to(device, non_blocking=True) for x in (drawn.images, drawn.windows, drawn.boxes_yxyx, drawn.labels)
    )
    augment = maybe_compiled(augmented_batch, train.compile)
    match_all = maybe_compiled(targets, train.compile)
    at_once = _images_at_once(len(images), boxes_yxyx.shape[1] * len(anchors))
    parts = zip(torch.split(boxes_yxyx, at_once), torch.split(labels, at_once), strict=True)
    classes, box_targets = zip(*(match_all(anchors, *part) for part in parts), strict=True)
    augmented_images = augment(images, windows).contiguous(memory_format=torch.channels_last)
    return augmented_images, torch.cat(classes), torch.cat(box_targets)


def _images_at_once(num_images: int, pairs_per_image: int) -> int:
    """The most images whose pairs fit, of the numbers that divide a batch: one shape for all parts of it."""
    divisors = (count for count in range(num_images, 0, -1) if num_images % count == 0)
    return next((count for count in divisors if count * pairs_per_image <= MATCHED_AT_ONCE), 1)


def _window(data: LabelledImages, row: int, rng: np.random.Generator, train: TrainConfig) -> Window:
    return draw_window(data.content(row), data.images.shape[1], rng, flip=train.flip, scale_jitter=train.scale_jitter)


def _objects(data: LabelledImages, row: int, window: Window, least: int) -> tuple[Tensor, Tensor]:
    """Return boxes (N, 4) float32 and labels (N,) of an image in its window, N at least `least` by padding."""
    all_boxes, all_labels = data.objects(row)
    boxes, kept = window.take_boxes(all_boxes)
    count = max(least, len(boxes))
    boxes_yxyx, labels = torch.zeros(count, 4), torch.zeros(count, dtype=torch.int64)
    boxes_yxyx[: len(boxes)] = torch.from_numpy(boxes)
    labels[: len(boxes)] = torch.from_numpy(all_labels[kept])
    return boxes_yxyx, labels


def made_ahead(items: Iterator[T]) -> Iterator[T]:
    """Give the items in their order; a thread makes the next ones meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, items, None) for _ in range(AHEAD))
        while (item := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(next, items, None))
            yield item
