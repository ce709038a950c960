"""Computes the metrics of our evaluator with pycocotools' COCOeval, from one dictionary per box."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.evaluation.detections import Detections
from spinenas.results.record import COCO_METRICS


class PycocotoolsEvaluator:
    """Evaluates detections against annotations that it indexes once."""

    def __init__(self, annotations: Annotations) -> None:
        box_areas = annotations.boxes_xywh[:, 2:].prod(axis=1)
        self._thirds = _thirds(box_areas[~annotations.iscrowd])
        self._truth = _truth(annotations, annotations.areas)
        self._truth_by_box_area = _truth(annotations, box_areas)

    def figures(self, detections: Detections) -> dict[str, float | None]:
        """Return the twelve COCO metrics, AP by size tercile and AP by category; None where there is no object."""
        found = _indexed(_detection_entries(detections))
        coco_eval = COCOeval(self._truth, found, "bbox")
        by_size = COCOeval(self._truth_by_box_area, found, "bbox")
        by_size.params.areaRng = self._thirds
        by_size.params.maxDets = [100]
        with contextlib.redirect_stdout(io.StringIO()):
            for each in (coco_eval, by_size):
                each.evaluate()
                each.accumulate()
            coco_eval.summarize()
        stats = zip(COCO_METRICS, coco_eval.stats, strict=True)
        figures = {name: None if value < 0 else float(value) for name, value in stats}
        for third in range(3):
            figures[f"AP_size{third + 1}"] = _average(by_size.eval["precision"][:, :, :, third])
        for index, category_id in enumerate(coco_eval.params.catIds):
            figures[f"AP of category {category_id}"] = _average(coco_eval.eval["precision"][:, :, index, 0, 2])
        return figures


def _thirds(areas: NDArray[np.float64]) -> list[list[float]]:
    low, high = np.quantile(areas, [1 / 3, 2 / 3]) if len(areas) else (0.0, 0.0)
    return [[0, low], [np.nextafter(low, np.inf), high], [np.nextafter(high, np.inf), 1e10]]


def _average(precision: NDArray[np.float64]) -> float | None:
    return float(precision[precision > -1].mean()) if (precision > -1).any() else None


def _truth(annotations: Annotations, areas: NDArray[np.float64]) -> COCO:
    image_ids = annotations.image_ids.tolist()
    image_of_box = np.repeat(annotations.image_ids, np.diff(annotations.box_offsets)).tolist()
    category_ids = annotations.category_ids.tolist()
    entries = [
        {
            "id": row + 1,  # pycocotools takes a match with annotation 0 for no match
            "image_id": image_of_box[row],
            "category_id": category_ids[label - 1],
            "bbox": annotations.boxes_xywh[row].tolist(),
            "area": float(areas[row]),
            "iscrowd": int(annotations.iscrowd[row]),
        }
        for row, label in enumerate(annotations.labels.tolist())
    ]
    return _indexed(entries, images=[{"id": i} for i in image_ids], categories=[{"id": i} for i in category_ids])


def _detection_entries(detections: Detections) -> list[dict[str, Any]]:
    columns = (detections.image_ids, detections.category_ids, detections.boxes_xywh, detections.scores)
    return [
        {"id": row, "image_id": image_id, "category_id": category_id, "bbox": box, "area": box[2] * box[3], "score": s}
        for row, (image_id, category_id, box, s) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), start=1
        )
    ]


def _indexed(annotations: list[dict[str, Any]], **parts: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {"images": [], "annotations": annotations, **parts}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco
