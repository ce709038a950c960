"""Writes small data sets with images, to be changed by a test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from spinenas.proxy_task.config import DataConfig
from spinenas.proxy_task.task_data import TaskData

WIDTH, HEIGHT = 80, 60


def document(
    boxes: Sequence[Sequence[float]] = ((10, 12, 30, 20), (40, 5, 25, 45)), *, num_images: int = 6
) -> dict[str, Any]:
    """Return annotations in COCO's format: images 0.png, 1.png, ... of 80 x 60 px, each with these boxes."""
    images = [{"id": i + 1, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in range(num_images)]
    annotations = [
        {"image_id": image["id"], "category_id": 1 + k % 2, "bbox": list(box), "area": box[2] * box[3], "iscrowd": 0}
        for image in images
        for k, box in enumerate(boxes)
    ]
    return {
        "images": images,
        "annotations": [{"id": i + 1, **entry} for i, entry in enumerate(annotations)],
        "categories": [{"id": 1, "name": "leaf"}, {"id": 2, "name": "stone"}],
    }


def write_json(path: Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))


def write_images(folder: Path, names: Sequence[str], size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """Write images, each of another colour."""
    for index, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (20 + 30 * index, 90, 200 - 10 * index)).save(path)


def write_set(folder: Path, train: dict[str, Any], val: dict[str, Any] | None = None) -> Path:
    """Write annotations in the first layout, and an image for each of the plain file names."""
    for name, found in {"train": train, "val": val}.items():
        if found is not None:
            write_json(folder / f"annotations/instances_{name}.json", found)
    write_images(folder / "images", [f"{i}.png" for i in range(len(train["images"]))])
    return folder


def task_data(folder: Path, cache: Path, size: int = 96, **options: Any) -> TaskData:
    """Return the data of a task; the options are keys of task.data."""
    return TaskData(DataConfig(folder=str(folder), cache_folder=str(cache), **options), size)


def said(data: TaskData, size: int = 96) -> list[str]:
    """Open all of train, as a search does, and return the sentences of the findings. Raises UserError."""
    assert len(data.reward_rows)
    images = data.split("train", size, torch.device("cpu"))
    return [finding.sentence for finding in images.annotations.findings]
