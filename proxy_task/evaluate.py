"""Detections against annotations: the COCO box metrics, by pycocotools; it knows nothing of networks.

Beside the twelve figures there is AP by terciles of the data set's own object sizes: COCO's small, medium and
large are pixels of 640 px photographs and mean little elsewhere.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from spinenas.proxy_task.coco import Annotations
from spinenas.results.record import COCO_METRICS

MAX_DETECTIONS = 100
"""Per image and category, as in COCO."""


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Found boxes, D of them, in any order; ties in score go to the first.

    Attributes:
        image_ids: (D,) as in the annotation file.
        category_ids: (D,) ids of the annotation file, not class channels.
        boxes_xywh: (D, 4) pixels of the original image.
        scores: (D,) higher is surer.
    """

    image_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    boxes_xywh: NDArray[np.float64]
    scores: NDArray[np.float64]

    def __post_init__(self) -> None:
        num_detections = len(self.scores)
        assert self.image_ids.shape == self.category_ids.shape == self.scores.shape == (num_detections,)
        assert self.boxes_xywh.shape == (num_detections, 4)
        # pycocotools takes a box of NaN for a perfect match.
        if not (np.isfinite(self.boxes_xywh).all() and np.isfinite(self.scores).all()):
            raise ValueError("a detection has a box or score that is not finite; the network has diverged")


class CocoEvaluator:
    """Evaluates any number of times against the same annotations, whose index is built once."""

    def __init__(self, annotations: Annotations, *, sizes_of: Annotations | None = None) -> None:
        """Evaluate against these annotations; the terciles of object sizes are those of `sizes_of`, if given."""
        self._image_ids = set(annotations.image_ids.tolist())
        box_areas = annotations.boxes_xywh[:, 2] * annotations.boxes_xywh[:, 3]
        self._truth = _coco(annotations, annotations.areas)
        self._truth_by_box_area = _coco(annotations, box_areas)
        is_object = ~annotations.iscrowd
        edges = _tercile_edges(sizes_of or annotations)
        # pycocotools includes both ends of a range: starting just above the last one, an object counts once.
        starts = [0.0, *np.nextafter(edges, np.inf).tolist()]
        self._tercile_areas = [list(area) for area in zip(starts, [*edges.tolist(), 1e10], strict=True)]
        self._tercile_counts = [
            int(np.count_nonzero(is_object & (box_areas >= low) & (box_areas <= high)))
            for low, high in self._tercile_areas
        ]

    def evaluate(self, detections: Detections) -> dict[str, float | None]:
        """Return COCO_METRICS, "AP_size1" to "AP_size3" (small to large) and "num_size1" to "num_size3".

        The terciles are of sqrt(width x height), the counts are objects. A figure is None where no object is
        there to be found; without detections the others are 0.
        """
        found = self._found(detections)
        coco_eval = _run(self._truth, found)
        with contextlib.redirect_stdout(io.StringIO()):
            coco_eval.summarize()
        metrics = dict(zip(COCO_METRICS, map(_defined, coco_eval.stats.tolist()), strict=True))

        by_size = _run(self._truth_by_box_area, found, area_ranges=self._tercile_areas)
        for index, count in enumerate(self._tercile_counts):
            metrics[f"AP_size{index + 1}"] = _mean(by_size.eval["precision"][:, :, :, index, -1])
            metrics[f"num_size{index + 1}"] = count
        return metrics

    def ap_per_category(self, detections: Detections) -> dict[int, float | None]:
        """Return AP by category id; None for a category without an object."""
        coco_eval = _run(self._truth, self._found(detections))
        precision = coco_eval.eval["precision"]  # (IoU, recall, category, area range, max detections)
        return {
            int(category_id): _mean(precision[:, :, index, 0, -1])
            for index, category_id in enumerate(coco_eval.params.catIds)
        }

    def _found(self, detections: Detections) -> COCO:
        image_ids = detections.image_ids.tolist()
        unknown = set(image_ids) - self._image_ids
        assert not unknown, f"detections of images that are not evaluated: {sorted(unknown)[:5]}"
        boxes_xywh = detections.boxes_xywh.astype(np.float64)
        return _indexed(
            {
                "images": [{"id": image_id} for image_id in self._image_ids],
                "annotations": _entries(
                    image_id=image_ids,
                    category_id=detections.category_ids.tolist(),
                    bbox=boxes_xywh.tolist(),
                    area=(boxes_xywh[:, 2] * boxes_xywh[:, 3]).tolist(),
                    score=detections.scores.tolist(),
                ),
            }
        )


def _tercile_edges(annotations: Annotations) -> NDArray[np.float64]:
    """Return the two box areas that part the objects into thirds."""
    objects = annotations.boxes_xywh[~annotations.iscrowd]
    if len(objects) == 0:
        return np.zeros(2)
    return np.quantile(objects[:, 2] * objects[:, 3], [1 / 3, 2 / 3])


def _coco(annotations: Annotations, areas: NDArray[np.float64]) -> COCO:
    image_of_box = np.repeat(annotations.image_ids, np.diff(annotations.box_offsets))
    return _indexed(
        {
            "images": [{"id": image_id} for image_id in annotations.image_ids.tolist()],
            "categories": [{"id": category_id} for category_id in annotations.category_ids.tolist()],
            "annotations": _entries(
                image_id=image_of_box.tolist(),
                category_id=annotations.category_ids[annotations.labels - 1].tolist(),
                bbox=annotations.boxes_xywh.tolist(),
                area=areas.tolist(),
                iscrowd=annotations.iscrowd.astype(int).tolist(),
            ),
        }
    )


def _entries(**columns: list[Any]) -> list[dict[str, Any]]:
    """Return rows numbered from 1: pycocotools marks a match by the partner's id and takes 0 for none."""
    names = ("id", *columns)
    num_rows = len(next(iter(columns.values())))
    return [dict(zip(names, row, strict=True)) for row in zip(range(1, num_rows + 1), *columns.values(), strict=True)]


def _indexed(dataset: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = dataset
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _run(truth: COCO, found: COCO, *, area_ranges: list[list[float]] | None = None) -> COCOeval:
    coco_eval = COCOeval(truth, found, iouType="bbox")
    if area_ranges is not None:
        coco_eval.params.areaRng = area_ranges
        coco_eval.params.maxDets = [MAX_DETECTIONS]
    with contextlib.redirect_stdout(io.StringIO()):
        coco_eval.evaluate()
        coco_eval.accumulate()
    return coco_eval


def _mean(precision: ArrayLike) -> float | None:
    """Average what is defined; pycocotools marks the rest by -1."""
    values = np.asarray(precision)
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None


def _defined(value: float) -> float | None:
    return None if value < 0 else value
