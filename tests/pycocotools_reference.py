"""All figures of our evaluator, AP by size terciles included, computed by pycocotools' own COCOeval."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.evaluation.detections import Detections
from spinenas.proxy_task.evaluation.pycocotools_metrics import index_annotations, index_detections
from spinenas.results.record import COCO_METRICS


class PycocotoolsEvaluator:
    """Evaluates against annotations that are indexed once, so that a benchmark can time the rest."""

    def __init__(self, annotations: Annotations) -> None:
        box_areas = annotations.boxes_xywh[:, 2:].prod(axis=1)
        self._terciles = _terciles(box_areas[~annotations.iscrowd])
        self._truth = index_annotations(annotations, annotations.areas)
        self._truth_by_box_area = index_annotations(annotations, box_areas)

    def figures(self, detections: Detections) -> dict[str, float | None]:
        """Return the twelve figures and AP by terciles of object size; None where there is no object."""
        found = index_detections(detections)
        coco_eval = _run(self._truth, found)
        by_size = _run(self._truth_by_box_area, found, area_ranges=self._terciles)
        with contextlib.redirect_stdout(io.StringIO()):
            coco_eval.summarize()
        stats = zip(COCO_METRICS, coco_eval.stats, strict=True)
        figures = {name: None if value < 0 else float(value) for name, value in stats}
        for tercile in range(3):
            figures[f"AP_size{tercile + 1}"] = _average(by_size.eval["precision"][:, :, :, tercile])
        return figures


def _run(truth: Any, found: Any, *, area_ranges: list[list[float]] | None = None) -> Any:
    """Return a COCOeval after accumulation, for area ranges of one's own if given. Prints nothing."""
    from pycocotools.cocoeval import COCOeval

    coco_eval = COCOeval(truth, found, "bbox")
    if area_ranges is not None:
        coco_eval.params.areaRng = area_ranges
        coco_eval.params.maxDets = [100]
    with contextlib.redirect_stdout(io.StringIO()):
        coco_eval.evaluate()
        coco_eval.accumulate()
    return coco_eval


def _terciles(areas: NDArray[np.float64]) -> list[list[float]]:
    low, high = np.quantile(areas, [1 / 3, 2 / 3]) if len(areas) else (0.0, 0.0)
    return [[0, low], [np.nextafter(low, np.inf), high], [np.nextafter(high, np.inf), 1e10]]


def _average(precision: NDArray[np.float64]) -> float | None:
    return float(precision[precision > -1].mean()) if (precision > -1).any() else None
