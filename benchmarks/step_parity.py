"""Print the difference of loss and gradient between the proxy task's training step and straightforward code.

    python benchmarks/step_parity.py quickstart
    python benchmarks/step_parity.py coco-small --data FOLDER

Both use the same weights and the same images without augmentation. The proxy task makes batches of fixed shapes, for a
CPU and for an accelerator; `plain_training.py` works image by image. Differences are relative: of the losses, and of
the gradients of all weights as one vector. Rounding alone changes the gradient of a ReLU network by far more than one
part in 1e5, so each format is also compared with the straightforward step in float64.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from benchmark_task import add_task_options, chosen_task
from plain_training import PlainTraining
from torch import Tensor

from spinenas.proxy_task.detector.losses import detection_loss
from spinenas.proxy_task.detector.retinanet import RetinaNet, build_retinanet
from spinenas.proxy_task.task import ProxyTask
from spinenas.proxy_task.training.batches import cpu_batch, device_batch, draw_raw_batch
from spinenas.proxy_task.training.device import autocast
from spinenas.space import SearchSpace, sample_without_dead_blocks
from spinenas.space.baseline import Architecture
from spinenas.space.published import SPINENET_49
from spinenas.space.random_streams import generator

CPU = torch.device("cpu")

Way = Literal["plain", "cpu", "accelerator"]


@dataclass(frozen=True, slots=True)
class Step:
    """Loss (), and the gradient of all weights as one vector, float64."""

    loss: Tensor
    gradient: Tensor

    def difference(self, other: Step) -> tuple[float, float]:
        """Return the relative differences of loss and gradient from another step."""
        loss = float((self.loss - other.loss).abs() / other.loss.abs())
        return loss, float((self.gradient - other.gradient).norm() / other.gradient.norm())


def step(task: ProxyTask, architecture: Architecture, way: Way, dtype: str, memory_format: torch.memory_format) -> Step:
    """Return loss and gradient of the first batch of unchanged images, with weights drawn from seed 0."""
    config = task.config.with_dialect()
    data = task.data.split("train", config.image_size_pixels, CPU)
    rows = task.data.train_rows[: config.train.batch_size]
    network = build_retinanet(
        architecture,
        config.scaling,
        config.head,
        class_channels=task.class_channels,
        dialect=config.dialect,
        activation=config.train.activation,
    )
    network.to(memory_format=memory_format)  # type: ignore[call-overload]
    number_format = torch.float64 if dtype == "float64" else torch.float32
    network.to(number_format)
    plain = PlainTraining(network, task.data.train, config, CPU)
    plain.anchors = plain.anchors.to(number_format)
    still = replace(config.train, flip=False, scale_jitter=(1.0, 1.0))
    rng = generator(0, "step_parity")
    if way == "accelerator":  # its code, which a CPU runs here
        batch = device_batch(draw_raw_batch(data, rows, rng, still, CPU), plain.anchors, still)
    else:
        batch = cpu_batch(data, rows, rng, plain.anchors, still)
    images, classes, box_targets = batch
    with autocast(CPU, "float32" if dtype == "float64" else dtype):
        logits, deltas = network(images.to(number_format).contiguous(memory_format=memory_format))
    if way == "plain":
        objects = [data.objects(row) for row in rows]
        loss = plain.loss(
            logits,
            deltas,
            [torch.from_numpy(boxes).float().to(number_format) for boxes, _ in objects],
            [torch.from_numpy(np.array(labels)) for _, labels in objects],
        )
    else:
        loss, _, _ = detection_loss(
            logits,
            deltas,
            classes,
            box_targets.to(number_format),
            alpha=config.loss.focal_alpha,
            gamma=config.loss.focal_gamma,
            delta=config.loss.huber_delta,
            box_weight=config.loss.box_weight,
            mask_zero_targets=bool(config.loss.mask_zero_targets),
        )
    return Step(loss.detach().double(), _gradient(network, loss))


def _gradient(network: RetinaNet, loss: Tensor) -> Tensor:
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [parameter.grad for parameter in network.parameters()]
    return torch.cat([gradient.double().flatten() for gradient in gradients if gradient is not None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_task_options(parser)
    parser.add_argument("--genotypes", type=int, default=4, help="number of random genotypes besides SpineNet-49")
    arguments = parser.parse_args()
    config = chosen_task(arguments)
    task = ProxyTask(config, device="cpu")
    task.prepare()
    space = SearchSpace.spinenet49()
    drawn = [sample_without_dead_blocks(space, generator(0, "step_parity", n)) for n in range(arguments.genotypes)]
    rows: list[tuple[Way, str, torch.memory_format]] = [
        ("plain", "float32", torch.contiguous_format),
        ("cpu", "float32", torch.contiguous_format),
        ("accelerator", "float32", torch.contiguous_format),
        ("cpu", "float32", torch.channels_last),
        ("cpu", "bfloat16", torch.channels_last),
        ("cpu", "float64", torch.channels_last),
    ]
    references = {
        (architecture, dtype): step(task, architecture, "plain", dtype, torch.contiguous_format)
        for architecture in (SPINENET_49, *drawn)
        for dtype in ("float32", "float64")
    }
    print(
        "| step | format | layout | loss, from plain float32 | gradient | loss, from plain float64 | gradient |\n"
        "|---|---|---|---|---|---|---|"
    )
    for way, dtype, memory_format in rows:
        largest = np.zeros(4)
        for architecture in (SPINENET_49, *drawn):
            found = step(task, architecture, way, dtype, memory_format)
            distances = [found.difference(references[architecture, name]) for name in ("float32", "float64")]
            largest = np.maximum(largest, np.ravel(distances))
        layout = "NHWC" if memory_format == torch.channels_last else "NCHW"
        print(f"| {way} | {dtype} | {layout} | {' | '.join(f'{value:.1e}' for value in largest)} |")


if __name__ == "__main__":
    main()
