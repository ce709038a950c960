"""Print the size of a trial's checkpoint, and the seconds to write and read it.

    python benchmarks/checkpoint_cost.py [--repeats 9] [--folder /tmp]

The detectors are SpineNet-49 in the CPU presets and at its published width, after one optimizer step, on one thread.
Writing includes the checksum and the sync. The folder selects the disk.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import torch

from spinenas.proxy_task.config import TaskConfig
from spinenas.proxy_task.detector.retinanet import build_retinanet
from spinenas.proxy_task.training import checkpoint
from spinenas.proxy_task.training.train import make_optimizer, state_of
from spinenas.results.storage.run_folder import CHECKPOINT
from spinenas.search.config.presets import COCO_SMALL_TASK, QUICKSTART_TASK
from spinenas.space.published import SPINENET_49
from spinenas.space.scaling import SCALINGS

FULL_WIDTH = TaskConfig(image_size_pixels=640, scaling=SCALINGS["49"])
CASES = [
    ("quickstart", QUICKSTART_TASK, 5),
    ("coco-small", COCO_SMALL_TASK, 91),
    ("SpineNet-49 at full width, sgd", FULL_WIDTH, 91),
    ("SpineNet-49 at full width, adamw", replace(FULL_WIDTH, train=replace(FULL_WIDTH.train, optimizer="adamw")), 91),
]
"""Name, task, class channels."""


def measured(
    task: TaskConfig, class_channels: int, folder: Path, repeats: int
) -> tuple[float, list[float], list[float]]:
    """Return the size in megabytes, and the seconds of each write and each read."""
    network = build_retinanet(SPINENET_49, task.scaling, task.head, class_channels=class_channels)
    network.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(network, task.train)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    path = folder / CHECKPOINT
    writing, reading = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        checkpoint.save(path, state_of(1, network, optimizer), checkpoint.Progress(), {})
        written = time.perf_counter()
        assert checkpoint.load(path, {}) is not None
        writing.append(written - started)
        reading.append(time.perf_counter() - written)
    return path.stat().st_size / 1e6, writing, reading


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--cases", type=int, default=len(CASES), help="number of cases, smallest first")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.platform()}, torch {version('torch')}, {datetime.now().date()}, {arguments.repeats} times")
    print("| a checkpoint of | MB | written in, median (largest) | read in |\n|---|---|---|---|")
    for name, task, class_channels in CASES[: arguments.cases]:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            size, writing, reading = measured(task, class_channels, Path(folder), arguments.repeats)
        median = statistics.median
        print(f"| {name} | {size:.1f} | {median(writing):.2f} s ({max(writing):.2f}) | {median(reading):.2f} s |")


if __name__ == "__main__":
    main()
