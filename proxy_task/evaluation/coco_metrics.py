"""COCO's box metrics of detections, computed by hotcoco; docs/decisions/0007 says why not by pycocotools.

Besides COCO's twelve figures there is AP by terciles of the data set's own object sizes. COCO's small, medium and
large are pixel areas in 640 px photographs, and mean little elsewhere.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
from hotcoco import COCO, COCOeval
from numpy.typing import NDArray

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.evaluation.detections import Detections
from spinenas.results.record import COCO_METRICS
from spinenas.results.stats.bootstrap import Matches

MAX_DETECTIONS = 100
"""Per image and category, as in COCO."""


class CocoEvaluator:
    """Evaluates any number of detections against the same annotations.

    hotcoco's index is built for each evaluation and dropped afterwards. Building takes hundredths of a second, while
    keeping it would cost memory in every worker.

    hotcoco gets the rank of an image id as the image, and the class channel as the category. These numbers are small
    for any ids, and keep their order, by which equal scores of different images are ranked.
    """

    def __init__(
        self,
        annotations: Annotations,
        *,
        sizes_of: Annotations | None = None,
        max_detections: int = MAX_DETECTIONS,
    ) -> None:
        """Evaluate against annotations.

        Args:
            annotations: the objects to find.
            sizes_of: annotations whose object sizes are divided into terciles; None for the same.
            max_detections: most detections per image and category that count in AP, if more than 100.
        """
        self._max_detections = max(max_detections, MAX_DETECTIONS)
        self._annotations = annotations
        self._image_ids = np.sort(annotations.image_ids)
        self._category_ids = annotations.category_ids
        box_areas = _box_areas(annotations)
        is_object = ~annotations.iscrowd
        edges = _tercile_edges(sizes_of or annotations)
        # A range includes both ends. Each starts just above the one before, so that an object counts once.
        starts = [0.0, *np.nextafter(edges, np.inf).tolist()]
        self._tercile_areas = [list(area) for area in zip(starts, [*edges.tolist(), 1e10], strict=True)]
        self._tercile_counts = [
            int(np.count_nonzero(is_object & (box_areas >= low) & (box_areas <= high)))
            for low, high in self._tercile_areas
        ]

    def evaluate(self, detections: Detections) -> dict[str, float | None]:
        """Return COCO_METRICS, "AP_size1" to "AP_size3" (small to large) and "num_size1" to "num_size3".

        Terciles are by box area, and num_size1 to 3 count objects. A figure is None if there is no object to
        detect. Without detections, all other figures are 0.
        """
        truth = _truth(self._annotations, self._annotations.areas)
        found = self._found(truth, detections)
        metrics: dict[str, float | None]
        if self._max_detections == MAX_DETECTIONS:
            coco_eval = _run(truth, found)
            with contextlib.redirect_stdout(io.StringIO()):
                coco_eval.summarize()
            metrics = dict(zip(COCO_METRICS, map(_defined, np.asarray(coco_eval.stats).tolist()), strict=True))
        else:
            coco_eval = _run(truth, found, max_detections=max_detections_of(self._max_detections))
            assert coco_eval.eval is not None
            metrics = summarize(coco_eval.eval["precision"], coco_eval.eval["recall"])

        truth = _truth(self._annotations, _box_areas(self._annotations))
        most = [self._max_detections]
        by_size = _precision(_run(truth, found, area_ranges=self._tercile_areas, max_detections=most))
        for index, count in enumerate(self._tercile_counts):
            metrics[f"AP_size{index + 1}"] = _mean(by_size[:, :, :, index, -1])
            metrics[f"num_size{index + 1}"] = count
        return metrics

    def matches(self, detections: Detections) -> Matches:
        """Return the matches of all detections, from which AP can be computed for any selection of images."""
        truth = _truth(self._annotations, self._annotations.areas)
        coco_eval = _run(
            truth, self._found(truth, detections), area_ranges=[[0.0, 1e10]], max_detections=[self._max_detections]
        )
        num_thresholds = len(coco_eval.params.iou_thrs)
        num_objects = np.zeros((len(self._image_ids), len(self._category_ids)), dtype=np.int64)
        images, categories, scores = [], [], []
        hits, ignored = [np.empty((num_thresholds, 0), dtype=bool)], [np.empty((num_thresholds, 0), dtype=bool)]
        for cell in coco_eval.eval_imgs:
            if cell is None:
                continue
            image, category, num_found = cell["image_id"], cell["category_id"] - 1, len(cell["dtScores"])
            num_objects[image, category] = np.count_nonzero(~np.array(cell["gtIgnore"], dtype=bool))
            images += [image] * num_found
            categories += [category] * num_found
            scores += cell["dtScores"]
            ignored.append(np.array(cell["dtIgnore"], dtype=bool).reshape(num_thresholds, num_found))
            hits.append(np.array(cell["dtMatched"], dtype=bool).reshape(num_thresholds, num_found) & ~ignored[-1])
        return Matches(
            images=np.array(images, dtype=np.int64),
            categories=np.array(categories, dtype=np.int64),
            scores=np.array(scores, dtype=np.float64),
            hits=np.concatenate(hits, axis=1),
            ignored=np.concatenate(ignored, axis=1),
            num_objects=num_objects,
        )

    def _found(self, truth: COCO, detections: Detections) -> COCO:
        unknown = np.setdiff1d(detections.image_ids, self._image_ids)
        assert not len(unknown), f"detections of images that are not evaluated: {unknown[:5].tolist()}"
        rows = np.column_stack(
            [
                np.searchsorted(self._image_ids, detections.image_ids),
                detections.boxes_xywh,
                detections.scores,
                np.searchsorted(self._category_ids, detections.category_ids) + 1,
            ]
        )
        # Like pycocotools, ignore categories that are not in the annotations.
        is_known = np.isin(detections.category_ids, self._category_ids)
        return truth.load_res(rows[is_known])


def _tercile_edges(annotations: Annotations) -> NDArray[np.float64]:
    """Return the two box areas that divide the objects into thirds."""
    objects = _box_areas(annotations)[~annotations.iscrowd]
    return np.quantile(objects, [1 / 3, 2 / 3]) if len(objects) else np.zeros(2)


def _box_areas(annotations: Annotations) -> NDArray[np.float64]:
    areas: NDArray[np.float64] = annotations.boxes_xywh[:, 2] * annotations.boxes_xywh[:, 3]
    return areas


def _truth(annotations: Annotations, areas: NDArray[np.float64]) -> COCO:
    image_ids = annotations.image_ids[annotations.image_of_box]
    return COCO.from_arrays(
        [{"id": rank} for rank in range(len(annotations.image_ids))],
        [{"id": label, "name": str(label)} for label in range(1, len(annotations.category_ids) + 1)],
        image_ids=np.searchsorted(np.sort(annotations.image_ids), image_ids),
        category_ids=annotations.labels,
        boxes=annotations.boxes_xywh,
        area=areas,
        iscrowd=annotations.iscrowd,
    )


def _run(
    truth: COCO,
    found: COCO,
    *,
    area_ranges: list[list[float]] | None = None,
    max_detections: list[int] | None = None,
) -> COCOeval:
    coco_eval = COCOeval(truth, found, "bbox")
    if area_ranges is not None:
        coco_eval.params.area_rng = area_ranges
    if max_detections is not None:
        coco_eval.params.max_dets = max_detections
    coco_eval.evaluate()
    coco_eval.accumulate()
    return coco_eval


def max_detections_of(most: int) -> list[int]:
    """Return COCO's numbers of counted detections, then the one that AP counts."""
    return [1, 10, MAX_DETECTIONS, most]


def summarize(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> dict[str, float | None]:
    """Return COCO_METRICS with more detections than COCO's 100 in all figures but AR1, AR10 and AR100.

    Args:
        precision: by (IoU 0.5 to 0.95, recall, category, area range, the numbers of `max_detections_of`).
        recall: the same without the axis of recall.
    """
    figures = {"AP": _mean(precision[..., 0, -1])}
    figures |= {name: _mean(precision[iou, ..., 0, -1]) for name, iou in {"AP50": 0, "AP75": 5}.items()}
    figures |= {name: _mean(precision[..., area, -1]) for name, area in {"APs": 1, "APm": 2, "APl": 3}.items()}
    figures |= {name: _mean(recall[..., 0, most]) for name, most in {"AR1": 0, "AR10": 1, "AR100": 2}.items()}
    figures |= {name: _mean(recall[..., area, -1]) for name, area in {"ARs": 1, "ARm": 2, "ARl": 3}.items()}
    return {name: figures[name] for name in COCO_METRICS}


def _precision(coco_eval: COCOeval) -> NDArray[np.float64]:
    """Return precision by (IoU, recall, category, area range, max detections)."""
    assert coco_eval.eval is not None
    precision: NDArray[np.float64] = coco_eval.eval["precision"]
    return precision


def _mean(precision: NDArray[np.float64]) -> float | None:
    """Return the mean of the defined values; -1 marks the undefined ones."""
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else None


def _defined(value: float) -> float | None:
    return None if value < 0 else value
