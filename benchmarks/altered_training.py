"""A training of a task with altered parts: other start weights, order of images, length or learning rate.

It also measures the mean of the weights over an epoch beside the weights after it. The trainings of a search have none
of these options.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from spinenas.proxy_task.detector.retinanet import RetinaNet
from spinenas.proxy_task.task import ProxyTask
from spinenas.proxy_task.training.batch_norm import estimate_batch_norms
from spinenas.proxy_task.training.device import use_threads
from spinenas.proxy_task.training.train import TrainState, train_detector
from spinenas.proxy_task.trial import build_detector, defined_ap, detect_objects
from spinenas.space import Genotype
from spinenas.space.dialect import DIALECTS


def trained(
    task: ProxyTask,
    genotype: Genotype,
    *,
    seed: int,
    order_seed: int | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    inherit: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None,
    measured_after: Iterable[int] = (),
    averages: bool = False,
) -> tuple[RetinaNet, dict[str, Any]]:
    """Train and return the network and figures: AP by epoch, AP of averaged weights, losses, seconds.

    Args:
        seed: draws the initial weights, and the order of images without an `order_seed`.
        order_seed: draws the order of images.
        epochs, learning_rate: None for those of the task. The schedule is that of a training of this length.
        inherit: returns the tensors that replace initial ones, by name, from the initial state dict.
        measured_after: epochs to measure AP after, besides the last. 0 measures before training.
        averages: measure the mean of the weights over each of these epochs as well.
    """
    setting, data = task.setting, task.data
    config = setting.config.with_dialect()
    fidelity = replace(task.fidelity, epochs=epochs or config.train.epochs)
    train = replace(config.train, epochs=fidelity.epochs, learning_rate=learning_rate or config.train.learning_rate)
    measured = {*measured_after, fidelity.epochs}
    rows = data.training_rows(fidelity.num_train_images)
    images = data.split("train", fidelity.image_size_pixels, setting.device)
    use_threads(setting.threads)
    network, _, _ = build_detector(setting, genotype, seed=seed, fidelity=fidelity)
    figures: dict[str, Any] = {"ap": {}, "averaged_ap": {}, "loss": [], "train_seconds": 0.0, "eval_seconds": 0.0}
    if inherit is not None:
        initial = network.state_dict()
        tensors = inherit(initial)
        network.load_state_dict(dict(tensors), strict=False)
        figures["inherited_share"] = _size(tensors.values()) / _size(initial.values())
    mean = _MeanWeights(network)

    def average_precision() -> float:
        started = time.perf_counter()
        if config.eval.bn_images:  # as in a trial
            estimate_batch_norms(
                network, images, rows, num_images=config.eval.bn_images, device=setting.device, dtype=train.dtype
            )
        found = detect_objects(setting, network, "reward", fidelity)
        ap = defined_ap(data.evaluator("reward").evaluate(found))
        figures["eval_seconds"] += time.perf_counter() - started
        return ap

    def after_epoch(state: TrainState, losses: dict[str, float]) -> None:
        figures["loss"].append(losses["loss"])
        if state.epoch in measured:
            figures["ap"][state.epoch] = average_precision()
            if averages:
                mean.exchange()
                figures["averaged_ap"][state.epoch] = average_precision()
                mean.exchange()
        mean.restart()

    if 0 in measured:
        figures["ap"][0] = average_precision()
    started, before = time.perf_counter(), figures["eval_seconds"]
    hook = register_optimizer_step_post_hook(lambda *_: mean.add()) if averages else None
    try:
        train_detector(
            network,
            images,
            rows,
            seed=seed if order_seed is None else order_seed,
            device=setting.device,
            train=train,
            loss=config.loss,
            decay_depthwise=DIALECTS[config.dialect].decay_depthwise,
            after_epoch=after_epoch,
        )
    finally:
        if hook is not None:
            hook.remove()
    figures["train_seconds"] = time.perf_counter() - started - (figures["eval_seconds"] - before)
    return network, figures


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


class _MeanWeights:
    """Running mean of a network's parameters."""

    def __init__(self, network: RetinaNet):
        self._parameters = list(network.parameters())
        self.restart()

    def restart(self) -> None:
        self._num_steps = 0

    @torch.no_grad()
    def add(self) -> None:
        self._num_steps += 1
        if self._num_steps == 1:
            self._means = [parameter.clone() for parameter in self._parameters]
        else:
            torch._foreach_lerp_(self._means, self._parameters, 1 / self._num_steps)

    @torch.no_grad()
    def exchange(self) -> None:
        """Put the mean into the network, and what was there in its place."""
        for parameter, mean in zip(self._parameters, self._means, strict=True):
            kept = parameter.clone()
            parameter.copy_(mean)
            mean.copy_(kept)


def read_results(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the results that an earlier call appended."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def append_result(path: Path, result: dict[str, Any]) -> None:
    """Append a result as one line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")
    print(json.dumps(result), flush=True)
