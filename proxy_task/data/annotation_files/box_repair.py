"""Repairs the boxes of an annotation file, and refuses boxes that are written in another format.

A box of negative width or height was drawn backwards, and is turned round. A box is dropped if a number in it is not
finite, or if its width or height is zero. A box that reaches over the edge of its image by more than a pixel is clipped
to the image, and its area reduced in proportion. It is dropped if clipping leaves less than a pixel of a side that had
one. An area that COCO would not count, because it is negative, not finite or huge, becomes that of the box. Every other
box stays unchanged, however thin, so that AP on valid COCO data is what pycocotools computes for the file. An area of 0
stays as well: COCO counts the object, as a small one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spinenas.proxy_task.data.findings import Finding
from spinenas.space.errors import UserError

EDGE_TOLERANCE_PIXELS = 1.0
"""COCO's boxes enclose rounded outlines and may exceed the image by a fraction of a pixel; those stay unchanged."""

MAX_AREA = 1e10
"""COCO's AP ignores objects of a larger area, in square pixels."""

MIN_BOXES_TO_JUDGE = 5
"""Fewer boxes say nothing about the format of a file."""

MIN_BOXES_IN_PERCENT = 20
"""Fewer boxes may well lie in the first 100 pixels of their images."""

LIKELY_SHARE = 0.95
"""Share of boxes that must fit another format before it is named."""

PERCENT_SLACK = 0.5
"""Rounded shares may exceed 1, or 100 %, by so many hundredths of a unit, or percent."""


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
    table: BoxTable, widths: NDArray[np.int64], heights: NDArray[np.int64], source: Path
) -> tuple[BoxTable, tuple[Finding, ...]]:
    """Turn, drop and clip boxes. Return the remaining boxes, and what was done to how many.

    Raises:
        UserError: naming the source, if most boxes leave their image or are shares of it.
    """
    sizes = np.stack([widths, heights], axis=1)[table.image_rows].astype(np.float64)  # (M, 2)
    boxes_xywh, is_turned = _turned(table.boxes_xywh)
    corners, sides = boxes_xywh[:, :2], boxes_xywh[:, 2:]
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        far_corners = corners + sides
        is_finite = np.isfinite(far_corners).all(axis=1)
        has_no_size = is_finite & (sides <= 0).any(axis=1)
        is_sound = is_finite & ~has_no_size
        reach = np.maximum(-corners, far_corners - sizes).max(axis=1)
        sticks_out = is_sound & (reach > EDGE_TOLERANCE_PIXELS)
        inner_corners = np.clip(corners, 0, sizes)
        inner_sides = np.clip(far_corners, 0, sizes) - inner_corners
        is_lost = (inner_sides <= 0) | ((inner_sides < 1) & (sides >= 1))
        box_areas = sides.prod(axis=1)
        share_left = inner_sides.prod(axis=1) / box_areas
        is_uncounted = is_sound & ~has_countable_area(table.areas)
    is_outside = sticks_out & is_lost.any(axis=1)
    is_clipped = sticks_out & ~is_outside

    relative_findings = _check_relative(boxes_xywh[is_sound], sizes[is_sound], source)
    advice = _check_edges(boxes_xywh[is_sound], sizes[is_sound], int(np.count_nonzero(sticks_out)), source)

    areas = np.where(is_uncounted, np.minimum(box_areas, MAX_AREA), table.areas)
    boxes_xywh[is_clipped] = np.concatenate([inner_corners, inner_sides], axis=1)[is_clipped]
    areas[is_clipped] *= share_left[is_clipped]

    masks = {
        "boxes with negative width or height, turned round": (is_turned & is_sound, ""),
        "boxes dropped, not finite": (~is_finite, ""),
        "boxes dropped, zero size": (has_no_size, ""),
        "boxes dropped, outside the image": (is_outside, advice),
        "boxes clipped to their image": (is_clipped, advice),
        "areas that COCO does not count (negative, not finite or huge), taken from the box": (is_uncounted, ""),
        "areas of 0, which COCO counts as small": (
            is_sound & (table.areas == 0),
            "leave out area to have it taken from the box",
        ),
    }
    findings = tuple(
        Finding(
            what, int(np.count_nonzero(mask)), len(mask), f"annotation {table.annotation_ids[np.argmax(mask)]}", end
        )
        for what, (mask, end) in masks.items()
        if mask.any()
    )
    repaired = replace(table, boxes_xywh=boxes_xywh, areas=areas).where(is_sound & ~is_outside)
    return repaired, findings + relative_findings


def has_countable_area(areas: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether COCO counts objects of these areas; False for NaN."""
    return (areas >= 0) & (areas <= MAX_AREA)


def _turned(boxes_xywh: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return a copy with positive sides, and which boxes (M,) were drawn backwards."""
    boxes_xywh = boxes_xywh.copy()
    corners, sides = boxes_xywh[:, :2], boxes_xywh[:, 2:]
    is_backwards: NDArray[np.bool_] = np.isfinite(boxes_xywh).all(axis=1, keepdims=True) & (sides < 0)
    corners[is_backwards] += sides[is_backwards]
    sides[is_backwards] *= -1
    return boxes_xywh, np.logical_or(is_backwards[:, 0], is_backwards[:, 1])


def _check_edges(boxes: NDArray[np.float64], sizes: NDArray[np.float64], num_outside: int, source: Path) -> str:
    """Return the likely format of boxes of which some leave their image, as advice. Raises UserError for most boxes."""
    if not num_outside or len(boxes) < MIN_BOXES_TO_JUDGE:
        return ""
    are_corners, are_centres = _share_of_corners(boxes, sizes), _share_of_centres(boxes, sizes)
    corners = "they look like corners, [x1, y1, x2, y2]"
    if 2 * num_outside > len(boxes):
        guess = "perhaps widths and heights of the images are swapped, or those of another size"
        if max(are_corners, are_centres) >= LIKELY_SHARE:
            centres = "they look like centres with sizes, [centre x, centre y, width, height]"
            guess = corners if are_corners >= LIKELY_SHARE else centres
        raise UserError(
            f"{source}: {num_outside} of {len(boxes)} boxes leave their image; {guess}; "
            "write bbox as [x, y, width, height] in pixels of the image"
        )
    return f"{corners}, and bbox is [x, y, width, height] in pixels" if are_corners == 1 else ""


def _share_of_corners(boxes: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    """Return the share of boxes that lie in their image if they are read as [x1, y1, x2, y2]."""
    first, last = boxes[:, :2], boxes[:, 2:]
    fits = (last > first) & (last <= sizes + EDGE_TOLERANCE_PIXELS) & (first >= -EDGE_TOLERANCE_PIXELS)
    return float(fits.all(axis=1).mean())


def _share_of_centres(boxes: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    """Return the share of boxes that lie in their image if they are read as centre and size."""
    first, last = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    fits = (first >= -EDGE_TOLERANCE_PIXELS) & (last <= sizes + EDGE_TOLERANCE_PIXELS)
    return float(fits.all(axis=1).mean())


def _check_relative(boxes: NDArray[np.float64], sizes: NDArray[np.float64], source: Path) -> tuple[Finding, ...]:
    """Return a finding about boxes that look like shares of the image. Raises UserError if most do."""
    is_large = sizes.min(axis=1, initial=np.inf) > 2 if len(sizes) else np.zeros(0, dtype=bool)
    far = boxes[:, :2] + boxes[:, 2:]
    is_share = is_large & (boxes <= 1).all(axis=1) & (far <= 1 + PERCENT_SLACK / 100).all(axis=1)
    is_share &= (boxes[:, :2] >= -PERCENT_SLACK / 100).all(axis=1)
    count = int(np.count_nonzero(is_share))
    if len(boxes) >= MIN_BOXES_TO_JUDGE and 2 * count > len(boxes):
        raise UserError(
            f"{source}: {count} of {len(boxes)} boxes look like shares of the image, 0 to 1; "
            "multiply x and width by the width of the image, and y and height by its height"
        )
    if count:
        advice = "they may be shares of the image, 0 to 1, and bbox is in pixels"
        return (Finding("boxes within the first pixel of their image", count, len(boxes), advice=advice),)
    if len(boxes) >= MIN_BOXES_IN_PERCENT:
        ends = far.max(axis=0)
        if (sizes.min(axis=0) > 150).all() and (ends > 90).all() and (ends <= 100 + PERCENT_SLACK).all():
            advice = "they may be percent of the image, and bbox is in pixels"
            return (
                Finding("boxes within the first 100 pixels of larger images", len(boxes), len(boxes), advice=advice),
            )
    return ()
