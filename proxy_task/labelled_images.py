"""Cached images with their boxes in pixels of the cache: what trainings and detection take rows of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from spinenas.proxy_task.boxes import yxyx_from_xywh
from spinenas.proxy_task.coco import Annotations
from spinenas.proxy_task.image_cache import ImageCache


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImages:
    """All images of a cache with their boxes, as flat arrays; trainings and evaluations take rows of it.

    Attributes:
        images: (N, S, S, 3) uint8, content in the top-left corner; may be a memory map, or a tensor on an accelerator.
        contents: (N, 2) height and width of the content.
        box_offsets: (N + 1,); the boxes of image i are box_offsets[i]:box_offsets[i + 1].
        boxes_yxyx: (M, 4) float64, in pixels of the canvas, without crowds.
        labels: (M,) 1 to K.
    """

    images: NDArray[np.uint8] | torch.Tensor
    contents: NDArray[np.int64]
    box_offsets: NDArray[np.int64]
    boxes_yxyx: NDArray[np.float64]
    labels: NDArray[np.int64]

    @property
    def most_boxes(self) -> int:
        """The number of boxes of the image that has most of them, at least 1."""
        return max(1, int(np.diff(self.box_offsets).max()))

    def content(self, row: int) -> tuple[int, int]:
        """Height and width of an image's content."""
        height, width = self.contents[row].tolist()
        return height, width

    def objects(self, row: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Boxes yxyx (n, 4) and labels (n,) of an image."""
        span = slice(self.box_offsets[row], self.box_offsets[row + 1])
        return self.boxes_yxyx[span], self.labels[span]


def labelled(annotations: Annotations, cache: ImageCache) -> LabelledImages:
    """Bring the boxes, without crowds, into pixels of the cache."""
    objects = ~annotations.iscrowd
    image_of_box = np.repeat(np.arange(len(annotations.image_ids)), np.diff(annotations.box_offsets))[objects]
    boxes_xywh = annotations.boxes_xywh[objects] * cache.scales[image_of_box, None]
    return LabelledImages(
        images=cache.images,
        contents=cache.content_sizes_wh[:, ::-1],
        box_offsets=np.searchsorted(image_of_box, np.arange(len(annotations.image_ids) + 1)),
        boxes_yxyx=yxyx_from_xywh(torch.from_numpy(boxes_xywh)).numpy(),
        labels=annotations.labels[objects],
    )
