"""Print a worker's resident memory over many trials: it must not grow with their number.

    python benchmarks/worker_memory.py --trials 200

One process, like a worker, trains and evaluates different random genotypes one after the other, on a few generated
images of 96 px. Memory is the resident memory after each trial.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from spinenas.proxy_task.task import ProxyTask
from spinenas.results.record import Failure
from spinenas.search.config.presets import QUICKSTART_TASK
from spinenas.space import SearchSpace, sample_without_dead_blocks
from spinenas.space.random_streams import generator


def resident_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--json", type=Path, help="also write the memory after each trial to this file, in bytes")
    arguments = parser.parse_args()
    task = ProxyTask(
        replace(
            QUICKSTART_TASK,
            image_size_pixels=96,
            data=replace(QUICKSTART_TASK.data, built_in_train_images=40, built_in_val_images=4),
            train=replace(QUICKSTART_TASK.train, epochs=1),
        ),
        device="cpu",
    )
    task.prepare()
    space = SearchSpace.spinenet49()
    memory: list[int] = []
    for number in range(arguments.trials):
        genotype = sample_without_dead_blocks(space, generator(0, "worker_memory", number))
        result = task.evaluate(genotype, seed=number)
        if isinstance(result, Failure):
            raise RuntimeError(result.traceback)
        memory.append(resident_bytes())
        if (number + 1) % 20 == 0 or number == 0:
            print(f"after {number + 1:3} trials {memory[-1] / 2**20:6.0f} MiB", flush=True)
    # During the first tenth the allocator grows to the needs of the largest networks.
    settled = np.array(memory[len(memory) // 10 :]) / 2**20
    slope = np.polyfit(np.arange(len(settled)), settled, 1)[0]
    print(
        f"from then on {slope * 100:+.1f} MiB per 100 trials, between {settled.min():.0f} and {settled.max():.0f} MiB"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(memory) + "\n")


if __name__ == "__main__":
    main()
