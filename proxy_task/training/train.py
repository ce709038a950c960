"""Training of one detector: optimiser, schedule and epoch loop. It reads and writes no files.

The seed is the only source of randomness. The same seed trains the same weights on the same device type, software
versions and number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spinenas.proxy_task.config import LossConfig, TrainConfig
from spinenas.proxy_task.data.images.labelled_images import LabelledImages
from spinenas.proxy_task.detector.losses import detection_loss
from spinenas.proxy_task.detector.retinanet import RetinaNet
from spinenas.proxy_task.training.batches import batches
from spinenas.proxy_task.training.compilation import compile_network, maybe_compiled
from spinenas.proxy_task.training.device import autocast
from spinenas.space.network.layers import StochasticDepth
from spinenas.space.random_streams import generator, seed_for


class Diverged(Exception):
    """The loss is not finite, or so large that the training cannot recover."""


MAX_LOSS = 1e6
"""Loss of a step above which a training has diverged.

A healthy training starts at 1 to 10, or at some thousands if a large batch shows no object. The limit is the same in
every epoch, so that a resumed training ends where an uninterrupted one would.
"""

CHECK_EVERY = 16
"""Steps between two checks of the loss on an accelerator, which has to wait for each; a CPU checks every step."""


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Return the number of whole batches in an epoch; remaining images occur in other epochs' shuffles."""
    return max(1, num_images // batch_size)


def learning_rate_at(step: int, num_steps: int, config: TrainConfig) -> float:
    """Return the learning rate of a step: linear warm-up from a tenth, then cosine to zero or steps of 0.1."""
    warmup = config.warmup_steps if config.warmup_steps >= 1 else config.warmup_steps * num_steps
    warmup = min(warmup, num_steps / 2)
    if step < warmup:
        return config.learning_rate * (0.1 + 0.9 * step / warmup)
    if config.schedule == "cosine":
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (num_steps - warmup)))
    return config.learning_rate * 0.1 ** sum(step >= share * num_steps for share in config.step_at)


def bn_momentum_for(num_steps: int, config: TrainConfig) -> float:
    """Return the weight of a batch in the running statistics: the configured one, or one that suits the length.

    The published 0.003 would leave 22 % of the initial statistics after 500 steps. 20 / steps leaves less than a
    millionth at the end of any training, and averages over its last twentieth.
    """
    if config.bn_momentum is not None:
        return config.bn_momentum
    return min(0.2, max(0.003, 20 / num_steps))


def make_optimizer(network: nn.Module, config: TrainConfig, *, decay_depthwise: bool = True) -> torch.optim.Optimizer:
    """Return SGD with momentum 0.9, or AdamW, with weight decay on convolution kernels alone (tensorflow/tpu).

    Args:
        decay_depthwise: whether depthwise kernels decay too.
    """
    without_decay = set()
    if not decay_depthwise:
        convs = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
        without_decay = {id(layer.weight) for layer in convs if layer.groups > 1}
    kernels: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in network.parameters():
        (kernels if parameter.ndim == 4 and id(parameter) not in without_decay else others).append(parameter)
    groups = [
        {"params": kernels, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9, fused=True)
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


@dataclass(frozen=True, slots=True, eq=False)
class TrainState:
    """State of a training after an epoch. With the arguments of the call, it determines the remaining epochs.

    Attributes:
        epoch: the epoch, from 1.
        network: tensors of the network's state dict.
        optimizer: tensors by "state/parameter", such as "exp_avg/backbone.stem.conv.weight".
    """

    epoch: int
    network: dict[str, Tensor]
    optimizer: dict[str, Tensor]


AfterEpoch = Callable[[TrainState, dict[str, float]], None]
"""Called with the state, whose tensors the next epoch overwrites, and with mean losses and the last learning rate."""


def train_detector(
    network: RetinaNet,
    data: LabelledImages,
    rows: NDArray[np.int64],
    *,
    seed: int,
    device: torch.device,
    train: TrainConfig,
    loss: LossConfig,
    decay_depthwise: bool,
    after_epoch: AfterEpoch,
    start: TrainState | None = None,
    until: int | None = None,
) -> None:
    """Train a network in place.

    Args:
        network: on the device.
        data, rows: images, and the rows of those to train on.
        seed: determines order, augmentation and dropped branches.
        loss: a value of None counts as False.
        decay_depthwise: whether depthwise kernels decay too.
        after_epoch: called after each epoch.
        start: state of an earlier call after one of its epochs, to resume from; None for the beginning.
        until: the last epoch to train; None for all. The schedule is that of all epochs in either case.

    Raises:
        Diverged: if the loss of a step is not finite or above MAX_LOSS; at the latest CHECK_EVERY steps later.
    """
    size = data.images.shape[1]
    anchors = network.anchors((size, size)).to(device)
    optimizer = make_optimizer(network, train, decay_depthwise=decay_depthwise)
    parameters = list(network.parameters())  # collecting them takes longer than computing their norm
    compile_network(network, train.compile)
    losses = maybe_compiled(detection_loss, train.compile)
    num_batches = steps_per_epoch(len(rows), train.batch_size)
    num_steps = train.epochs * num_batches
    if start is not None:
        _restore(start, network, optimizer)
    last_epoch = train.epochs if until is None else min(until, train.epochs)
    for epoch in range(1 if start is None else start.epoch + 1, last_epoch + 1):
        network.train()
        rng = generator(seed, "epoch", epoch)
        _reseed_stochastic_depth(network, seed_for(seed, "stochastic-depth", epoch))
        order = rng.permutation(rows)
        sums = torch.zeros(3, device=device)
        largest_loss = torch.zeros((), device=device)
        rate = 0.0
        for batch, (images, classes, box_targets) in enumerate(batches(data, order, rng, anchors, train)):
            rate = learning_rate_at((epoch - 1) * num_batches + batch, num_steps, train)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with autocast(device, train.dtype):
                logits, deltas = network(images)
            total, class_part, box_part = losses(
                logits,
                deltas,
                classes,
                box_targets,
                alpha=loss.focal_alpha,
                gamma=loss.focal_gamma,
                delta=loss.huber_delta,
                box_weight=loss.box_weight,
                mask_zero_targets=bool(loss.mask_zero_targets),
            )
            optimizer.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            if train.gradient_clip_norm is not None:
                nn.utils.clip_grad_norm_(parameters, train.gradient_clip_norm)
            optimizer.step()
            sums += torch.stack([total.detach(), class_part.detach(), box_part.detach()])
            largest_loss = torch.maximum(largest_loss, total.detach().abs())  # NaN propagates through maximum
            if device.type == "cpu" or batch % CHECK_EVERY == 0 or batch == num_batches - 1:
                _check_loss(largest_loss, epoch, batch)
        mean_loss, mean_class, mean_box = (sums / num_batches).tolist()
        metrics = {"loss": mean_loss, "class_loss": mean_class, "box_loss": mean_box, "learning_rate": rate}
        after_epoch(state_of(epoch, network, optimizer), metrics)


def _check_loss(largest_loss: Tensor, epoch: int, batch: int) -> None:
    loss = largest_loss.item()
    if not loss <= MAX_LOSS:  # not `loss > MAX_LOSS`, which is False for NaN
        raise Diverged(f"the loss is {loss:.4g} in epoch {epoch}, step {batch + 1}")


def _reseed_stochastic_depth(network: nn.Module, seed: int) -> None:
    """Give each epoch its own random stream of dropped branches, so that it does not depend on earlier epochs."""
    for layer in network.modules():
        if isinstance(layer, StochasticDepth):
            layer.generator.manual_seed(seed)


def state_of(epoch: int, network: nn.Module, optimizer: torch.optim.Optimizer) -> TrainState:
    """Return the state after an epoch; its tensors are those of the network and the optimiser, not copies."""
    of_optimizer = {
        f"{key}/{name}": value
        for name, parameter in network.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }
    return TrainState(epoch, network.state_dict(), of_optimizer)


def _restore(state: TrainState, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Copy a state's tensors into a network and its new optimiser."""
    network.load_state_dict(state.network)
    parameters = dict(network.named_parameters())
    for name, value in state.optimizer.items():
        key, _, parameter_name = name.partition("/")
        parameter = parameters[parameter_name]
        # In the parameter's memory format: fused optimisers ignore strides.
        like = parameter if value.shape == parameter.shape else value
        optimizer.state[parameter][key] = torch.empty_like(like, device=parameter.device).copy_(value)
