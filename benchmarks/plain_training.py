"""Trains and evaluates a detector with straightforward code, for comparison with the proxy task.

Image files are decoded on demand by a DataLoader with a worker. The network runs in float32 and NCHW. Anchors are
matched image by image, losses and NMS follow the textbook, and pycocotools receives lists of dicts. Network, batches,
augmentation and mathematics are those of the proxy task.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Sampler

from spinenas.proxy_task.config import TaskConfig, TrainConfig
from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.detector.boxes import decode, encode, iou_yxyx, yxyx_from_xywh
from spinenas.proxy_task.detector.retinanet import RetinaNet
from spinenas.proxy_task.training.augment import MEAN_RGB, STD_RGB

Sample = tuple[Tensor, Tensor, Tensor, int]
"""Image (3, S, S), boxes yxyx (N, 4), labels (N,), row."""


class ImageFiles(Dataset[Sample]):
    """Images that are decoded, scaled, flipped, cropped or padded on access."""

    def __init__(self, annotations: Annotations, size: int, augmentation: TrainConfig | None, seed: int = 0):
        self.annotations, self.size, self.augmentation = annotations, size, augmentation
        self.rng = np.random.default_rng(seed)  # continues in the loader's worker

    def __getitem__(self, row: int) -> Sample:
        every, size = self.annotations, self.size
        start, end = every.box_offsets[row], every.box_offsets[row + 1]
        objects = ~every.iscrowd[start:end]
        boxes = yxyx_from_xywh(torch.tensor(every.boxes_xywh[start:end][objects])).float()
        labels = torch.tensor(every.labels[start:end][objects])
        image = Image.open(every.images_folder / every.file_names[row]).convert("RGB")
        scale = size / max(image.size)
        top = left = 0
        if self.augmentation:
            scale *= self.rng.uniform(*self.augmentation.scale_jitter)
            if self.augmentation.flip and self.rng.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                boxes[:, [1, 3]] = image.width - boxes[:, [3, 1]]
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        if self.augmentation:
            top = int(self.rng.integers(max(image.height - size, 0) + 1))
            left = int(self.rng.integers(max(image.width - size, 0) + 1))
        pixels = np.asarray(image)[top : top + size, left : left + size]
        canvas = np.zeros((size, size, 3), dtype=np.float32)
        canvas[: pixels.shape[0], : pixels.shape[1]] = (pixels / np.float32(255) - MEAN_RGB) / STD_RGB
        height, width, _ = pixels.shape
        boxes = boxes * scale - torch.tensor([top, left, top, left])
        boxes = torch.minimum(boxes.clamp(min=0), torch.tensor([height, width, height, width]))
        inside = ((boxes[:, 2:] - boxes[:, :2]) > 1).all(dim=1)
        return torch.from_numpy(canvas.transpose(2, 0, 1).copy()), boxes[inside], labels[inside], row


class Rows(Sampler[int]):
    """Samples the rows of the next pass over a loader."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def collate(samples: list[Sample]) -> tuple[Tensor, list[Tensor], list[Tensor], list[int]]:
    images, boxes, labels, rows = zip(*samples, strict=True)
    return torch.stack(images), list(boxes), list(labels), list(rows)


class PlainTraining:
    """A network, and loaders for the images of a task."""

    def __init__(
        self,
        network: RetinaNet,
        annotations: Annotations,
        config: TaskConfig,
        device: torch.device,
        *,
        seed: int = 0,
        num_workers: int = 1,
    ):
        self.network, self.annotations, self.config, self.device = network, annotations, config, device
        size = config.image_size_pixels
        self.anchors = network.anchors((size, size)).to(device)
        train = config.train
        kind = torch.optim.SGD if train.optimizer == "sgd" else torch.optim.AdamW
        momentum: dict[str, Any] = {"momentum": 0.9} if train.optimizer == "sgd" else {}
        kernels = [parameter for parameter in network.parameters() if parameter.ndim == 4]
        others = [parameter for parameter in network.parameters() if parameter.ndim != 4]
        groups = [{"params": kernels, "weight_decay": train.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = kind(groups, lr=train.learning_rate, foreach=False, **momentum)
        self.num_workers = num_workers
        self.train_rows, self.eval_rows = Rows(), Rows()
        self.train_loader = self._loader(ImageFiles(annotations, size, train, seed), self.train_rows, train.batch_size)
        self.eval_loader = self._loader(ImageFiles(annotations, size, None), self.eval_rows, config.eval.batch_size)

    def _loader(self, images: ImageFiles, rows: Rows, batch_size: int) -> DataLoader[Sample]:
        return DataLoader(
            images, batch_size, sampler=rows, num_workers=self.num_workers, collate_fn=collate, persistent_workers=True
        )

    def train(self, rows: NDArray[np.int64], rates: Sequence[float] | None = None) -> None:
        """Train on images batch by batch, with a learning rate for each batch or the current one."""
        self.network.train()
        self.train_rows.rows = rows.tolist()
        for batch, (images, boxes, labels, _) in enumerate(self.train_loader):
            for group in self.optimizer.param_groups:
                group["lr"] = group["lr"] if rates is None else rates[batch]
            logits, deltas = self.network(images.to(self.device))
            loss = self.loss(
                logits, deltas, [box.to(self.device) for box in boxes], [label.to(self.device) for label in labels]
            )
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if self.config.train.gradient_clip_norm is not None:
                nn.utils.clip_grad_norm_(self.network.parameters(), self.config.train.gradient_clip_norm, foreach=False)
            self.optimizer.step()
            loss.item()  # for the log

    def loss(self, logits: Tensor, deltas: Tensor, boxes: list[Tensor], labels: list[Tensor]) -> Tensor:
        """Return RetinaNet's loss of a batch, computed image by image."""
        config = self.config.loss
        class_loss = box_loss = torch.zeros((), device=self.device)
        num_positive = 0
        for image in range(len(logits)):
            box_of_anchor = self.matched(boxes[image])
            positive = box_of_anchor >= 0
            target = torch.zeros_like(logits[image])
            if positive.any():
                target[positive, labels[image][box_of_anchor[positive]]] = 1
                wanted = encode(boxes[image][box_of_anchor[positive]], self.anchors[positive])
                box_loss = box_loss + functional.huber_loss(
                    deltas[image][positive], wanted, reduction="sum", delta=config.huber_delta
                )
            probability = logits[image].sigmoid()
            right = probability * target + (1 - probability) * (1 - target)
            alpha = config.focal_alpha * target + (1 - config.focal_alpha) * (1 - target)
            cross_entropy = functional.binary_cross_entropy_with_logits(logits[image], target, reduction="none")
            class_loss = class_loss + (alpha * (1 - right) ** config.focal_gamma * cross_entropy).sum()
            num_positive += int(positive.sum())
        return (class_loss + config.box_weight * box_loss / 4) / (num_positive + 1)

    def matched(self, boxes: Tensor) -> Tensor:
        """Return the box of each anchor or -1: its best box of IoU 0.5 or more; each box also gets its best anchor."""
        if len(boxes) == 0:
            return torch.full((len(self.anchors),), -1, device=self.device)
        iou = iou_yxyx(self.anchors, boxes)
        best, box = iou.max(dim=1)
        box[best < 0.5] = -1
        for number in reversed(range(len(boxes))):
            value, anchor = iou[:, number].max(dim=0)
            if value > 0:
                box[anchor] = number
        return box

    @torch.no_grad()
    def average_precision(self, rows: NDArray[np.int64], truth: Any) -> float:
        """Detect on images, and return the metrics of pycocotools."""
        from pycocotools.coco import COCO  # not needed for trainings alone
        from pycocotools.cocoeval import COCOeval

        self.network.eval()
        self.eval_rows.rows = rows.tolist()
        found: list[dict[str, Any]] = []
        for images, _, _, batch_rows in self.eval_loader:
            logits, deltas = self.network(images.to(self.device))
            for image, row in enumerate(batch_rows):
                found += self.detections(logits[image], deltas[image], row)
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(truth, truth.loadRes(found) if found else COCO(), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return float(evaluation.stats[0])

    def detections(self, logits: Tensor, deltas: Tensor, row: int) -> list[dict[str, Any]]:
        """Return the detections of one image, with NMS for each class."""
        config = self.config.eval
        size, every = self.config.image_size_pixels, self.annotations
        original = max(every.widths[row], every.heights[row])
        scores = logits[:, 1:].sigmoid()
        top_scores, top = scores.flatten().topk(min(config.pre_nms_top, scores.numel()))
        top, top_scores = top[top_scores > config.score_threshold], top_scores[top_scores > config.score_threshold]
        anchor, classes = top // scores.shape[1], top % scores.shape[1]
        boxes = decode(deltas[anchor], self.anchors[anchor], plus_one=bool(config.plus_one_decoding))
        limit = torch.tensor([every.heights[row], every.widths[row]] * 2, device=self.device) * (size / original)
        if config.plus_one_decoding:
            limit = limit - 1
        boxes = torch.minimum(boxes.clamp(min=0), limit)
        kept: list[Tensor] = []
        for category in torch.unique(classes):
            of_class = (classes == category).nonzero()[:, 0]  # by descending score
            while len(of_class):
                kept.append(of_class[0])
                overlap = iou_yxyx(boxes[of_class[:1]], boxes[of_class])[0]
                of_class = of_class[1:][overlap[1:] <= config.nms_iou]
        kept.sort(key=lambda index: -float(top_scores[index]))
        found = []
        for index in kept[: config.max_detections]:
            y0, x0, y1, x1 = (boxes[index] * (original / size)).tolist()
            found.append(
                {
                    "image_id": int(every.image_ids[row]),
                    "category_id": int(every.category_ids[classes[index]]),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": float(top_scores[index]),
                }
            )
        return found


def as_coco(annotations: Annotations) -> Any:
    """Return the annotations in the format of pycocotools."""
    from pycocotools.coco import COCO

    coco = COCO()
    image_of_box = np.repeat(annotations.image_ids, np.diff(annotations.box_offsets))
    coco.dataset = {
        "images": [{"id": number} for number in annotations.image_ids.tolist()],
        "categories": [{"id": number} for number in annotations.category_ids.tolist()],
        "annotations": [
            {
                "id": row + 1,
                "image_id": int(image_of_box[row]),
                "category_id": int(annotations.category_ids[annotations.labels[row] - 1]),
                "bbox": annotations.boxes_xywh[row].tolist(),
                "area": float(annotations.areas[row]),
                "iscrowd": int(annotations.iscrowd[row]),
            }
            for row in range(len(annotations.labels))
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco
