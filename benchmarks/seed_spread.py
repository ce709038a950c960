"""Print how well a preset's task separates architectures: trains random genotypes with several seeds.

    python benchmarks/seed_spread.py quickstart
    python benchmarks/seed_spread.py coco-small --data FOLDER --run RUN --genotypes 6

Genotypes are drawn uniformly among those without dead blocks. With --run they are the first genotypes of a search,
whose trainings are reused. Finished trainings are kept in --out, and a second call continues there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from benchmark_task import add_task_options, chosen_task

from spinenas.proxy_task.config import TaskConfig
from spinenas.proxy_task.task import ProxyTask
from spinenas.results.record import Failure
from spinenas.results.stats.intraclass_correlation import intraclass_correlation
from spinenas.search.run.driver import trial_seed
from spinenas.search.run.run import Run
from spinenas.space import Genotype, SearchSpace, sample_without_dead_blocks
from spinenas.space.random_streams import generator, seed_for

_task: ProxyTask


def open_task(config: TaskConfig) -> None:
    """Open the data once per worker."""
    global _task
    _task = ProxyTask(config)
    _task.prepare()


def train(text: str, seed: int) -> tuple[float, float]:
    """Return the AP and the seconds of one run."""
    started = time.perf_counter()
    result = _task.evaluate(Genotype.from_text(text), seed=seed)
    if isinstance(result, Failure):
        raise RuntimeError(f"{text}: {result.kind}: {result.message}")
    return result.objective, time.perf_counter() - started


def describe(rows: list[list[float]], what: str) -> None:
    """Print one line of the result."""
    icc = intraclass_correlation(rows)
    print(
        f"{what}: intraclass correlation {icc.value:.3f} (95 % {icc.lower:.3f} to {icc.upper:.3f}), "
        f"sd between genotypes {icc.between_std:.4f}, between seeds {icc.within_std:.4f}"
    )


def genotypes_of(
    folder: Path, num_genotypes: int, num_seeds: int, runs: dict[str, list[float]]
) -> tuple[list[str], list[list[int]]]:
    """Return the first genotypes of a search and the seeds of their replicates; add its trainings to `runs`."""
    run = Run.open(folder)
    run_seed = run.folder.config()["seed"]
    records = run.records()
    firsts = [record for record in records if record.replicate == 0 and record.evaluation][:num_genotypes]
    texts, seeds = [], []
    for first in firsts:
        assert first.genotype is not None
        if first.task_key != _task.key:
            sys.exit(f"{folder} is a search of another task; give the preset and the data it was made with")
        texts.append(first.genotype.text)
        seeds.append([trial_seed(run_seed, first.network_key, number) for number in range(num_seeds)])
        for record in records:
            evaluation = record.evaluation
            if record.network_key == first.network_key and evaluation and record.replicate < num_seeds:
                seconds = (evaluation.train_seconds or 0.0) + (evaluation.eval_seconds or 0.0)
                runs[f"{record.replicate} {first.genotype.text}"] = [evaluation.objective, seconds]
    return texts, seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_task_options(parser)
    parser.add_argument("--run", type=Path, help="a finished search of the same task, whose first genotypes are taken")
    parser.add_argument("--genotypes", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--out", type=Path, help="file of the finished trainings (default: runs/seed-spread-PRESET.json)"
    )
    arguments = parser.parse_args()
    config = chosen_task(arguments)
    open_task(config)
    out = arguments.out or Path("runs") / f"seed-spread-{arguments.preset}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    document = json.loads(out.read_text()) if out.exists() else {"task_key": _task.key, "runs": {}}
    if document["task_key"] != _task.key:
        sys.exit(f"{out} holds runs of another task; delete it or give another --out")
    runs: dict[str, list[float]] = document["runs"]

    if arguments.run:
        texts, seeds = genotypes_of(arguments.run, arguments.genotypes, arguments.seeds, runs)
    else:
        space = SearchSpace.spinenet49()
        drawn = [
            sample_without_dead_blocks(space, generator(0, "seed_spread", number))
            for number in range(arguments.genotypes)
        ]
        texts = [genotype.text for genotype in drawn]
        seeds = [[seed_for(number, "seed_spread") for number in range(arguments.seeds)] for _ in texts]
    keys = [[f"{number} {text}" for number in range(arguments.seeds)] for text in texts]
    waiting = [
        (text, seeds[row][number], keys[row][number])
        for number in range(arguments.seeds)
        for row, text in enumerate(texts)
        if keys[row][number] not in runs
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, context, initializer=open_task, initargs=(config,)) as pool:
        futures = {pool.submit(train, text, seed): key for text, seed, key in waiting}
        for done, future in enumerate(as_completed(futures), start=1):
            key = futures[future]
            runs[key] = list(future.result())
            out.write_text(json.dumps(document, indent=1))
            print(f"{done}/{len(waiting)} AP {runs[key][0]:.4f} seed {key}", file=sys.stderr)

    table = [[runs[key][0] for key in row] for row in keys]
    for text, row in sorted(zip(texts, table, strict=True), key=lambda pair: -float(np.mean(pair[1]))):
        print(f"{np.mean(row):.4f}  " + " ".join(f"{ap:.4f}" for ap in row) + f"  {text}")
    seconds = [runs[key][1] for row in keys for key in row]
    print(f"{len(texts)} genotypes x {arguments.seeds} seeds, median {np.median(seconds):.0f} s per run")
    describe(table, "all")
    best = max(range(len(table)), key=lambda row: float(np.mean(table[row])))
    describe(table[:best] + table[best + 1 :], "without the best")


if __name__ == "__main__":
    main()
