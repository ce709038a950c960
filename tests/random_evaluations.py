"""Random annotations and detections full of edge cases of COCO evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.evaluation.detections import Detections

Generator = np.random.Generator

SIDES = np.array([0, 1, 8, 10, 16, 20, 32, 64, 96, 128, 144])
"""32 x 32, 16 x 64, 96 x 96 and 64 x 144 lie on COCO's borders between small, medium and large."""
AREAS = np.array([0, np.nextafter(1024, 0), 1024, np.nextafter(1024, 2000), 9216, np.nextafter(9216, 1e5), 1e10, 2e10])
"""Areas of masks on and next to the borders."""


def random_case(seed: int) -> tuple[Annotations, Detections]:
    """Return annotations and detections that depend on the seed alone."""
    rng = np.random.default_rng(seed)
    category_ids = _random_ids(rng, int(rng.choice([1, 2, 5, 12])))
    annotations = _random_annotations(rng, _random_ids(rng, int(rng.integers(1, 7))), category_ids)
    return annotations, _random_detections(rng, annotations)


def _random_ids(rng: Generator, count: int) -> NDArray[np.int64]:
    """Return ascending ids with gaps, some too large for a float to be exact."""
    return np.sort(rng.choice(1000, size=count, replace=False)) + int(rng.choice([0, 2**31, 2**60]))


def _random_boxes(rng: Generator, count: int, *, on_grid: bool) -> NDArray[np.float64]:
    """Return boxes; on the grid, overlaps and areas often equal a threshold or each other."""
    if on_grid:
        return np.column_stack([rng.integers(0, 12, size=(count, 2)) * 8, rng.choice(SIDES, size=(count, 2))]) * 1.0
    return np.column_stack([rng.uniform(0, 200, size=(count, 2)), np.exp(rng.uniform(0, 5, size=(count, 2)))])


def _random_annotations(rng: Generator, image_ids: NDArray[np.int64], category_ids: NDArray[np.int64]) -> Annotations:
    in_any_order = rng.permutation(image_ids)
    counts = rng.integers(0, 9, size=len(image_ids)) * (rng.random(len(image_ids)) < 0.8)
    num_boxes = int(counts.sum())
    boxes = _random_boxes(rng, num_boxes, on_grid=rng.random() < 0.7)
    box_areas = boxes[:, 2:].prod(axis=1)
    areas = [box_areas, box_areas * rng.uniform(0.3, 1, size=num_boxes), rng.choice(AREAS, size=num_boxes)]
    return Annotations(
        images_folder=Path(),
        image_ids=in_any_order,
        file_names=tuple(map(str, in_any_order)),
        groups=tuple(map(str, in_any_order)),
        widths=np.full(len(image_ids), 640),
        heights=np.full(len(image_ids), 640),
        category_ids=category_ids,
        category_names=tuple(map(str, category_ids)),
        box_offsets=np.concatenate([[0], np.cumsum(counts)]),
        boxes_xywh=boxes,
        labels=rng.integers(1, len(category_ids) + 1, size=num_boxes),
        areas=areas[rng.integers(3)],
        iscrowd=rng.random(num_boxes) < rng.choice([0, 0.2, 0.6]),
        annotation_ids=np.arange(num_boxes),
    )


def _random_detections(rng: Generator, annotations: Annotations) -> Detections:
    """Return copies of the true boxes, exact or shifted, and others: doubled, mislabelled, many of equal score."""
    num_copies = int(rng.integers(0, 4)) * len(annotations.labels)
    num_others = int(rng.choice([0, 3, 20]))
    copied = rng.integers(0, max(1, len(annotations.labels)), size=num_copies)
    image_of_box = np.repeat(annotations.image_ids, np.diff(annotations.box_offsets))
    copies = annotations.boxes_xywh[copied]
    copies = copies + rng.choice([0, 0, 0, 1, 4, -4], size=copies.shape) * (rng.random() < 0.8)
    boxes = np.concatenate([copies, _random_boxes(rng, num_others, on_grid=True)])
    image_ids = np.concatenate([image_of_box[copied], rng.choice(annotations.image_ids, size=num_others)])
    category_ids = annotations.category_ids[
        np.concatenate([annotations.labels[copied] - 1, rng.integers(0, len(annotations.category_ids), num_others)])
    ]
    if rng.random() < 0.2:
        category_ids = category_ids + rng.choice([0, 0, 0, -1, 1, 1000], size=len(boxes))
    rows = rng.permutation(len(boxes))
    if rng.random() < 0.1 and len(rows):  # more than the maximum of 100, in one image and category
        rows = np.concatenate([rows, np.full(150, rows[0])])
    boxes = boxes[rows]
    boxes[:, 2:] = boxes[:, 2:].clip(0)
    scores = [rng.random(len(rows)).round(decimals) for decimals in (0, 1, 8)]
    scores.append(0.5 + 1e-12 * rng.integers(0, 9, size=len(rows)))  # equal in float32
    return Detections(image_ids[rows], category_ids[rows], boxes, scores[rng.integers(4)])
