"""Print time and memory for a data set of COCO's size: reading annotations, sharing them, decoding images.

    python benchmarks/data_scale.py --data shared/data/aquarium [--images 118000] [--boxes 860000] [--workers 4]
        [--pixels 512] [--runs 3] [--folder DIR] [--json FILE]

The annotation file is generated with outlines, together with a sparse cache of images without pixels. It takes half a
GB in a temporary folder (in DIR). It is compared with pycocotools' COCO(file). Each reading and each worker has its own
process. A worker's own memory is the private memory in /proc/self/smaps_rollup while all workers live. --data is a
folder of real photographs. They are decoded by one thread, by two threads, and by a plain loop that decodes whole
images and resizes them with Pillow.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spinenas.proxy_task.config import DataConfig
from spinenas.proxy_task.data.annotation_files.annotation_cache import open_annotations
from spinenas.proxy_task.data.annotation_files.annotation_file import read_annotations
from spinenas.proxy_task.data.annotation_files.layout import find_split
from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.images.image_cache import cache_path, letterbox_geometry, open_cache

MEMORY = """
import re
def kilobytes(file, pattern):
    return sum(map(int, re.findall(pattern + r":\\s+(\\d+) kB", open(file).read())))
"""

OPEN = (
    MEMORY
    + """
import sys, time
from pathlib import Path
from spinenas.proxy_task.data.annotation_files.annotation_cache import open_annotations
path, root = map(Path, sys.argv[1:])
began, cpu_began = time.perf_counter(), time.process_time()
annotations = open_annotations(path, root, root)
seconds = time.perf_counter() - began, time.process_time() - cpu_began
assert len(annotations.image_ids)
print(*seconds, kilobytes("/proc/self/status", "VmHWM"))
"""
)

PEER = (
    MEMORY
    + """
import sys, time
from pycocotools.coco import COCO
began, cpu_began = time.perf_counter(), time.process_time()
coco = COCO(sys.argv[1])
seconds = time.perf_counter() - began, time.process_time() - cpu_began
print(*seconds, kilobytes("/proc/self/status", "VmHWM"))
"""
)

WORKER = (
    MEMORY
    + """
import json, sys
from spinenas.proxy_task.config import DataConfig, TaskConfig
from spinenas.proxy_task.task import ProxyTask
data = json.loads(sys.argv[1])
size = data.pop("size")
task = ProxyTask(TaskConfig(data=DataConfig(**data), image_size_pixels=size))
task.prepare()
print("opened", flush=True)
def say():
    sys.stdin.readline()
    print(kilobytes("/proc/self/smaps_rollup", "Private_(?:Clean|Dirty)"), flush=True)
say()
task.data.evaluator("reward")
print("has its evaluator", flush=True)
say()
sys.stdin.readline()
"""
)

SIDES = (640, 480)
CATEGORY_IDS = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
"""COCO's 80."""

CORNERS = 22
"""Bytes of an outline, about as many as in COCO's train file."""


def write_annotations(path: Path, num_images: int, num_boxes: int) -> None:
    """Write a reproducible file like COCO's instances_train2017.json; 1 % of the boxes are crowds."""
    rng = np.random.default_rng(0)
    width, height = SIDES
    with open(path, "w", encoding="ascii") as file:
        file.write('{"info": {"description": "generated"}, "licenses": [], "images": [')
        image_ids = np.sort(rng.choice(5 * num_images, size=num_images, replace=False))
        for index, image_id in enumerate(image_ids.tolist()):
            name = f"{image_id:012}.jpg"
            file.write(
                f'{", " if index else ""}{{"license": 3, "file_name": "{name}", "coco_url": '
                f'"http://images.cocodataset.org/train2017/{name}", "height": {height}, "width": {width}, '
                f'"date_captured": "2013-11-14 11:18:45", "flickr_url": "http://farm9.staticflickr.com/{name}", '
                f'"id": {image_id}}}'
            )
        file.write('], "annotations": [')
        corner_format = ", ".join(["%.2f"] * (2 * CORNERS))
        angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        for start in range(0, num_boxes, 10_000):
            count = min(10_000, num_boxes - start)
            sizes = np.exp(rng.uniform(np.log(8), np.log(300), size=(count, 2))).round(2)
            corners = (rng.random((count, 2)) * (np.array(SIDES) - sizes)).round(2)
            wobble = rng.uniform(0.6, 1.0, size=(count, CORNERS, 1))
            outlines = corners[:, None] + sizes[:, None] * (circle * wobble + 1) / 2
            images = image_ids[rng.integers(num_images, size=count)].tolist()
            categories = rng.choice(CATEGORY_IDS, size=count).tolist()
            crowds = (rng.random(count) < 0.01).tolist()
            boxes = np.concatenate([corners, sizes], axis=1).tolist()
            for index in range(count):
                outline = corner_format % tuple(outlines[index].ravel().tolist())
                mask = f'{{"counts": [{outlines[index].size}, 3], "size": [{height}, {width}]}}'
                box = boxes[index]
                file.write(
                    f'{", " if start + index else ""}{{"segmentation": {mask if crowds[index] else f"[[{outline}]]"}, '
                    f'"area": {0.6 * box[2] * box[3]:.4f}, "iscrowd": {int(crowds[index])}, '
                    f'"image_id": {images[index]}, "bbox": {box}, "category_id": {categories[index]}, '
                    f'"id": {900_000_000_000 + 7 * (start + index)}}}'
                )
        file.write('], "categories": [')
        file.write(", ".join(f'{{"supercategory": "thing", "id": {i}, "name": "thing {i}"}}' for i in CATEGORY_IDS))
        file.write("]}")


def in_processes(programs: dict[str, tuple[str, list[str]]], runs: int) -> dict[str, dict[str, float]]:
    """Run programs in turns; return medians of seconds and processor seconds, and the largest peak memory."""
    found: dict[str, list[list[float]]] = {name: [] for name in programs}
    for _ in range(runs):
        for name, (program, arguments) in programs.items():
            command = [sys.executable, "-c", program, *arguments]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[name].append([float(word) for word in done.stdout.splitlines()[-1].split()])
    return {
        name: {
            "seconds": statistics.median(row[0] for row in rows),
            "cpu_seconds": statistics.median(row[1] for row in rows),
            "peak_mb": max(row[2] for row in rows) / 1000,
            "runs": len(rows),
        }
        for name, rows in found.items()
    }


def reading(folder: Path, path: Path, runs: int) -> dict[str, dict[str, float]]:
    """Measure the first reading in each run, later readings, and pycocotools."""
    firsts = {f"first {run}": (OPEN, [str(path), str(folder / f"cache {run}")]) for run in range(runs)}
    first = list(in_processes(firsts, 1).values())
    found = in_processes(
        {"later": (OPEN, [str(path), str(folder / "cache 0")]), "pycocotools": (PEER, [str(path)])}, runs
    )
    names = ("seconds", "cpu_seconds")
    medians = {name: statistics.median(each[name] for each in first) for name in names}
    return {"first": {**medians, "peak_mb": max(each["peak_mb"] for each in first), "runs": runs}, **found}


def private_megabytes(data: dict[str, Any], num_workers: int) -> list[list[float]]:
    """Return the private memory of each worker while all live: with its data open, and with its evaluator."""
    workers = []
    for _ in range(num_workers):
        command = [sys.executable, "-c", WORKER, json.dumps(data)]
        workers.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert line_of(workers[-1]) == "opened"

    def told(worker: subprocess.Popen[str]) -> str:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
        return line_of(worker)

    opened = [float(told(worker)) / 1000 for worker in workers]
    for worker in workers:
        assert line_of(worker) == "has its evaluator"
    evaluating = [float(told(worker)) / 1000 for worker in workers]
    for worker in workers:
        worker.communicate("\n")
    return [opened, evaluating]


def line_of(worker: subprocess.Popen[str]) -> str:
    """Return the next line that a worker prints."""
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


def data_of(folder: Path, annotations: Path, size: int, held_out: int) -> dict[str, Any]:
    """Return the configuration of a data set whose image cache is a sparse file."""
    opened = open_annotations(annotations, folder, folder / "cache 0")
    shape = (len(opened.image_ids), size, size, 3)
    np.lib.format.open_memmap(cache_path(opened, size, folder / "cache 0"), mode="w+", dtype=np.uint8, shape=shape)
    places = dict.fromkeys(("train_annotations", "val_annotations"), str(annotations))
    places |= dict.fromkeys(("train_images", "val_images"), str(folder))
    return places | {"cache_folder": str(folder / "cache 0"), "held_out_images": held_out, "size": size}


def decoding(data: Path, size: int, runs: int, folder: Path) -> dict[str, list[float]]:
    """Return images per second by method of decoding, for each of the alternating runs."""
    paths = find_split(DataConfig(folder=str(data)), "train")
    annotations = read_annotations(paths.annotations, paths.images)
    count = len(annotations.image_ids)

    def cached(workers: int) -> Callable[[], None]:
        def build() -> None:
            with tempfile.TemporaryDirectory(dir=folder) as root:
                open_cache(annotations, size, Path(root), workers=workers)

        return build

    ways = {"one thread": cached(1), "two threads": cached(2), "plain": lambda: decode_plainly(annotations, size)}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            found[name].append(count / (time.perf_counter() - began))
    return found


def decode_plainly(annotations: Annotations, size: int) -> None:
    """Decode each image whole and resize it, one after the other, into memory."""
    _, contents_wh = letterbox_geometry(annotations.widths, annotations.heights, size)
    pixels = np.zeros((len(contents_wh), size, size, 3), dtype=np.uint8)
    for index, (width, height) in enumerate(contents_wh.tolist()):
        image = Image.open(annotations.images_folder / annotations.file_names[index]).convert("RGB")
        resized = image.resize((width, height), Image.Resampling.BILINEAR)
        pixels[index, :height, :width] = np.asarray(resized)


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=118_000)
    parser.add_argument("--boxes", type=int, default=860_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--pixels", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    document: dict[str, Any] = {
        "platform": platform.platform(),
        "versions": {name: version(name) for name in ("numpy", "orjson", "pillow", "pycocotools", "torch")},
        "date": str(datetime.now().date()),
        "load_before": os.getloadavg(),
    }
    print(", ".join(f"{name}: {value}" for name, value in document.items()))
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name).absolute()
        large, tiny = folder / "large.json", folder / "tiny.json"
        write_annotations(large, options.images, options.boxes)
        write_annotations(tiny, 100, 700)
        print(f"{options.images} images, {options.boxes} boxes: {large.stat().st_size / 1e6:.0f} MB")

        rows = document["reading"] = reading(folder, large, options.runs)
        print("| annotations | seconds | of a processor | peak memory | pycocotools / this |\n|---|---|---|---|---|")
        for what, row in rows.items():
            ratio = rows["pycocotools"]["cpu_seconds"] / row["cpu_seconds"]
            print(
                f"| {what} | {row['seconds']:.2f} | {row['cpu_seconds']:.2f} | {row['peak_mb']:.0f} MB | {ratio:.1f} |"
            )

        of_tiny = private_megabytes(data_of(folder, tiny, options.pixels, 7), options.workers)
        held_out = round(options.images / 16)  # 7392 images of COCO in the paper
        of_large = private_megabytes(data_of(folder, large, options.pixels, held_out), options.workers)
        document["private_mb"] = {"tiny": of_tiny, "large": of_large}
        print(f"| a worker's own memory, {options.workers} of them | tiny set | large set | more |\n|---|---|---|---|")
        for what, tinys, larges in zip(("data opened", "evaluator made as well"), of_tiny, of_large, strict=True):
            more = max(larges) - min(tinys)
            print(f"| {what} | {statistics.mean(tinys):.1f} MB | {statistics.mean(larges):.1f} MB | {more:.1f} MB |")

        rates = document["decoding"] = decoding(options.data, options.pixels, options.runs, folder)
        print("| images a second | median | range | to the plain loop |\n|---|---|---|---|")
        for what, each in rates.items():
            ratio = statistics.median(one / plain for one, plain in zip(each, rates["plain"], strict=True))
            print(f"| {what} | {statistics.median(each):.0f} | {min(each):.0f} to {max(each):.0f} | {ratio:.2f} |")
    document["load_after"] = os.getloadavg()
    print(f"load of the machine, ours among it: {document['load_after'][0]:.1f} ({os.cpu_count()} cores)")
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
