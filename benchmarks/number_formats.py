"""Print what bfloat16 and float32 cost and yield on this machine, and what `dtype = "auto"` chooses.

    python benchmarks/number_formats.py digits --data FOLDER
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python benchmarks/number_formats.py digits --data FOLDER \\
        --genotypes 0

Each genotype is trained once in each format with the same seed, one training at a time. Then steps of SpineNet-49 are
timed in both formats in turns. The variables of the second line show what a processor with AVX2 alone would need.
Finished trainings are kept in --out, and a second call continues there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from dataclasses import replace
from pathlib import Path

import torch
from benchmark_task import add_task_options, chosen_task

from spinenas.proxy_task.task import ProxyTask
from spinenas.proxy_task.training.device import bfloat16_support, device_name
from spinenas.results.record import Failure
from spinenas.space import SearchSpace, sample_without_dead_blocks
from spinenas.space.published import SPINENET_49
from spinenas.space.random_streams import generator, seed_for

FORMATS = ("float32", "bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_task_options(parser)
    parser.add_argument("--genotypes", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3, help="of timed steps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file of the finished trainings (default: none is kept)")
    arguments = parser.parse_args()
    config = chosen_task(arguments)
    tasks = {
        name: ProxyTask(replace(config, train=replace(config.train, dtype=name)), threads=arguments.threads)
        for name in FORMATS
    }
    auto = ProxyTask(replace(config, train=replace(config.train, dtype="auto")))
    support = bfloat16_support(auto.torch_device)
    print(
        f"{device_name(auto.torch_device)}, torch {torch.__version__}, {arguments.threads} threads, load "
        f"{os.getloadavg()[0]:.1f}; bfloat16 by {support or 'no instructions'}, so that auto is {auto.dtype}"
    )
    for task in tasks.values():
        task.prepare()

    kept: dict[str, list[float]] = {}
    if arguments.out and arguments.out.exists():
        kept = json.loads(arguments.out.read_text())
    space = SearchSpace.spinenet49()
    table: dict[str, list[list[float]]] = {name: [] for name in FORMATS}
    for number in range(arguments.genotypes):
        genotype = sample_without_dead_blocks(space, generator(0, "number_formats", number))
        for name, task in tasks.items():
            key = f"{task.key} {genotype.text}"
            if key not in kept:
                result = task.evaluate(genotype, seed=seed_for(number, "number_formats"))
                if isinstance(result, Failure):
                    raise RuntimeError(f"{genotype.text}: {result.kind}: {result.message}")
                kept[key] = [result.objective, (result.train_seconds or 0.0) + (result.eval_seconds or 0.0)]
                if arguments.out:
                    arguments.out.write_text(json.dumps(kept, indent=1))
            table[name].append(kept[key])
    if arguments.genotypes:
        print("| format | AP of each genotype | mean AP | seconds of a training, median |\n|---|---|---|---|")
        for name, rows in table.items():
            aps, seconds = [row[0] for row in rows], [row[1] for row in rows]
            each = ", ".join(f"{ap:.4f}" for ap in aps)
            print(f"| {name} | {each} | {statistics.fmean(aps):.4f} | {statistics.median(seconds):.1f} |")

    steps: dict[str, list[float]] = {name: [] for name in FORMATS}
    whole: dict[str, list[float]] = {name: [] for name in FORMATS}
    for _ in range(arguments.rounds):
        for name, task in tasks.items():
            found = task.probe(SPINENET_49)
            steps[name].append(found.step_seconds)
            whole[name].append(found.trial_seconds)
    print("| format | seconds of a step of SpineNet-49 | seconds of a training, extrapolated |\n|---|---|---|")
    for name in FORMATS:
        print(f"| {name} | {statistics.median(steps[name]):.3f} | {statistics.median(whole[name]):.0f} |")
    ratio = statistics.median(b / f for b, f in zip(steps["bfloat16"], steps["float32"], strict=True))
    print(f"a step takes {ratio:.2f} times as long in bfloat16 as in float32")


if __name__ == "__main__":
    main()
