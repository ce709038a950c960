"""Print how fast a trial of the proxy task is, compared with straightforward code, and where its time goes.

    python benchmarks/proxy_speed.py quickstart
    python benchmarks/proxy_speed.py coco-small --data FOLDER --epochs 8 --json speed.json

The script runs one whole trial of SpineNet-49 and times its parts; the rest is the time outside all parts. Then blocks
of our training steps alternate with those of `plain_training.py`, with the same network and batch. Evaluations of the
trained weights on the reward images alternate too. Everything, including the worker of the DataLoader, runs on as many
cores as threads, as in a search with one worker per core. Ratios are medians over neighbouring pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from benchmark_task import add_task_options, chosen_task
from plain_training import PlainTraining, as_coco
from step_parity import step
from torch import nn

import spinenas.proxy_task.trial as trial_module
from spinenas.proxy_task.detector.retinanet import RetinaNet, build_retinanet
from spinenas.proxy_task.evaluation import detect
from spinenas.proxy_task.evaluation.coco_metrics import CocoEvaluator
from spinenas.proxy_task.task import ProxyTask
from spinenas.proxy_task.training import batches, train
from spinenas.results.record import Failure
from spinenas.space.dialect import DIALECTS
from spinenas.space.published import SPINENET_49
from spinenas.space.random_streams import generator

PARTS: list[tuple[Any, str, str]] = [
    (batches, "cpu_batch", "data"),
    (batches, "device_batch", "data"),
    (batches, "anchor_targets", "targets"),
    (train, "detection_loss", "losses"),
    (torch.Tensor, "backward", "backward"),
    (nn.utils, "clip_grad_norm_", "optimiser"),
    (torch.optim.AdamW, "step", "optimiser"),
    (torch.optim.SGD, "step", "optimiser"),
    (torch.optim.Optimizer, "zero_grad", "optimiser"),
    (detect, "eval_batch", "evaluation: data"),
    (detect, "postprocess", "evaluation: NMS"),
    (CocoEvaluator, "evaluate", "evaluation: metrics"),
]
"""Module, function, and part of a trial, for each function to time."""

FORWARD = ("forward", "backward", "evaluation: forward")
"""Parts that every implementation needs."""


class Stopwatch:
    """Seconds by part; time in a nested part counts for the nested part only."""

    def __init__(self, device: torch.device):
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._device = device
        self._inner = [0.0]

    def now(self) -> float:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        return time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = self.now()
        self._inner.append(0.0)
        yield
        seconds = self.now() - started
        self.seconds[name] += seconds - self._inner.pop()
        self._inner[-1] += seconds

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time the parts of the trial that runs inside the block."""

        def timed(function: Callable[..., Any], name: str) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                with self.part(name):
                    return function(*arguments, **options)

            return call

        def forward(network: RetinaNet, images: torch.Tensor) -> Any:
            with self.part("forward" if network.training else "evaluation: forward"):
                return plain_forward(network, images)

        plain_forward = RetinaNet.forward
        with ExitStack() as stack:
            stack.enter_context(patch.object(RetinaNet, "forward", forward))
            for owner, name, part in PARTS:
                stack.enter_context(patch.object(owner, name, timed(getattr(owner, name), part)))
            yield


def seconds_of(stopwatch: Stopwatch, do: Callable[[], object]) -> float:
    started = stopwatch.now()
    do()
    return stopwatch.now() - started


def alternated(
    stopwatch: Stopwatch, ours: Callable[[], object], plain: Callable[[], object], repeats: int
) -> tuple[list[float], list[float]]:
    """Return the seconds of each function, called in turns, after a first turn that does not count."""
    pairs = [(seconds_of(stopwatch, ours), seconds_of(stopwatch, plain)) for _ in range(repeats + 1)][1:]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def quartiles(values: list[float]) -> list[float]:
    return [float(value) for value in np.quantile(values, [0.25, 0.5, 0.75])]


def measured(task: ProxyTask, epochs: int, *, steps: int, blocks: int, evaluations: int) -> dict[str, Any]:
    """Run a trial and the comparison, and return all figures."""
    config, device = task.config.with_dialect(), task.torch_device
    stopwatch = Stopwatch(device)
    task.prepare()
    data = task.data.split("train", config.image_size_pixels, device)
    train_rows, reward_rows = task.data.train_rows, task.data.reward_rows
    built: list[RetinaNet] = []
    build = trial_module.build_detector

    def remember(*arguments: Any, **options: Any) -> Any:
        network, spec, cost = build(*arguments, **options)
        built.append(network)
        return network, spec, cost

    def trial() -> None:
        result = task.evaluate(SPINENET_49, seed=7, fidelity=replace(task.fidelity, epochs=epochs))
        if isinstance(result, Failure):
            raise RuntimeError(result.traceback)

    task.data.evaluator("reward")  # read once for all trials, like the images
    task.probe(SPINENET_49)  # torch loads some of its parts on first use, once per worker
    with patch.object(trial_module, "build_detector", remember), stopwatch.watching():
        trial_seconds = seconds_of(stopwatch, trial)
    shares = {
        name: seconds / trial_seconds for name, seconds in sorted(stopwatch.seconds.items(), key=lambda part: -part[1])
    }
    shares["overhead"] = 1 - sum(shares.values())
    network = built[0]

    twin = build_retinanet(
        SPINENET_49,
        config.scaling,
        config.head,
        class_channels=task.class_channels,
        dialect=config.dialect,
        activation=config.train.activation,
        bn_eps=config.train.bn_eps,
        stochastic_depth=config.train.stochastic_depth,
    )
    twin.load_state_dict(network.state_dict())
    plain = PlainTraining(twin.to(device), data.annotations, config, device)
    truth = as_coco(data.annotations.subset(reward_rows))
    refuse_another_loss(task)

    def reward_ap() -> float:
        found = trial_module.detect_objects(task.setting, network, "reward", task.fidelity)
        return trial_module.defined_ap(task.data.evaluator("reward").evaluate(found))

    # Evaluations first, because the steps change the trained weights.
    scores: dict[str, float] = {}
    eval_ours, eval_plain = alternated(
        stopwatch,
        lambda: scores.update(ours=reward_ap()),
        lambda: scores.update(plain=plain.average_precision(reward_rows, truth)),
        evaluations,
    )
    images = steps * config.train.batch_size
    rng = generator(0, "proxy_speed")

    def rows_of_a_block() -> Any:
        return np.resize(rng.permutation(train_rows), images)

    def train_ours() -> None:
        train.train_detector(
            network,
            data,
            rows_of_a_block(),
            seed=0,
            device=device,
            train=replace(config.train, epochs=1),
            loss=config.loss,
            decay_depthwise=DIALECTS[config.dialect].decay_depthwise,
            after_epoch=lambda state, figures: None,
        )

    train_seconds_ours, train_seconds_plain = alternated(
        stopwatch, train_ours, lambda: plain.train(rows_of_a_block()), blocks
    )

    full, every = task.fidelity.epochs, config.eval.every_epochs
    num_images = full * train.steps_per_epoch(len(train_rows), config.train.batch_size) * config.train.batch_size
    num_evaluations = 1 + ((full - 1) // every if every else 0)

    def hourly(block_seconds: float, eval_seconds: float) -> float:
        return 3600 / (num_images * block_seconds / images + num_evaluations * eval_seconds)

    pairs = list(zip(train_seconds_ours, train_seconds_plain, strict=True))
    ours_hourly, plain_hourly = (
        hourly(statistics.median(block), statistics.median(evaluation))
        for block, evaluation in ((train_seconds_ours, eval_ours), (train_seconds_plain, eval_plain))
    )
    return {
        "images_per_second": {
            "ours": quartiles([images / ours for ours, _ in pairs]),
            "plain": quartiles([images / other for _, other in pairs]),
            "ratio": quartiles([other / ours for ours, other in pairs]),
        },
        "evaluation_seconds": {
            "ours": quartiles(eval_ours),
            "plain": quartiles(eval_plain),
            "ratio": quartiles([other / ours for ours, other in zip(eval_ours, eval_plain, strict=True)]),
        },
        "trials_per_hour": {"ours": ours_hourly, "plain": plain_hourly, "ratio": ours_hourly / plain_hourly},
        "trial": {"epochs": epochs, "seconds": trial_seconds, "shares": shares},
        "forward_and_backward": sum(shares.get(name, 0.0) for name in FORWARD),
        "AP of the same weights": scores,
    }


def refuse_another_loss(task: ProxyTask) -> None:
    """Raise an error if the two implementations compute different results."""
    plain, ours = (step(task, SPINENET_49, way, "float32", torch.contiguous_format) for way in ("plain", "cpu"))
    assert max(ours.difference(plain)) < 1e-4, "the two ways compute different losses"


def table(figures: dict[str, Any]) -> str:
    """Return the figures as two Markdown tables."""
    lines = ["| | ours | plain | ratio (quartiles) |", "|---|---|---|---|"]
    for name, key in (("training, images/s", "images_per_second"), ("an evaluation, s", "evaluation_seconds")):
        row = figures[key]
        low, ratio, high = row["ratio"]
        lines.append(
            f"| {name} | {row['ours'][1]:.2f} | {row['plain'][1]:.2f} | {ratio:.2f} ({low:.2f} to {high:.2f}) |"
        )
    hourly = figures["trials_per_hour"]
    lines.append(f"| trials per hour | {hourly['ours']:.1f} | {hourly['plain']:.1f} | {hourly['ratio']:.2f} |")
    lines += ["", "| part of a trial | share |", "|---|---|"]
    lines += [f"| {name} | {share:.1%} |" for name, share in figures["trial"]["shares"].items()]
    lines.append(f"| forward and backward together | {figures['forward_and_backward']:.1%} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_task_options(parser)
    parser.add_argument("--epochs", type=int, help="of the trial whose parts are timed; the preset's by default")
    parser.add_argument("--steps", type=int, default=16, help="in a block")
    parser.add_argument("--blocks", type=int, default=9, help="pairs of blocks")
    parser.add_argument("--evaluations", type=int, default=3, help="pairs of evaluations")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    config = chosen_task(arguments)
    if hasattr(os, "sched_setaffinity"):  # on Linux
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-arguments.threads :])
    torch.set_num_threads(arguments.threads)
    load = os.getloadavg()[0]
    task = ProxyTask(config, device=arguments.device, threads=arguments.threads)
    figures = {
        "preset": arguments.preset,
        "date": str(datetime.now().date()),
        "platform": platform.platform(),
        "torch": version("torch"),
        "device": task.device,
        "threads": arguments.threads,
        **measured(
            task,
            arguments.epochs or task.fidelity.epochs,
            steps=arguments.steps,
            blocks=arguments.blocks,
            evaluations=arguments.evaluations,
        ),
        "load": [load, os.getloadavg()[0]],
    }
    print(
        f"{arguments.preset}, {figures['platform']}, torch {figures['torch']}, {task.device}, "
        f"{arguments.threads} threads, load {load:.1f} to {os.getloadavg()[0]:.1f}, {figures['date']}"
    )
    print(table(figures))
    print(f"AP of the same weights: {figures['AP of the same weights']}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
