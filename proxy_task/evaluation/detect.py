"""Detection with a trained network on cached images: decoding and exact greedy NMS.

It follows tensorflow/tpu `postprocess_ops.py` with one difference: the candidates for NMS are the best of all classes
together, not the best of each class. Detections are the same as long as NMS keeps max_detections of them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinenas.proxy_task.config import EvalConfig
from spinenas.proxy_task.data.images.labelled_images import LabelledImages
from spinenas.proxy_task.detector.boxes import decode, xywh_from_yxyx
from spinenas.proxy_task.detector.nms import greedy_nms
from spinenas.proxy_task.detector.retinanet import RetinaNet
from spinenas.proxy_task.evaluation.detections import CanvasDetections
from spinenas.proxy_task.training.batches import eval_batch
from spinenas.proxy_task.training.device import autocast
from spinenas.proxy_task.training.train import Diverged


def postprocess(
    logits: Tensor, deltas: Tensor, anchors_yxyx: Tensor, limits: Tensor, config: EvalConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Turn predictions into detections, with fixed shapes.

    Args:
        logits: (B, A, C) class logits; channel 0 is ignored.
        deltas: (B, A, 4).
        anchors_yxyx: (A, 4).
        limits: (B, 2) height and width to which boxes are clipped.
        config: thresholds and decoding; plus_one_decoding of None counts as False.

    Returns:
        Boxes yxyx (B, M, 4), scores (B, M), class channels (B, M), and valid (B, M); M = max_detections.
    """
    batch, _, channels = logits.shape
    scores = logits[..., 1:].sigmoid().reshape(batch, -1)
    top_scores, top = scores.topk(min(config.pre_nms_top, scores.shape[1]), dim=1)
    top_scores = torch.where(top_scores > config.score_threshold, top_scores, 0)
    anchor, classes = top // (channels - 1), top % (channels - 1) + 1
    deltas = deltas.gather(1, anchor[..., None].expand(-1, -1, 4))
    boxes = decode(deltas, anchors_yxyx[anchor], plus_one=bool(config.plus_one_decoding))
    # In the "+1 pixel" convention, the last pixel of a row of n is n - 1.
    limits = limits - 1 if config.plus_one_decoding else limits
    boxes = torch.minimum(boxes.clamp(min=0), limits.repeat(1, 2)[:, None])
    kept = greedy_nms(boxes, top_scores, classes, iou_threshold=config.nms_iou, max_detections=config.max_detections)
    valid = kept >= 0
    index = kept.clamp(min=0)
    return (
        boxes.gather(1, index[..., None].expand(-1, -1, 4)),
        top_scores.gather(1, index),
        classes.gather(1, index),
        valid,
    )


@torch.no_grad()
def detect(
    network: RetinaNet,
    data: LabelledImages,
    rows: NDArray[np.int64],
    *,
    device: torch.device,
    config: EvalConfig,
    dtype: str,
) -> CanvasDetections:
    """Run the network in evaluation mode on these rows, and restore its mode afterwards.

    Raises:
        Diverged: if a prediction is not a finite number.
    """
    size = data.images.shape[1]
    anchors = network.anchors((size, size)).to(device)
    was_training = network.training
    network.eval()
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]] = []
    for start in range(0, len(rows), config.batch_size):
        chosen = rows[start : start + config.batch_size]
        images, contents = eval_batch(data, chosen, device)
        # Compiled programs are for training alone.
        with autocast(device, dtype), torch.compiler.set_stance("force_eager"):
            logits, deltas = network(images)
        if not (torch.isfinite(logits).all() and torch.isfinite(deltas).all()):
            raise Diverged("the trained network predicts numbers that are not finite")
        boxes, scores, classes, valid = (
            x.cpu() for x in postprocess(logits, deltas, anchors, contents.float(), config)
        )
        image = torch.from_numpy(chosen)[:, None].expand_as(valid)
        found.append(
            (
                image[valid].numpy(),
                classes[valid].numpy(),
                xywh_from_yxyx(boxes[valid]).double().numpy(),
                scores[valid].double().numpy(),
            )
        )
    network.train(was_training)
    return CanvasDetections(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
