"""Random annotations and detections in the COCO format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from spinenas.proxy_task.data.annotation_files.annotation_file import read_annotations
from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.evaluation.detections import Detections

NONE_FOUND = Detections(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty((0, 4)), np.empty(0))


def random_annotations(folder: Path, *, first_annotation_id: int = 1, seed: int = 0) -> Annotations:
    """Return 12 images, ids with gaps, 3 categories, crowd boxes, areas below those of the boxes."""
    rng = np.random.default_rng(seed)
    image_ids = rng.permutation(100)[:12].tolist()
    annotations = []
    for image_id in image_ids[:-1]:  # the last image has no box
        for _ in range(rng.integers(1, 6)):
            width, height = np.exp(rng.uniform(np.log(8), np.log(200), size=2)).round(2).tolist()
            annotations.append(
                {
                    "id": first_annotation_id + len(annotations),
                    "image_id": image_id,
                    "category_id": int(rng.choice([2, 5, 90])),
                    "bbox": [*rng.uniform(0, 400, size=2).round(2).tolist(), width, height],
                    "area": width * height * rng.uniform(0.3, 1),
                    "iscrowd": int(rng.random() < 0.1),
                }
            )
    document = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 640} for i in image_ids],
        "annotations": annotations,
        "categories": [{"id": i, "name": str(i)} for i in (90, 2, 5, 7)],  # no object is of category 7
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(document))
    return read_annotations(path, folder)


def noisy_detections(annotations: Annotations, seed: int = 1) -> Detections:
    """Return doubled, shifted and mislabelled copies of the boxes, with many equal scores, in random order."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(np.repeat(np.arange(len(annotations.labels)), 3))
    image_of_box = np.repeat(annotations.image_ids, np.diff(annotations.box_offsets))
    category_ids = annotations.category_ids[annotations.labels[rows] - 1]
    category_ids = np.where(rng.random(len(rows)) < 0.2, 5, category_ids)
    sizes = annotations.boxes_xywh[rows][:, [2, 3, 2, 3]]
    boxes = annotations.boxes_xywh[rows] + rng.uniform(-0.12, 0.12, size=(len(rows), 4)) * sizes
    return Detections(image_of_box[rows], category_ids, boxes, rng.random(len(rows)).round(1))


def everything_found(annotations: Annotations) -> Detections:
    objects = ~annotations.iscrowd
    return Detections(
        np.repeat(annotations.image_ids, np.diff(annotations.box_offsets))[objects],
        annotations.category_ids[annotations.labels - 1][objects],
        annotations.boxes_xywh[objects],
        np.ones(np.count_nonzero(objects)),
    )


def annotations_of(folder: Path, sizes: dict[str, tuple[int, int]]) -> Annotations:
    """Return annotations of files with these (width, height), a box on none of them."""
    count = len(sizes)
    widths, heights = np.array(list(sizes.values()), dtype=np.int64).T
    return Annotations(
        images_folder=folder,
        image_ids=np.arange(count),
        file_names=tuple(sizes),
        groups=tuple(sizes),
        widths=widths,
        heights=heights,
        category_ids=np.array([1]),
        category_names=("thing",),
        box_offsets=np.zeros(count + 1, dtype=np.int64),
        boxes_xywh=np.empty((0, 4)),
        labels=np.empty(0, dtype=np.int64),
        areas=np.empty(0),
        iscrowd=np.empty(0, dtype=bool),
        annotation_ids=np.empty(0, dtype=np.int64),
    )
