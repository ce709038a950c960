"""Reads the list of annotations of a file into a table of boxes; boxes that are missing come from outlines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinenas.proxy_task.data.annotation_files.annotation_json import entries_of, whole_number
from spinenas.proxy_task.data.annotation_files.box_repair import MAX_AREA, BoxTable
from spinenas.proxy_task.data.annotation_files.masks import box_and_area
from spinenas.proxy_task.data.findings import Finding
from spinenas.space.errors import UserError


def read_boxes(
    entries: list[Any], row_of: dict[int, int], label_of: dict[int, int], path: Path
) -> tuple[BoxTable, dict[int, bool]]:
    """Return the boxes, NaN where there is only an outline, and which rows need their outline.

    The rows map to whether they need it for the box, else for the area alone.
    """
    image_rows, labels = np.empty((2, len(entries)), dtype=np.int64)
    boxes_xywh = np.empty((len(entries), 4))
    areas = np.empty(len(entries))
    iscrowd = np.empty(len(entries), dtype=bool)
    annotation_ids = np.empty(len(entries), dtype=np.int64)
    with_outline: dict[int, bool] = {}
    for index, (annotation_id, entry) in enumerate(entries_of(entries, "annotation", path)):
        what = f"annotation {annotation_id}"
        image_id = whole_number(entry, "image_id", what, path)
        if image_id not in row_of:
            raise UserError(
                f"{path}: {what} is of image {image_id}, which is not in the list of images; export both lists together"
            )
        category_id = whole_number(entry, "category_id", what, path)
        if category_id not in label_of:
            ids = ", ".join(map(str, list(label_of)[:10])) + (", ..." if len(label_of) > 10 else "")
            raise UserError(
                f"{path}: {what} has category {category_id}, which is not in the list of categories (their ids are "
                f"{ids}); add the category to the list, or correct the category_id"
            )
        bbox, area = entry.get("bbox"), entry.get("area")
        has_outline = "outline" in entry or bool(entry.get("segmentation"))
        if not bbox and has_outline:
            bbox = [np.nan] * 4
            with_outline[index] = True
        elif not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(value) for value in bbox):
            raise UserError(f"{path}: {what} has the bbox {bbox!r:.80}; it must be [x, y, width, height] in pixels")
        if area is None:
            area = abs(bbox[2] * bbox[3])
        elif not _is_number(area):
            raise UserError(f"{path}: {what} has the area {area!r:.50}; it must be a number of square pixels")
        elif has_outline and not 0 <= area <= MAX_AREA:
            with_outline.setdefault(index, False)
        is_crowd = 0 if entry.get("iscrowd") is None else entry["iscrowd"]
        if is_crowd not in (0, 1):
            raise UserError(f"{path}: {what} has {is_crowd!r:.50} as 'iscrowd'; it must be 0 or 1")
        annotation_ids[index] = annotation_id
        image_rows[index] = row_of[image_id]
        labels[index] = label_of[category_id]
        boxes_xywh[index] = bbox
        areas[index] = area
        iscrowd[index] = bool(is_crowd)
    return BoxTable(image_rows, boxes_xywh, labels, areas, iscrowd, annotation_ids), with_outline


def apply_outlines(
    table: BoxTable,
    with_outline: dict[int, bool],
    entries: list[dict[str, Any]],
    widths: NDArray[np.int64],
    heights: NDArray[np.int64],
    path: Path,
) -> tuple[BoxTable, tuple[Finding, ...]]:
    """Take missing boxes, and areas that COCO does not count, from the outlines. Raises UserError.

    Args:
        table, with_outline: of `read_boxes`.
        entries: the same entries with their outlines.
        widths, heights: (N,) of the images; 0 if unknown.
        path: for messages.
    """
    boxes_xywh, areas = table.boxes_xywh.copy(), table.areas.copy()
    from_outline: dict[str, list[int]] = {"boxes": [], "areas": []}
    for row, needs_box in with_outline.items():
        image = table.image_rows[row]
        found = box_and_area(entries[row].get("segmentation"), int(widths[image]), int(heights[image]))
        if needs_box and not found:
            raise UserError(
                f"{path}: annotation {table.annotation_ids[row]} has no bbox, and its segmentation is no outline from "
                "which to take one; it must be polygons of at least three points, or run lengths"
            )
        if not found:
            continue
        if needs_box:
            boxes_xywh[row] = found[0]
            from_outline["boxes"].append(row)
        elif found[1] > 0:
            from_outline["areas"].append(row)
        if not 0 <= areas[row] <= MAX_AREA:  # this includes NaN
            areas[row] = found[1]
    reasons = {"boxes": "there is no bbox", "areas": "COCO does not count them (negative, not finite or huge)"}
    findings = tuple(
        Finding(
            f"{what} taken from the outline, because {reasons[what]}",
            len(rows),
            len(areas),
            f"annotation {table.annotation_ids[rows[0]]}",
        )
        for what, rows in from_outline.items()
        if rows
    )
    return replace(table, boxes_xywh=boxes_xywh, areas=areas), findings


def _is_number(value: Any) -> bool:
    """Whether a JSON value is a number that fits a float. NaN and Infinity, which Python reads, are numbers."""
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**63)
