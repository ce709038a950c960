"""Mutate annotation files at random; each is read and measured right, or refused in one sentence.

    python tests/annotation_fuzz.py [--files 5000] [--seed 0]

A mutation drops, copies or renames a key, or changes a value to one of another type, sign or scale, to NaN, or to odd
text. Each file goes through `data check`'s functions. Of those accepted, the data path of a training is run (images,
boxes, targets), and AP is measured for detections equal to the boxes as read. Afterwards:

- a refusal is a UserError of one line that names the file, a key or the folder;
- no box that can be trained on is outside its image, without area or without a category;
- detections equal to the boxes have AP 1, or COCO counts no object and that was refused;
- each box that is trained on is in the file as it is, or a finding tells of a change.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from coco_examples import everything_found
from data_sets import HEIGHT, WIDTH, document, write_images

from spinenas.proxy_task.config import DataConfig, TaskConfig, TrainConfig
from spinenas.proxy_task.data.findings import not_logged
from spinenas.proxy_task.data_check import check_data
from spinenas.proxy_task.task import ProxyTask
from spinenas.proxy_task.training.batches import augmented_image
from spinenas.space.errors import UserError
from spinenas.space.random_streams import generator

ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**70),
    0.5,
    1e-9,
    1e300,
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    "0",
    "nan",
    "\u0000",
    "\ud800",
    "a" * 300,
    "../0.png",
    "/etc/hostname",
    "0.PNG",
    "images\\0.png",
    "%30.png",
    "\u00e9.png",
    "e\u0301.png",
    [],
    {},
    [1],
    [0, 0, 1, 1],
    [[1, 2, 3]],
    {"counts": [1, 2], "size": [3, 4]},
)


class Outcome(NamedTuple):
    """What became of a file: "accepted" or "refused", and what is wrong about that, if anything."""

    kind: str
    problem: str | None


def mutated(found: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Return a copy of a document with one to three mutations."""
    found = copy.deepcopy(found)
    for _ in range(rng.randint(1, 3)):
        holders = list(_holders(found))
        holder = rng.choice(holders)
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            continue
        key = rng.choice(keys)
        value = holder[key]
        match rng.randrange(7):
            case 0:
                del holder[key]
            case 1:
                holder[key] = copy.deepcopy(rng.choice(ODD_VALUES))
            case 2 if isinstance(holder, list):
                holder.append(copy.deepcopy(value))
            case 2 if isinstance(holder, dict):
                holder[rng.choice(["Id", "bbox", "file name", "segmentation", "group"])] = holder.pop(key)
            case 3 if isinstance(value, int | float) and not isinstance(value, bool):
                holder[key] = -value
            case 4 if isinstance(value, int | float) and not isinstance(value, bool):
                holder[key] = value * rng.choice([0.01, 0.5, 2, 100, 1e6])
            case 5 if not isinstance(value, list | dict):
                holder[key] = rng.choice([str(value), [value], {"value": value}, float("nan")])
            case _:
                holder[key] = copy.deepcopy(rng.choice(ODD_VALUES))
    return found


def _holders(value: Any) -> Any:
    """Yield every list and object of a document."""
    if isinstance(value, dict | list):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from _holders(item)


def outcome_of(folder: Path, text: str) -> Outcome:
    """Check, load and measure one annotation file in a folder that has the images."""
    (folder / "annotations/instances_train.json").write_text(text)
    config = TaskConfig(
        data=DataConfig(folder=str(folder), cache_folder=str(folder / "cache"), held_out_images=2),
        image_size_pixels=96,
        train=TrainConfig(batch_size=2, dtype="float32", scale_jitter=(0.8, 1.2), flip=True),
    )
    task = ProxyTask(config, device="cpu")
    try:
        with not_logged():
            task.prepare()
            checked = check_data(task)
    except UserError as error:
        return Outcome("refused", _wrong_refusal(str(error)))
    except Exception as error:  # the point of the exercise
        return Outcome("refused", f"{type(error).__name__}: {error}")
    findings = [row for row in checked.rows if row["finding"]]
    return Outcome("accepted", _wrong_data(task) or _untold_change(task, bool(findings)))


def _wrong_refusal(sentence: str) -> str | None:
    return f"a refusal of several lines: {sentence}" if "\n" in sentence or not sentence.strip() else None


def _wrong_data(task: ProxyTask) -> str | None:
    """Return what is wrong with the data as a training and an evaluation get them."""
    train = task.data.train
    sizes = np.stack([train.widths, train.heights], axis=1)[train.image_of_box]
    corners, sides = train.boxes_xywh[:, :2], train.boxes_xywh[:, 2:]
    objects = ~train.iscrowd
    if not np.isfinite(train.boxes_xywh).all() or (sides[objects] <= 0).any():
        return "a box without a size"
    if (corners < -1).any() or (corners + sides > sizes + 1).any():
        return "a box outside its image"
    if not np.isfinite(train.areas).all() or (train.areas[objects] < 0).any():
        return "an area that COCO does not count"
    if len(train.labels) and not (train.labels.min() >= 1 and train.labels.max() <= len(train.category_ids)):
        return "a label without a category"
    data = task.data.cached_images(train, task.config.image_size_pixels)
    rng = generator(0, "fuzz")
    for row in task.data.train_rows.tolist():
        image, boxes, _ = augmented_image(data, row, rng, task.config.train)
        if not bool(image.isfinite().all()) or not bool(boxes.isfinite().all()):
            return "an image or a box that is not finite"
    ap = task.data.evaluator("reward").evaluate(everything_found(task.data.train.subset(task.data.reward_rows)))["AP"]
    return None if ap is not None and ap > 0.98 else f"AP {ap} of detections equal to the objects"


def _untold_change(task: ProxyTask, is_told: bool) -> str | None:
    """Return a box that no file held, if no finding tells of it."""
    if is_told:
        return None
    written = _written_boxes(task)
    for box in task.data.train.boxes_xywh.tolist():
        if box not in written:
            return f"the box {box} is not in the file, and nothing says why"
    return None


def _written_boxes(task: ProxyTask) -> list[list[float]]:
    folder = Path(task.config.data.folder)
    found = json.loads((folder / "annotations/instances_train.json").read_text())
    boxes = (entry.get("bbox") for entry in found["annotations"] if isinstance(entry, dict))
    return [[float(value) for value in box] for box in boxes if isinstance(box, list) and len(box) == 4]


def fuzz(folder: Path, num_files: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Return how many files were accepted and refused, and a line for each problem."""
    found = document(num_images=6)
    for entry in found["annotations"][::3]:
        x, y, width, height = entry["bbox"]
        entry["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    found["images"][0]["group"] = "a"
    write_images(folder / "images", [f"{i}.png" for i in range(6)], (WIDTH, HEIGHT))
    (folder / "annotations").mkdir()
    counts: Counter[str] = Counter()
    problems = []
    for number in range(num_files):
        text = json.dumps(mutated(found, random.Random(f"{seed}/{number}")))
        outcome = outcome_of(folder, text)
        counts[outcome.kind] += 1
        if outcome.problem:
            problems.append(f"file {number} was {outcome.kind}: {outcome.problem}")
    return counts, problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts, problems = fuzz(Path(folder), arguments.files, arguments.seed)
    for problem in problems:
        print(problem)
    took = time.monotonic() - started
    print(f"{counts['accepted']} accepted, {counts['refused']} refused, {len(problems)} problems, {took:.0f} s")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
