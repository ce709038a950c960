"""Boxes and areas of outlines: polygons and run lengths as COCO writes them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

MAX_SIDE = 2**15
"""Largest side of an image whose mask is counted, in pixels."""


def box_and_area(outline: Any, width: int, height: int) -> tuple[list[float], float] | None:
    """Return the box (x, y, width, height) and the area of an outline, or None if it has none.

    Args:
        outline: the "segmentation" of an annotation.
        width, height: size of the image; 0 if unknown. Run lengths carry their own.
    """
    if isinstance(outline, dict):
        return _of_runs(outline)
    if isinstance(outline, list):
        return _of_polygons(outline, width, height)
    return None


def _of_polygons(outline: list[Any], width: int, height: int) -> tuple[list[float], float] | None:
    if outline and not isinstance(outline[0], list):
        outline = [outline]  # some tools leave out the outer list
    polygons = [polygon for polygon in outline if _is_polygon(polygon)]
    if not polygons or len(polygons) != len([polygon for polygon in outline if polygon != []]):
        return None
    points = np.concatenate([np.array(polygon, dtype=np.float64) for polygon in polygons]).reshape(-1, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    box = [*low.tolist(), *(high - low).tolist()]
    return box, _polygon_area(polygons, width, height) or box[2] * box[3]


def _polygon_area(polygons: list[list[float]], width: int, height: int) -> float:
    """Return the pixels that polygons cover together; without the size of the image, the sum of their areas."""
    if 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE:
        from pycocotools import mask

        inside = [np.clip(np.reshape(polygon, (-1, 2)), 0, (width, height)).ravel().tolist() for polygon in polygons]
        return float(mask.area(mask.merge(mask.frPyObjects(inside, height, width))))
    total = 0.0
    for polygon in polygons:
        x, y = np.reshape(polygon, (-1, 2)).T
        total += abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2
    return total


def _is_polygon(polygon: Any) -> bool:
    return (
        isinstance(polygon, list)
        and len(polygon) >= 6
        and len(polygon) % 2 == 0
        and all(isinstance(value, int | float) and not isinstance(value, bool) for value in polygon)
        and all(abs(value) < 1e9 for value in polygon)  # False for NaN
    )


def _of_runs(outline: dict[str, Any]) -> tuple[list[float], float] | None:
    from pycocotools import mask

    size, counts = outline.get("size"), outline.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)):
        return None
    height, width = size
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        return None
    if isinstance(counts, list):
        if not counts or not all(type(run) is int and run >= 0 for run in counts) or sum(counts) != height * width:
            return None
        runs = mask.frPyObjects({"size": size, "counts": counts}, height, width)
    elif isinstance(counts, str) and _is_complete(counts):
        runs = {"size": size, "counts": counts.encode("ascii")}
    else:
        return None
    area = float(mask.area(runs))
    box = [float(side) for side in mask.toBbox(runs)]
    return (box, area) if 0 < area <= height * width and min(box[2:]) > 0 else None


def _is_complete(counts: str) -> bool:
    """Whether a string of run lengths has valid characters and ends with a whole number.

    pycocotools reads beyond the end of an incomplete one.
    """
    return re.fullmatch("[0-o]+", counts) is not None and not (ord(counts[-1]) - 48) & 0x20
