"""Compare the AP of the fast proxy task with that of straightforward code, on the same genotypes.

    python benchmarks/equivalence.py quickstart
    python benchmarks/equivalence.py coco-small --data FOLDER --out equivalence.json

The genotypes are drawn uniformly among those without dead blocks. Each is trained with each seed by the proxy task and
by `plain_training.py`, from the same initial weights, each with its own order of images and augmentation. Finished
trainings are kept in --out, and a second call continues there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import combinations, product
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from benchmark_task import add_task_options, chosen_task
from numpy.typing import NDArray
from plain_training import PlainTraining, as_coco
from scipy.stats import kendalltau

from spinenas.proxy_task.config import TaskConfig
from spinenas.proxy_task.task import ProxyTask
from spinenas.proxy_task.training.train import learning_rate_at, steps_per_epoch
from spinenas.proxy_task.trial import build_detector
from spinenas.results.record import Failure
from spinenas.space import Genotype, SearchSpace, sample_without_dead_blocks
from spinenas.space.random_streams import generator, seed_for

Way = Literal["ours", "plain"]

WAYS: tuple[Way, ...] = ("ours", "plain")

_task: ProxyTask


def open_task(config: TaskConfig) -> None:
    """Open the data once per worker."""
    global _task
    _task = ProxyTask(config, device="cpu")
    _task.prepare()


def train(way: Way, text: str, seed: int) -> tuple[float, float]:
    """Return the AP and the seconds of one training."""
    started = time.perf_counter()
    genotype = Genotype.from_text(text)
    if way == "plain":
        return train_plainly(genotype, seed), time.perf_counter() - started
    result = _task.evaluate(genotype, seed=seed)
    if isinstance(result, Failure):
        raise RuntimeError(f"{text}: {result.kind}: {result.message}")
    return result.objective, time.perf_counter() - started


def train_plainly(genotype: Genotype, seed: int) -> float:
    """Train and evaluate with straightforward code instead of the task."""
    torch.set_num_threads(1)
    config = _task.config.with_dialect()
    data = _task.data
    rows, reward_rows = data.train_rows, data.reward_rows
    network, _, _ = build_detector(_task.setting, genotype, seed=seed, fidelity=_task.fidelity)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    plain = PlainTraining(network, data.train, config, torch.device("cpu"), seed=seed_for(seed, "plain"))
    batch, epochs = config.train.batch_size, config.train.epochs
    num_batches = steps_per_epoch(len(rows), batch)
    rng = generator(seed, "plain", "order")
    for epoch in range(epochs):
        steps = range(epoch * num_batches, (epoch + 1) * num_batches)
        rates = [learning_rate_at(step, epochs * num_batches, config.train) for step in steps]
        plain.train(rng.permutation(rows)[: num_batches * batch], rates)
    return plain.average_precision(reward_rows, as_coco(data.train.subset(reward_rows)))


def difference(ours: NDArray[np.float64], plain: NDArray[np.float64]) -> tuple[float, float, float]:
    """Relative difference of the mean APs of (genotypes, seeds), and its 95 % interval.

    The interval is a bootstrap over the trainings of each genotype and method, with fixed genotypes.
    """
    rng = generator(0, "equivalence", "bootstrap")

    def resampled(table: NDArray[np.float64]) -> NDArray[np.float64]:
        genotypes, seeds = table.shape
        picks = rng.integers(seeds, size=(10_000, genotypes, seeds))
        # The variance of a resample of n values is too small by (n - 1) / n, so deviations from the mean are scaled up.
        means = table.mean(axis=1, keepdims=True)
        stretched = means + (table - means) * np.sqrt(seeds / max(seeds - 1, 1))
        return np.take_along_axis(stretched[None], picks, axis=2).mean(axis=(1, 2))

    drawn = resampled(ours) / resampled(plain) - 1
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(ours.mean() / plain.mean() - 1), float(low), float(high)


def agreement(ours: NDArray[np.float64], plain: NDArray[np.float64]) -> dict[str, float]:
    """Return the mean Kendall correlation of single-seed rankings between and within the methods, and of mean APs."""
    seeds = range(ours.shape[1])

    def mean_tau(pairs: list[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> float:
        return float(np.mean([kendalltau(first, second).statistic for first, second in pairs])) if pairs else np.nan

    return {
        "ours with plain": mean_tau([(ours[:, i], plain[:, j]) for i, j in product(seeds, seeds) if i != j]),
        "ours with ours": mean_tau([(ours[:, i], ours[:, j]) for i, j in combinations(seeds, 2)]),
        "plain with plain": mean_tau([(plain[:, i], plain[:, j]) for i, j in combinations(seeds, 2)]),
        "means of ours with means of plain": mean_tau([(ours.mean(axis=1), plain.mean(axis=1))]),
    }


def report(tables: dict[Way, NDArray[np.float64]]) -> None:
    """Print the results."""
    ours, plain = tables["ours"], tables["plain"]
    print("| genotype | ours | mean | plain | mean |\n|---|---|---|---|---|")
    for number in range(len(ours)):
        cells = [f"{' '.join(f'{ap:.4f}' for ap in row[number])} | {row[number].mean():.4f}" for row in (ours, plain)]
        print(f"| {number} | {' | '.join(cells)} |")
    whole, low, high = difference(ours, plain)
    print(
        f"mean AP: ours {ours.mean():.4f}, plain {plain.mean():.4f}; ours is {whole:+.1%} ({low:+.1%} to {high:+.1%})"
    )
    for name, tau in agreement(ours, plain).items():
        print(f"Kendall's tau, {name}: {tau:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_task_options(parser)
    parser.add_argument("--genotypes", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="where trainings are kept (runs/equivalence-PRESET.json)")
    arguments = parser.parse_args()
    config = chosen_task(arguments)
    open_task(config)
    out = arguments.out or Path("runs") / f"equivalence-{arguments.preset}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    document = json.loads(out.read_text()) if out.exists() else {"task_key": _task.key, "runs": {}}
    if document["task_key"] != _task.key:
        sys.exit(f"{out} holds trainings of another task; delete it or give another --out")
    runs: dict[str, list[float]] = document["runs"]

    space = SearchSpace.spinenet49()
    texts = [
        sample_without_dead_blocks(space, generator(0, "equivalence", number)).text
        for number in range(arguments.genotypes)
    ]
    jobs = {
        f"{way} {seed} {number}": (way, text, seed_for(seed, "equivalence"))
        for seed in range(arguments.seeds)
        for number, text in enumerate(texts)
        for way in WAYS
    }
    waiting = {key: job for key, job in jobs.items() if key not in runs}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, context, initializer=open_task, initargs=(config,)) as pool:
        futures = {pool.submit(train, *job): key for key, job in waiting.items()}
        for done, future in enumerate(as_completed(futures), start=1):
            key = futures[future]
            runs[key] = list(future.result())
            out.write_text(json.dumps(document, indent=1) + "\n")
            print(f"{done}/{len(waiting)} {key}: AP {runs[key][0]:.4f}, {runs[key][1]:.0f} s", file=sys.stderr)

    report(
        {
            way: np.array(
                [[runs[f"{way} {seed} {number}"][0] for seed in range(arguments.seeds)] for number in range(len(texts))]
            )
            for way in WAYS
        }
    )


if __name__ == "__main__":
    main()
