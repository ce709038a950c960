"""COCO's metrics by pycocotools itself: slower than `coco_metrics`, and the reference that its figures must equal."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.evaluation.coco_metrics import MAX_DETECTIONS, max_detections_of, summarize
from spinenas.proxy_task.evaluation.detections import Detections
from spinenas.results.record import COCO_METRICS
from spinenas.space.errors import UserError

TOLERANCE = 1e-9
"""Largest difference between a figure and that of pycocotools."""


def check_with_pycocotools(
    metrics: dict[str, float | None],
    annotations: Annotations,
    detections: Detections,
    *,
    max_detections: int = MAX_DETECTIONS,
) -> None:
    """Raise UserError unless COCO_METRICS among these metrics are those of pycocotools."""
    for name, expected in pycocotools_metrics(annotations, detections, max_detections=max_detections).items():
        value = metrics[name]
        is_equal = value is expected if value is None or expected is None else abs(value - expected) <= TOLERANCE
        if not is_equal:
            raise UserError(
                f"{name} is {_in_words(value)} by hotcoco and {_in_words(expected)} by pycocotools, and they must "
                "agree; install another version of hotcoco, and report the difference to both projects"
            )


def _in_words(value: float | None) -> str:
    return "undefined" if value is None else repr(value)


def pycocotools_metrics(
    annotations: Annotations, detections: Detections, *, max_detections: int = MAX_DETECTIONS
) -> dict[str, float | None]:
    """Return COCO_METRICS; a figure is None where there is no object to detect.

    AP counts `max_detections` per image and category, if that is more than 100.
    """
    from pycocotools.cocoeval import COCOeval

    truth, found = index_annotations(annotations, annotations.areas), index_detections(detections)
    coco_eval = COCOeval(truth, found, "bbox")
    if max_detections > MAX_DETECTIONS:
        coco_eval.params.maxDets = max_detections_of(max_detections)
    with contextlib.redirect_stdout(io.StringIO()):
        coco_eval.evaluate()
        coco_eval.accumulate()
        if max_detections > MAX_DETECTIONS:  # pycocotools would look for AP at 100 detections
            return summarize(coco_eval.eval["precision"], coco_eval.eval["recall"])
        coco_eval.summarize()
    stats = zip(COCO_METRICS, coco_eval.stats, strict=True)
    return {name: None if value < 0 else float(value) for name, value in stats}


def index_annotations(annotations: Annotations, areas: NDArray[np.float64]) -> Any:
    """Return annotations as a COCO object of pycocotools, with these areas (M,) of the objects."""
    image_ids = annotations.image_ids.tolist()
    image_of_box = annotations.image_ids[annotations.image_of_box].tolist()
    category_ids = annotations.category_ids.tolist()
    entries = [
        {
            "id": row + 1,  # pycocotools treats a match with annotation 0 as no match
            "image_id": image_of_box[row],
            "category_id": category_ids[label - 1],
            "bbox": annotations.boxes_xywh[row].tolist(),
            "area": float(areas[row]),
            "iscrowd": int(annotations.iscrowd[row]),
        }
        for row, label in enumerate(annotations.labels.tolist())
    ]
    return _indexed(entries, images=[{"id": i} for i in image_ids], categories=[{"id": i} for i in category_ids])


def index_detections(detections: Detections) -> Any:
    """Return detections as a COCO object of pycocotools."""
    columns = (detections.image_ids, detections.category_ids, detections.boxes_xywh, detections.scores)
    entries = [
        {"id": row, "image_id": image_id, "category_id": category_id, "bbox": box, "area": box[2] * box[3], "score": s}
        for row, (image_id, category_id, box, s) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), start=1
        )
    ]
    return _indexed(entries)


def _indexed(annotations: list[dict[str, Any]], **parts: list[dict[str, Any]]) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {"images": [], "annotations": annotations, **parts}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco
