"""Statistics of batch norms for evaluation, estimated anew from large batches of training images.

A small batch at a small size leaves a handful of values for each channel of the coarsest blocks: at 128 px and batch 8,
level 7 has eight. What they are normalised by in training is then far from what running averages say, more so with
every such block on the way. Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm" (arXiv 2105.07576), section 3.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spinenas.proxy_task.data.labelled_images import LabelledImages
from spinenas.proxy_task.training.batches import eval_batch
from spinenas.proxy_task.training.device import autocast

BATCH_IMAGES = 128
"""At once; as many as statistics are wanted of, if those are fewer."""


@torch.no_grad()
def estimate_batch_norms(
    network: nn.Module,
    data: LabelledImages,
    rows: NDArray[np.int64],
    *,
    num_images: int,
    device: torch.device,
    dtype: str,
) -> None:
    """Replace running averages by the mean statistics of batches of images as evaluation shows them.

    Args:
        network: in place; its mode is as before afterwards.
        data, rows: the training images; evenly spaced ones of these rows are taken.
        num_images: how many, at most.
        device, dtype: as in training.
    """
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    was_training = network.training
    network.eval()  # but for the norms: no branch is dropped
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches
        norm.train()
    chosen = rows[np.linspace(0, len(rows) - 1, min(num_images, len(rows))).round().astype(np.int64)]
    for batch in np.array_split(chosen, -(-len(chosen) // BATCH_IMAGES)):
        images, _ = eval_batch(data, batch, device)
        with autocast(device, dtype), torch.compiler.set_stance("force_eager"):
            network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train(was_training)
