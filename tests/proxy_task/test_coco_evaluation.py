"""COCO metrics: equal to published figures and to a literal implementation of the rules."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_examples import NONE_FOUND, everything_found, noisy_detections, random_annotations
from numpy.typing import NDArray
from shared_fixtures import shared_folder

from spinenas.proxy_task.data.annotation_files.annotation_file import read_annotations
from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.evaluation.coco_metrics import CocoEvaluator
from spinenas.proxy_task.evaluation.detections import Detections
from spinenas.results.record import COCO_METRICS


def iou(a: NDArray[np.float64], b: NDArray[np.float64], *, crowd: bool) -> float:
    sides = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
    if (sides <= 0).any():
        return 0.0
    intersection = sides.prod()
    return float(intersection / (a[2:].prod() if crowd else a[2:].prod() + b[2:].prod() - intersection))


def plain_average_precision(
    annotations: Annotations,
    detections: Detections,
    areas: NDArray[np.float64],
    in_range: Any,
    thresholds: NDArray[np.float64],
) -> float | None:
    """Return average precision by the wording of the COCO rules, one box at a time."""
    image_of_box = np.repeat(annotations.image_ids, np.diff(annotations.box_offsets))
    precisions = []
    for label, category_id in enumerate(annotations.category_ids, start=1):
        for threshold in thresholds:
            outcomes: list[tuple[float, bool]] = []  # (score, hit) of detections that count
            num_objects = 0
            for image_id in np.sort(annotations.image_ids):
                truth = np.flatnonzero((image_of_box == image_id) & (annotations.labels == label))
                ignored = {j: bool(annotations.iscrowd[j]) or not in_range(areas[j]) for j in truth}
                num_objects += sum(not ignored[j] for j in truth)
                found = np.flatnonzero((detections.image_ids == image_id) & (detections.category_ids == category_id))
                taken: set[int] = set()
                for i in sorted(found, key=lambda i: -detections.scores[i])[:100]:
                    box = detections.boxes_xywh[i]
                    overlaps = {
                        j: iou(box, annotations.boxes_xywh[j], crowd=bool(annotations.iscrowd[j]))
                        for j in truth
                        if j not in taken or annotations.iscrowd[j]
                    }
                    candidates = [j for j in overlaps if overlaps[j] >= threshold]
                    objects = [j for j in candidates if not ignored[j]]
                    if objects:
                        taken.add(max(objects, key=lambda j: overlaps[j]))
                        outcomes.append((detections.scores[i], True))
                    elif candidates:
                        taken.add(max(candidates, key=lambda j: overlaps[j]))
                    elif in_range(box[2] * box[3]):
                        outcomes.append((detections.scores[i], False))
            if num_objects == 0:
                continue
            hits = np.array([hit for _, hit in sorted(outcomes, key=lambda outcome: -outcome[0])], dtype=bool)
            recall = np.cumsum(hits) / num_objects
            precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
            precisions += [max(precision[recall >= level], default=0.0) for level in np.linspace(0, 1, 101)]
    return float(np.mean(precisions)) if precisions else None


ALL_THRESHOLDS = np.linspace(0.5, 0.95, 10)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_average_precision_equals_a_literal_implementation_of_the_rules(tmp_path: Path, seed: int) -> None:
    annotations = random_annotations(tmp_path, seed=seed)
    detections = noisy_detections(annotations, seed=seed + 10)
    metrics = CocoEvaluator(annotations).evaluate(detections)

    def plain(in_range: Any, thresholds: NDArray[np.float64] = ALL_THRESHOLDS) -> float | None:
        return plain_average_precision(annotations, detections, annotations.areas, in_range, thresholds)

    assert metrics["AP"] == pytest.approx(plain(lambda area: True), abs=1e-9)
    assert metrics["AP50"] == pytest.approx(plain(lambda area: True, np.array([0.5])), abs=1e-9)
    assert metrics["APs"] == pytest.approx(plain(lambda area: area <= 32**2), abs=1e-9)
    assert metrics["APm"] == pytest.approx(plain(lambda area: 32**2 <= area <= 96**2), abs=1e-9)
    assert metrics["APl"] == pytest.approx(plain(lambda area: area >= 96**2), abs=1e-9)


def test_terciles_are_those_of_the_named_annotations() -> None:
    """Figures on reward images and on val are comparable if both use the sizes of all of train."""
    folder = shared_folder("data") / "digits_multiscale"
    annotations = read_annotations(folder / "annotations" / "instances_val.json", folder / "images")
    few = annotations.subset(np.arange(5))
    none = Detections(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4)), np.zeros(0))
    own, named = CocoEvaluator(few).evaluate(none), CocoEvaluator(few, sizes_of=annotations).evaluate(none)
    sides = np.sqrt(annotations.boxes_xywh[:, 2] * annotations.boxes_xywh[:, 3])
    few_sides = np.sqrt(few.boxes_xywh[:, 2] * few.boxes_xywh[:, 3])
    edges = np.quantile(sides**2, [1 / 3, 2 / 3]) ** 0.5
    assert named["num_size1"] == np.count_nonzero(few_sides <= edges[0])
    assert named["num_size3"] == np.count_nonzero(few_sides > edges[1])
    assert [own[f"num_size{third}"] for third in (1, 2, 3)] != [named[f"num_size{third}"] for third in (1, 2, 3)]


def test_average_precision_by_tercile_divides_the_objects_into_equal_shares_by_box_size(tmp_path: Path) -> None:
    annotations = random_annotations(tmp_path, seed=4)
    detections = noisy_detections(annotations)
    metrics = CocoEvaluator(annotations).evaluate(detections)
    areas = annotations.boxes_xywh[:, 2:].prod(axis=1)
    low, high = np.quantile(areas[~annotations.iscrowd], [1 / 3, 2 / 3])
    ranges = [lambda a: a <= low, lambda a: low < a <= high, lambda a: a > high]
    for index, in_range in enumerate(ranges, start=1):
        expected = plain_average_precision(annotations, detections, areas, in_range, ALL_THRESHOLDS)
        assert metrics[f"AP_size{index}"] == pytest.approx(expected, abs=1e-9)
    counts = [metrics[f"num_size{index}"] for index in (1, 2, 3)]
    assert sum(counts) == np.count_nonzero(~annotations.iscrowd)
    assert max(counts) - min(counts) <= 1


def test_objects_of_equal_size_are_counted_in_one_tercile_only(tmp_path: Path) -> None:
    annotations = random_annotations(tmp_path)
    boxes = annotations.boxes_xywh.copy()
    boxes[:, 2:] = 20
    metrics = CocoEvaluator(replace_boxes(annotations, boxes)).evaluate(NONE_FOUND)
    assert [metrics[f"num_size{i}"] for i in (1, 2, 3)] == [np.count_nonzero(~annotations.iscrowd), 0, 0]
    assert [metrics[f"AP_size{i}"] for i in (1, 2, 3)] == [0.0, None, None]


def replace_boxes(annotations: Annotations, boxes_xywh: NDArray[np.float64]) -> Annotations:
    values = {name: getattr(annotations, name) for name in Annotations.__slots__}
    return Annotations(**{**values, "boxes_xywh": boxes_xywh, "areas": boxes_xywh[:, 2:].prod(axis=1)})


def test_no_detections_at_all_score_zero(tmp_path: Path) -> None:
    metrics = CocoEvaluator(random_annotations(tmp_path)).evaluate(NONE_FOUND)
    assert [metrics[name] for name in COCO_METRICS] == [0.0] * 12


def test_a_size_without_objects_is_undefined(tmp_path: Path) -> None:
    annotations = random_annotations(tmp_path)
    boxes = annotations.boxes_xywh.copy()
    boxes[:, 2:] = 20
    metrics = CocoEvaluator(replace_boxes(annotations, boxes)).evaluate(NONE_FOUND)
    assert metrics["APs"] == 0.0
    assert metrics["APm"] is metrics["APl"] is metrics["ARl"] is None


@pytest.mark.parametrize("first_annotation_id", [0, 1])
def test_detecting_everything_scores_one_even_with_an_annotation_id_of_zero(
    tmp_path: Path, first_annotation_id: int
) -> None:
    """pycocotools treats a match with annotation 0 as no match."""
    annotations = random_annotations(tmp_path, first_annotation_id=first_annotation_id)
    metrics = CocoEvaluator(annotations).evaluate(everything_found(annotations))
    assert metrics["AP"] == pytest.approx(1.0)
    assert metrics["AP_size1"] == pytest.approx(1.0)


def test_a_subset_is_evaluated_by_itself(tmp_path: Path) -> None:
    annotations = random_annotations(tmp_path)
    half = annotations.subset(np.arange(0, 12, 2))
    found = everything_found(half)
    assert CocoEvaluator(half).evaluate(found)["AP"] == pytest.approx(1.0)
    assert CocoEvaluator(annotations).evaluate(found)["AP"] < 0.9


def test_evaluating_again_gives_the_same_and_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations = random_annotations(tmp_path)
    evaluator = CocoEvaluator(annotations)
    first = evaluator.evaluate(noisy_detections(annotations))
    evaluator.evaluate(NONE_FOUND)
    assert evaluator.evaluate(noisy_detections(annotations)) == first
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_the_evaluation_runs_on_the_threads_of_the_trial(tmp_path: Path) -> None:
    random_annotations(tmp_path)
    code = (
        "import os, sys; from pathlib import Path; import numpy as np\n"
        "from spinenas.proxy_task.data.annotation_files import annotation_file as coco\n"
        "from spinenas.proxy_task.training import device\n"
        "from spinenas.proxy_task.evaluation import coco_metrics as evaluate\n"
        "device.use_threads(5); before = len(os.listdir('/proc/self/task'))\n"
        "path = Path(sys.argv[1]); annotations = coco.read_annotations(path, path.parent)\n"
        "none = np.zeros(0, dtype=np.int64)\n"
        "found = evaluate.Detections(none, none, np.zeros((0, 4)), np.zeros(0))\n"
        "evaluate.CocoEvaluator(annotations).evaluate(found)\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "instances.json")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "5\n"


def test_a_detection_that_is_not_finite_is_refused() -> None:
    """pycocotools takes a box of NaN for a perfect match."""
    one = np.array([1])
    with pytest.raises(ValueError, match="diverged"):
        Detections(one, one, np.array([[1, 2, np.nan, 4]]), np.array([0.5]))
    with pytest.raises(ValueError, match="diverged"):
        Detections(one, one, np.ones((1, 4)), np.array([np.inf]))


@pytest.mark.parametrize(
    "name",
    ["aquarium_val", "coco_permissive_train", "coco_permissive_val", "dali_cc0_tiny256_val", "digits_multiscale_val"],
)
def test_every_golden_figure_is_reproduced(name: str) -> None:
    data = shared_folder("data")
    golden = json.loads((data / "eval_golden" / f"{name}_golden.json").read_text())
    folder = data / golden["dataset"]
    annotations = read_annotations(folder / "annotations" / f"instances_{golden['split']}.json", folder / "images")
    rows = json.loads((data / "eval_golden" / golden["detections"]).read_text())
    detections = Detections(
        np.array([row["image_id"] for row in rows]),
        np.array([row["category_id"] for row in rows]),
        np.array([row["bbox"] for row in rows], dtype=np.float64),
        np.array([row["score"] for row in rows]),
    )
    metrics = CocoEvaluator(annotations).evaluate(detections)
    assert {name: metrics[name] for name in COCO_METRICS} == pytest.approx(golden["stats"], abs=1e-9)
