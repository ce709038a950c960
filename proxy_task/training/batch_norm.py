"""Estimates the batch-norm statistics for evaluation from large batches of training images.

A small batch of small images has only a few values per channel in the coarsest blocks: eight at level 7, at 128 px and
batch size 8. Statistics of such batches differ much from their running averages, and the difference grows from block to
block. Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm" (arXiv 2105.07576), section 3.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spinenas.proxy_task.data.images.labelled_images import LabelledImages
from spinenas.proxy_task.training.batches import eval_batch
from spinenas.proxy_task.training.device import autocast

BATCH_IMAGES = 128
"""Images in one batch of the estimate."""


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
    """Replace running averages by the mean statistics of batches of images without augmentation.

    Args:
        network: changed in place; its mode stays as it was.
        data, rows: the training images; the estimate uses evenly spaced ones of these rows.
        num_images: the most images to use.
        device, dtype: as in training.
    """
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    was_training = network.training
    network.eval()  # so that no branch is dropped; the norms themselves train
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch then takes the plain mean of all batches
        norm.train()
    chosen = rows[np.linspace(0, len(rows) - 1, min(num_images, len(rows))).round().astype(np.int64)]
    for batch in np.array_split(chosen, -(-len(chosen) // BATCH_IMAGES)):
        images, _ = eval_batch(data, batch, device)
        with autocast(device, dtype), torch.compiler.set_stance("force_eager"):
            network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train(was_training)
