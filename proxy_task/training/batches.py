"""Batches of training images with the targets of each anchor, computed on the device of the network.

On a CPU, batches are computed image by image, on demand. For an accelerator, a thread prefetches raw batches, and the
accelerator augments and matches whole batches, in shapes that are the same for every batch.
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
from spinenas.proxy_task.data.images.labelled_images import LabelledImages
from spinenas.proxy_task.detector.matching import anchor_targets
from spinenas.proxy_task.training.augment import (
    Crop,
    augment_batch,
    augment_image,
    draw_crop,
    normalize_letterboxed,
    stack_crops,
)
from spinenas.proxy_task.training.compilation import maybe_compiled
from spinenas.proxy_task.training.device import accelerator_memory_gib

T = TypeVar("T")

Batch = tuple[Tensor, Tensor, Tensor]
"""Augmented images (B, 3, S, S), class channels (B, A) and box targets (B, A, 4)."""

RESIDENT_SHARE = 1 / 8
"""Images move into an accelerator's memory when they take no more than this share of it."""

NUM_PREFETCHED = 2
"""Raw batches that are prefetched for an accelerator."""

MAX_PAIRS_AT_ONCE = 2**26
"""Most pairs of box and anchor, padding included, whose overlaps an accelerator computes at once."""


def move_to_device(data: LabelledImages, device: torch.device) -> LabelledImages:
    """Return the same images, in the accelerator's memory if they fit there."""
    assert isinstance(data.images, np.ndarray)
    if device.type == "cpu" or data.images.nbytes > RESIDENT_SHARE * accelerator_memory_gib() * 2**30:
        return data
    return replace(data, images=torch.from_numpy(np.array(data.images)).to(device))


def gather_images(data: LabelledImages, rows: NDArray[np.int64], device: torch.device) -> Tensor:
    """Return cached images (B, S, S, 3), uint8: on the device, or in memory that can be copied to it."""
    if isinstance(data.images, Tensor):
        return data.images[torch.from_numpy(rows).to(data.images.device)]
    gathered = torch.from_numpy(data.images[rows])
    return gathered.pin_memory() if device.type == "cuda" else gathered  # only pinned memory is copied asynchronously


def eval_batch(data: LabelledImages, rows: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images (B, 3, S, S) without augmentation, and height and width (B, 2) of their contents."""
    contents = torch.from_numpy(data.contents[rows]).to(device)
    images = normalize_letterboxed(gather_images(data, rows, device).to(device, non_blocking=True), contents)
    return images.contiguous(memory_format=torch.channels_last), contents


def batches(
    data: LabelledImages,
    order: NDArray[np.int64],
    rng: np.random.Generator,
    anchors: Tensor,
    train: TrainConfig,
) -> Iterator[Batch]:
    """Yield the whole batches of one epoch on the anchors' device.

    Args:
        order: rows of the images; if there are fewer than a batch, they are the one batch.
        rng: draws the augmentation; the draws are the same on every device.
    """
    size = train.batch_size
    parts = [order[start : start + size] for start in range(0, max(1, len(order) - size + 1), size)]
    if anchors.device.type == "cpu":
        for rows in parts:
            yield cpu_batch(data, rows, rng, anchors, train)
        return
    for drawn in prefetch(draw_raw_batch(data, rows, rng, train, anchors.device) for rows in parts):
        yield device_batch(drawn, anchors, train)


def cpu_batch(
    data: LabelledImages, rows: NDArray[np.int64], rng: np.random.Generator, anchors: Tensor, train: TrainConfig
) -> Batch:
    """Return a batch computed image by image, each with its own number of boxes."""
    images, classes, box_targets = [], [], []
    for row in rows.tolist():
        image, boxes_yxyx, labels = augmented_image(data, row, rng, train)
        images.append(image)
        class_target, box_target = anchor_targets(anchors, boxes_yxyx, labels)
        classes.append(class_target)
        box_targets.append(box_target)
    stacked = torch.stack(images).contiguous(memory_format=torch.channels_last)
    return stacked, torch.stack(classes), torch.stack(box_targets)


def augmented_image(
    data: LabelledImages, row: int, rng: np.random.Generator, train: TrainConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Return an image (3, S, S) as trained on, its boxes yxyx (N, 4) and labels (N,); a padding box has label 0."""
    crop = _draw_crop(data, row, rng, train)
    image = augment_image(torch.from_numpy(np.array(data.images[row])), crop)
    return image, *_boxes_in_crop(data, row, crop, 1)


@dataclass(frozen=True, slots=True, eq=False)
class RawBatch:
    """The part of a batch that is prepared on the CPU: images before augmentation, their crops and boxes.

    Attributes:
        images: (B, S, S, 3) uint8 as cached, in either memory.
        crops: (B, 2, 4) as `stack_crops` returns them.
        boxes_yxyx: (B, N, 4) float32, padded with zeros; N is the largest number of boxes of any image.
        labels: (B, N) int64.
    """

    images: Tensor
    crops: Tensor
    boxes_yxyx: Tensor
    labels: Tensor


def draw_raw_batch(
    data: LabelledImages, rows: NDArray[np.int64], rng: np.random.Generator, train: TrainConfig, device: torch.device
) -> RawBatch:
    """Draw the crops of a batch for a device, and gather its images."""
    crops = [_draw_crop(data, row, rng, train) for row in rows.tolist()]
    objects = [_boxes_in_crop(data, row, crop, data.max_boxes) for row, crop in zip(rows.tolist(), crops, strict=True)]
    boxes_yxyx, labels = (torch.stack(part) for part in zip(*objects, strict=True))
    return RawBatch(gather_images(data, rows, device), stack_crops(crops), boxes_yxyx, labels)


def device_batch(drawn: RawBatch, anchors: Tensor, train: TrainConfig) -> Batch:
    """Augment and match a raw batch on the anchors' device."""
    device = anchors.device
    images, crops, boxes_yxyx, labels = (
        x.to(device, non_blocking=True) for x in (drawn.images, drawn.crops, drawn.boxes_yxyx, drawn.labels)
    )
    augment = maybe_compiled(augment_batch, train.compile)
    match_all = maybe_compiled(anchor_targets, train.compile)
    at_once = _images_at_once(len(images), boxes_yxyx.shape[1] * len(anchors))
    parts = zip(torch.split(boxes_yxyx, at_once), torch.split(labels, at_once), strict=True)
    classes, box_targets = zip(*(match_all(anchors, *part) for part in parts), strict=True)
    augmented_images = augment(images, crops).contiguous(memory_format=torch.channels_last)
    return augmented_images, torch.cat(classes), torch.cat(box_targets)


def _images_at_once(num_images: int, pairs_per_image: int) -> int:
    """Return the largest divisor of the batch size whose pairs fit, so that all parts have one shape."""
    divisors = (count for count in range(num_images, 0, -1) if num_images % count == 0)
    return next((count for count in divisors if count * pairs_per_image <= MAX_PAIRS_AT_ONCE), 1)


def _draw_crop(data: LabelledImages, row: int, rng: np.random.Generator, train: TrainConfig) -> Crop:
    return draw_crop(data.content(row), data.images.shape[1], rng, flip=train.flip, scale_jitter=train.scale_jitter)


def _boxes_in_crop(data: LabelledImages, row: int, crop: Crop, least: int) -> tuple[Tensor, Tensor]:
    """Return boxes (N, 4) float32 and labels (N,) of an image in its crop, padded to at least `least`."""
    all_boxes, all_labels = data.objects(row)
    boxes, kept = crop.transform_boxes(all_boxes)
    count = max(least, len(boxes))
    boxes_yxyx, labels = torch.zeros(count, 4), torch.zeros(count, dtype=torch.int64)
    boxes_yxyx[: len(boxes)] = torch.from_numpy(boxes)
    labels[: len(boxes)] = torch.from_numpy(all_labels[kept])
    return boxes_yxyx, labels


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """Yield the items in order, while a thread computes the next ones."""
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, items, None) for _ in range(NUM_PREFETCHED))
        while (item := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(next, items, None))
            yield item
