"""Cached images with their boxes in pixels of the cache: what trainings and detection take rows of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from spinenas.proxy_task.boxes import yxyx_from_xywh
from spinenas.proxy_task.coco import Annotations
from spinenas.proxy_task.image_cache import ImageCache


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """All images of a cache with their boxes; trainings and evaluations take rows of it.

    Attributes:
        images: (N, S, S, 3) uint8, content in the top-left corner; may be a memory map.
        contents: N pairs, height and width of the content.
        boxes_yxyx: one (n, 4) float64 array per image, in pixels of the canvas, without crowds.
        labels: one (n,) array per image, 1 to K.
    """

    images: NDArray[np.uint8]
    contents: list[tuple[int, int]]
    boxes_yxyx: list[NDArray[np.float64]]
    labels: list[NDArray[np.int64]]


def labelled(annotations: Annotations, cache: ImageCache) -> LabelledImages:
    """Bring the boxes, without crowds, into pixels of the cache."""
    boxes_yxyx, labels = [], []
    for row, (start, end) in enumerate(zip(annotations.box_offsets[:-1], annotations.box_offsets[1:], strict=True)):
        objects = ~annotations.iscrowd[start:end]
        boxes_xywh = annotations.boxes_xywh[start:end][objects] * cache.scales[row]
        boxes_yxyx.append(yxyx_from_xywh(torch.from_numpy(boxes_xywh)).numpy())
        labels.append(annotations.labels[start:end][objects])
    contents = [(int(height), int(width)) for width, height in cache.content_sizes_wh]
    return LabelledImages(cache.images, contents, boxes_yxyx, labels)
