"""Cached images with their annotations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.images.image_cache import ImageCache
from spinenas.proxy_task.data.images.image_facts import small_box_findings
from spinenas.proxy_task.detector.boxes import yxyx_from_xywh


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImages:
    """All images of a cache with their annotations. Training and evaluation select rows.

    The arrays of the annotations are shared by all processes of a machine. `objects` converts the boxes of one image to
    pixels of the cache.

    Attributes:
        images: (N, S, S, 3) uint8, content in the top-left corner; may be a memory map, or a tensor on an accelerator.
        contents: (N, 2) height and width of the content.
        scales: (N,) resized / original.
        annotations: of the same images.
        max_boxes: largest number of objects in an image, at least 1.
    """

    images: NDArray[np.uint8] | torch.Tensor
    contents: NDArray[np.int64]
    scales: NDArray[np.float64]
    annotations: Annotations
    max_boxes: int

    def content(self, row: int) -> tuple[int, int]:
        """Return height and width of an image's content."""
        height, width = self.contents[row].tolist()
        return height, width

    def objects(self, row: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return boxes yxyx (n, 4) in pixels of the canvas, and labels (n,), of an image; crowds are left out."""
        known = self.annotations
        span = slice(known.box_offsets[row], known.box_offsets[row + 1])
        is_object = ~known.iscrowd[span]
        boxes_xywh = known.boxes_xywh[span][is_object] * self.scales[row]
        return yxyx_from_xywh(torch.from_numpy(boxes_xywh)).numpy(), known.labels[span][is_object]


def attach_boxes(annotations: Annotations, cache: ImageCache) -> LabelledImages:
    """Return the images of a cache with their annotations, to which what was noticed about the images is added."""
    crowds = np.flatnonzero(annotations.iscrowd)
    image_of_crowd = np.searchsorted(annotations.box_offsets, crowds, side="right") - 1
    num_crowds = np.bincount(image_of_crowd, minlength=len(annotations.image_ids))
    noticed = (*cache.findings, *small_box_findings(annotations, cache.scales, cache.images.shape[1]))
    if noticed:
        annotations = replace(annotations, findings=(*annotations.findings, *noticed))
    return LabelledImages(
        images=cache.images,
        contents=cache.content_sizes_wh[:, ::-1],
        scales=cache.scales,
        annotations=annotations,
        max_boxes=max(1, int((np.diff(annotations.box_offsets) - num_crowds).max())),
    )
