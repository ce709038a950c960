"""Print the time of COCO evaluation: our evaluator against pycocotools, on the same generated detections.

    python benchmarks/evaluation_speed.py [--images 5000] [--runs 3] [--threads 1] [--trial] [--json FILE]

Both return the twelve figures and AP by terciles of object size, from arrays. pycocotools first makes dictionaries of
them. The figures include the index of the annotations. --trial also prints the share that evaluation has of a
coco-small trial, estimated from a few steps on generated images (a minute).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from spinenas.proxy_task.config import DataConfig
from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.evaluation.coco_metrics import CocoEvaluator
from spinenas.proxy_task.evaluation.detections import Detections
from spinenas.proxy_task.task import ProxyTask
from spinenas.proxy_task.training.device import use_threads
from spinenas.search.config.presets import COCO_SMALL_TASK
from spinenas.space.published import SPINENET_49

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from pycocotools_reference import PycocotoolsEvaluator

NUM_CATEGORIES = 80
OBJECTS_PER_IMAGE = 7
DETECTIONS_PER_IMAGE = 100


def generated_annotations(rng: np.random.Generator, num_images: int) -> Annotations:
    """Return a data set similar to COCO's val2017: 7 objects of all sizes per image, 1 % of them crowds."""
    counts = rng.poisson(OBJECTS_PER_IMAGE, size=num_images)
    num_boxes = int(counts.sum())
    sizes = np.exp(rng.uniform(np.log(8), np.log(400), size=(num_boxes, 2)))
    names = tuple(map(str, range(num_images)))
    return Annotations(
        images_folder=Path(),
        image_ids=np.arange(num_images),
        file_names=names,
        groups=names,
        widths=np.full(num_images, 640),
        heights=np.full(num_images, 640),
        category_ids=np.arange(1, NUM_CATEGORIES + 1),
        category_names=tuple(map(str, range(NUM_CATEGORIES))),
        box_offsets=np.concatenate([[0], np.cumsum(counts)]),
        boxes_xywh=np.column_stack([rng.uniform(0, 600, size=(num_boxes, 2)), sizes]),
        labels=rng.integers(1, NUM_CATEGORIES + 1, size=num_boxes),
        areas=sizes.prod(axis=1) * rng.uniform(0.4, 1, size=num_boxes),
        iscrowd=rng.random(num_boxes) < 0.01,
        annotation_ids=np.arange(num_boxes),
    )


def generated_detections(rng: np.random.Generator, annotations: Annotations) -> Detections:
    """Return 100 detections per image: shifted copies of boxes of all images, an eighth of them in the right image."""
    num_detections = DETECTIONS_PER_IMAGE * len(annotations.image_ids)
    copied = rng.integers(0, len(annotations.labels), size=num_detections)
    is_right = rng.random(num_detections) < 1 / 8
    image_of_box = np.repeat(annotations.image_ids, np.diff(annotations.box_offsets))
    elsewhere = np.repeat(annotations.image_ids, DETECTIONS_PER_IMAGE)
    sizes = annotations.boxes_xywh[copied][:, [2, 3, 2, 3]]
    return Detections(
        image_ids=np.where(is_right, image_of_box[copied], elsewhere),
        category_ids=annotations.labels[copied],
        boxes_xywh=annotations.boxes_xywh[copied] + rng.uniform(-0.15, 0.15, size=sizes.shape) * sizes,
        scores=rng.beta(1 + 2 * is_right, 4),
    )


def timed(action: Callable[[], Any], runs: int) -> tuple[list[float], Any]:
    """Return the seconds of each run, and the result of the last run."""
    seconds, result = [], None
    for _ in range(runs):
        started = time.perf_counter()
        result = action()
        seconds.append(time.perf_counter() - started)
    return seconds, result


def compared(num_images: int, runs: int) -> list[dict[str, Any]]:
    """Return a row for the index and a row for the figures. The figures of both evaluators must agree."""
    rng = np.random.default_rng(0)
    annotations = generated_annotations(rng, num_images)
    detections = generated_detections(rng, annotations)
    ours_index, ours = timed(lambda: CocoEvaluator(annotations), runs)
    theirs_index, theirs = timed(lambda: PycocotoolsEvaluator(annotations), runs)
    ours_seconds, metrics = timed(lambda: ours.evaluate(detections), runs)
    theirs_seconds, expected = timed(lambda: theirs.figures(detections), runs)
    difference = max(abs(metrics[name] - expected[name]) for name in metrics if name in expected)
    assert difference <= 1e-9, f"the figures differ by {difference}"
    print(f"AP {metrics['AP']:.4f}; the largest difference of a figure is {difference:.1g}")
    return [
        row("the annotations' index", ours_index, theirs_index),
        row("the figures", ours_seconds, theirs_seconds),
    ]


def row(what: str, ours: list[float], theirs: list[float]) -> dict[str, Any]:
    medians = statistics.median(ours), statistics.median(theirs)
    return {
        "what": what,
        "ours_seconds": medians[0],
        "pycocotools_seconds": medians[1],
        "ratio": medians[1] / medians[0],
        "ours_runs": ours,
        "pycocotools_runs": theirs,
    }


def trial_share(threads: int, runs: int) -> dict[str, float]:
    """Return the seconds of the metrics of a coco-small trial, and of the whole trial."""
    config = replace(COCO_SMALL_TASK, data=DataConfig())
    task = ProxyTask(config, threads=threads)
    task.prepare()
    trial_seconds = task.probe(SPINENET_49).trial_seconds
    rng = np.random.default_rng(0)
    annotations = generated_annotations(rng, task.fingerprint["num_reward_images"])
    detections = generated_detections(rng, annotations)
    num_evaluations = config.train.epochs // config.eval.every_epochs
    ours, theirs = CocoEvaluator(annotations), PycocotoolsEvaluator(annotations)
    return {
        "trial_seconds": trial_seconds,
        "ours_seconds": num_evaluations * statistics.median(timed(lambda: ours.evaluate(detections), runs)[0]),
        "pycocotools_seconds": num_evaluations * statistics.median(timed(lambda: theirs.figures(detections), runs)[0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--trial", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    versions = {name: version(name) for name in ("hotcoco", "pycocotools", "numpy")}
    print(f"{platform.platform()}, {versions}, {datetime.now().date()}")
    print(f"{arguments.images} images, {arguments.runs} runs, {arguments.threads} threads")
    document: dict[str, Any] = {
        "platform": platform.platform(),
        "versions": versions,
        "images": arguments.images,
        "threads": arguments.threads,
        "rows": compared(arguments.images, arguments.runs),
        "load": os.getloadavg(),
    }
    print(f"load of the machine, ours among it: {document['load'][0]:.1f} ({os.cpu_count()} cores)")
    print("| what | ours | pycocotools | ratio |\n|---|---|---|---|")
    for each in document["rows"]:
        ours, theirs = each["ours_seconds"], each["pycocotools_seconds"]
        print(f"| {each['what']} | {ours:.3f} s | {theirs:.2f} s | {each['ratio']:.0f} |")
    if arguments.trial:
        share = document["coco_small_trial"] = trial_share(arguments.threads, arguments.runs)
        for name in ("ours", "pycocotools"):
            seconds = share[f"{name}_seconds"]
            of_trial = seconds / (share["trial_seconds"] + seconds)
            print(f"figures of a coco-small trial, {name}: {seconds:.3f} s, {of_trial:.2%} of it")
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
