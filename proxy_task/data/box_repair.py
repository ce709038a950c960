"""Repairs the boxes of an annotation file.

A box is dropped if a number in it is not finite, or if its width or height is not positive. A box that reaches
over the edge of its image by more than a pixel is clipped to the image, and its area reduced in proportion. It is
dropped if clipping leaves less than a pixel of a side that had one. Every other box stays unchanged, however thin,
so that AP on valid COCO data is what pycocotools computes for the file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spinenas.proxy_task.data.findings import Finding

EDGE_TOLERANCE_PIXELS = 1.0
"""COCO's boxes enclose rounded outlines and may exceed the image by a fraction of a pixel; those stay unchanged."""


@dataclass(frozen=True, slots=True, eq=False)
class BoxTable:
    """Boxes of a file, in its order; image_rows are indices of images."""

    image_rows: NDArray[np.int64]
    boxes_xywh: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    iscrowd: NDArray[np.bool_]
    annotation_ids: NDArray[np.int64]

    def where(self, keep: NDArray[np.bool_]) -> BoxTable:
        """Return the boxes that a mask (M,) keeps."""
        return BoxTable(*(getattr(self, name)[keep] for name in self.__slots__))


def repair_boxes(
    table: BoxTable, widths: NDArray[np.int64], heights: NDArray[np.int64]
) -> tuple[BoxTable, tuple[Finding, ...]]:
    """Drop and clip boxes. Return the remaining boxes, and what was done to how many."""
    sizes = np.stack([widths, heights], axis=1)[table.image_rows].astype(np.float64)  # (M, 2)
    corners, sides = table.boxes_xywh[:, :2], table.boxes_xywh[:, 2:]
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        far_corners = corners + sides
        is_finite = np.isfinite(far_corners).all(axis=1) & np.isfinite(table.areas)
        has_no_size = is_finite & (sides <= 0).any(axis=1)
        reach = np.maximum(-corners, far_corners - sizes).max(axis=1)
        sticks_out = is_finite & ~has_no_size & (reach > EDGE_TOLERANCE_PIXELS)
        inner_corners = np.clip(corners, 0, sizes)
        inner_sides = np.clip(far_corners, 0, sizes) - inner_corners
        is_lost = (inner_sides <= 0) | ((inner_sides < 1) & (sides >= 1))
        share_left = inner_sides.prod(axis=1) / sides.prod(axis=1)
    is_outside = sticks_out & is_lost.any(axis=1)
    is_clipped = sticks_out & ~is_outside

    boxes_xywh, areas = table.boxes_xywh.copy(), table.areas.copy()
    boxes_xywh[is_clipped] = np.concatenate([inner_corners, inner_sides], axis=1)[is_clipped]
    areas[is_clipped] *= share_left[is_clipped]

    masks = {
        "boxes dropped, not finite": ~is_finite,
        "boxes dropped, zero or negative size": has_no_size,
        "boxes dropped, outside the image": is_outside,
        "boxes clipped to their image": is_clipped,
    }
    findings = tuple(
        Finding(what, int(np.count_nonzero(mask)), len(mask), f"annotation {table.annotation_ids[np.argmax(mask)]}")
        for what, mask in masks.items()
        if mask.any()
    )
    repaired = BoxTable(table.image_rows, boxes_xywh, table.labels, areas, table.iscrowd, table.annotation_ids).where(
        is_finite & ~has_no_size & ~is_outside
    )
    return repaired, findings
