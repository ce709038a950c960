"""Count the compiled programs that random candidates share, and time calls as their number grows.

    python benchmarks/compile_reuse.py
    python benchmarks/compile_reuse.py --genotypes 20 --json reuse.json

Networks are those of the paper's proxy (width 0.25) with compiled blocks, trained for a step at 128 px. Programs are
traced completely but run uncompiled, so that the times include tracing and the look-up of programs, but no compiler.
The number of programs does not depend on the image size, provided that the maps of all levels differ in size.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.testing import CompileCounterWithBackend

from spinenas.proxy_task.detector.retinanet import build_retinanet
from spinenas.proxy_task.training import compilation
from spinenas.proxy_task.training.compilation import compile_network, prepare_compilation, regions
from spinenas.search.config.presets import SPINENET49_PROXY_TASK
from spinenas.space import sample_without_dead_blocks
from spinenas.space.random_streams import generator
from spinenas.space.search_space import space_by_name

SIZE, BATCH, REPEATS = 128, 2, 7


def forward_seconds(network: torch.nn.Module, images: torch.Tensor) -> float:
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        network(images)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--genotypes", type=int, default=20)
    parser.add_argument("--space", default="spinenet49")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    counter = CompileCounterWithBackend("eager")  # type: ignore[no-untyped-call]
    compilation.BACKEND = counter
    prepare_compilation(Path("unused"))
    task = SPINENET49_PROXY_TASK
    space = space_by_name(arguments.space)
    images = torch.rand(BATCH, 3, SIZE, SIZE)
    rows: list[dict[str, Any]] = []
    print("| genotype | calls | new programs | programs so far | ms more for a call |\n|---|---|---|---|---|")
    for number in range(arguments.genotypes):
        genotype = sample_without_dead_blocks(space, generator(0, "compile_reuse", number))
        network = build_retinanet(genotype, task.scaling, task.head, class_channels=81)
        plain = forward_seconds(network, images)
        before = counter.frame_count
        compile_network(network, "blocks")
        logits, deltas = network(images)
        (logits.sum() + deltas.sum()).backward()
        # A tower is called once for each level.
        num_calls = len(regions(network)) + 2 * (len(network.backbone.levels) - 1)
        more = 1e3 * (forward_seconds(network, images) - plain) / num_calls
        new = counter.frame_count - before
        rows.append({"calls": num_calls, "new": new, "so_far": counter.frame_count, "more_ms": more})
        print(f"| {number} | {num_calls} | {new} | {counter.frame_count} | {more:.3f} |", flush=True)
    calls = sum(row["calls"] for row in rows)
    last = rows[len(rows) // 2 :]
    share = 1 - sum(row["new"] for row in last) / sum(row["calls"] for row in last)
    print(
        f"{calls} calls of {counter.frame_count} programs, each compiled once; "
        f"of the last {len(last)} candidates' calls {share:.1%} found a program that there was"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
