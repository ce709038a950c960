"""Our evaluator compared with pycocotools' COCOeval on small generated sets full of edge cases."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from pycocotools_reference import PycocotoolsEvaluator
from random_evaluations import random_case

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.evaluation.coco_metrics import CocoEvaluator
from spinenas.proxy_task.evaluation.detections import Detections

Generator = np.random.Generator
Figures = dict[str, float | None]

TOLERANCE = 1e-9


def differences(ours: Figures, theirs: Figures) -> dict[str, tuple[float | None, float | None]]:
    """Return the figures that differ; an undefined figure equals only an undefined one."""
    assert ours.keys() == theirs.keys()
    return {
        name: (ours[name], theirs[name])
        for name in ours
        if (ours[name] is None) != (theirs[name] is None) or abs((ours[name] or 0) - (theirs[name] or 0)) > TOLERANCE
    }


def our_figures(annotations: Annotations, detections: Detections) -> Figures:
    metrics = CocoEvaluator(annotations).evaluate(detections)
    return {name: value for name, value in metrics.items() if not name.startswith("num_")}


def check(seeds: range) -> None:
    for seed in seeds:
        annotations, detections = random_case(seed)
        expected = PycocotoolsEvaluator(annotations).figures(detections)
        assert differences(our_figures(annotations, detections), expected) == {}, f"case {seed}"


def test_every_figure_equals_that_of_pycocotools() -> None:
    check(range(200))


@pytest.mark.slow
def test_every_figure_equals_that_of_pycocotools_in_many_cases() -> None:
    check(range(200, 3000))


def traits(annotations: Annotations, detections: Detections) -> dict[str, Any]:
    """Return which of the things that evaluators get wrong occur in a case."""
    where = list(zip(detections.image_ids.tolist(), detections.category_ids.tolist(), strict=True))
    scored = list(zip(where, detections.scores.tolist(), strict=True))
    sides = np.concatenate([annotations.boxes_xywh, detections.boxes_xywh])[:, 2:]
    return {
        "crowds": annotations.iscrowd.any(),
        "no object": not (~annotations.iscrowd).any(),
        "images without boxes": (np.diff(annotations.box_offsets) == 0).any(),
        "images without detections": len(set(annotations.image_ids) - set(detections.image_ids)),
        "no detections": not len(where),
        "equal scores in an image": max(Counter(scored).values(), default=0) > 1,
        "more than 100 detections": max(Counter(where).values(), default=0) > 100,
        "ids beyond a float": annotations.image_ids.max() > 2**53,
        "images in any order": (np.diff(annotations.image_ids) < 0).any(),
        "areas on a border": np.isin(annotations.areas, [1024, 9216]).any(),
        "boxes without size": (sides == 0).any(),
        "boxes found twice": len(set(map(tuple, detections.boxes_xywh))) < len(where),
        "one category": len(annotations.category_ids) == 1,
        "many categories": len(annotations.category_ids) > 10,
        "unknown categories": np.setdiff1d(detections.category_ids, annotations.category_ids).size,
    }


def test_the_cases_cover_everything_that_evaluators_get_wrong() -> None:
    seen: Counter[str] = Counter()
    for seed in range(200):
        seen.update(name for name, has in traits(*random_case(seed)).items() if has)
    assert set(seen) == set(traits(*random_case(0)))
    assert min(seen.values()) >= 5
