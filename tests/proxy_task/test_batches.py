"""Batches for an accelerator equal those for a CPU, with fixed shapes and prefetching."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spinenas.proxy_task.config import TrainConfig
from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.images.labelled_images import LabelledImages
from spinenas.proxy_task.detector.anchors import anchor_boxes
from spinenas.proxy_task.training import batches as module
from spinenas.proxy_task.training.batches import (
    batches,
    cpu_batch,
    device_batch,
    draw_raw_batch,
    gather_images,
    move_to_device,
    prefetch,
)

TRAIN = TrainConfig(batch_size=6, scale_jitter=(0.6, 1.6))


@pytest.fixture
def data() -> LabelledImages:
    rng = np.random.default_rng(2)
    counts = np.array([0, 5, 1, 3, 9, 2, 4, 0])
    corners = rng.uniform(0, 60, size=(counts.sum(), 2))
    yxyx = np.concatenate([corners, corners + rng.uniform(8, 30, size=corners.shape)], axis=1)
    images = rng.integers(0, 256, size=(8, 96, 96, 3), dtype=np.uint8)
    contents = np.array([[96, 70 + i] for i in range(8)])
    annotations = Annotations(
        images_folder=Path(),
        image_ids=np.arange(8),
        file_names=tuple("abcdefgh"),
        groups=tuple("abcdefgh"),
        widths=contents[:, 1],
        heights=contents[:, 0],
        category_ids=np.arange(1, 4),
        category_names=("one", "two", "three"),
        box_offsets=np.concatenate([[0], np.cumsum(counts)]),
        boxes_xywh=np.concatenate([yxyx[:, 1::-1], (yxyx[:, 2:] - yxyx[:, :2])[:, ::-1]], axis=1),
        labels=rng.integers(1, 4, size=counts.sum()),
        areas=np.ones(counts.sum()),
        iscrowd=np.zeros(counts.sum(), dtype=bool),
        annotation_ids=np.arange(counts.sum()),
    )
    return LabelledImages(images, contents, np.ones(8), annotations, max_boxes=int(counts.max()))


@pytest.fixture
def anchors() -> torch.Tensor:
    return anchor_boxes((96, 96), range(3, 8), anchor_scale=2.0, num_scales=1, aspect_ratios=(1.0, 2.0, 0.5))


def assert_same(first: module.Batch, second: module.Batch) -> None:
    torch.testing.assert_close(first[0], second[0], rtol=0, atol=1e-4)
    assert torch.equal(first[1], second[1])
    assert torch.equal(first[2], second[2])


@pytest.mark.parametrize("at_once", [2**26, 1])
def test_an_accelerator_gets_what_a_cpu_gets(
    data: LabelledImages, anchors: torch.Tensor, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PAIRS_AT_ONCE", at_once)
    rows = np.array([4, 0, 2, 1, 7, 3])
    drawn = draw_raw_batch(data, rows, np.random.default_rng(5), TRAIN, torch.device("cpu"))
    assert drawn.boxes_yxyx.shape == (6, 9, 4)
    on_cpu = cpu_batch(data, rows, np.random.default_rng(5), anchors, TRAIN)
    assert int((on_cpu[1] > 0).sum()) > 10
    assert_same(device_batch(drawn, anchors, TRAIN), on_cpu)
    resident = replace(data, images=torch.from_numpy(np.array(data.images)))
    drawn = draw_raw_batch(resident, rows, np.random.default_rng(5), TRAIN, torch.device("cpu"))
    assert_same(device_batch(drawn, anchors, TRAIN), on_cpu)


def test_an_epoch_has_whole_batches_only(data: LabelledImages, anchors: torch.Tensor) -> None:
    rng = np.random.default_rng(0)
    assert [len(images) for images, _, _ in batches(data, np.arange(8), rng, anchors, TRAIN)] == [6]
    twos = replace(TRAIN, batch_size=2)
    assert [len(images) for images, _, _ in batches(data, np.arange(7), rng, anchors, twos)] == [2, 2, 2]
    assert [len(images) for images, _, _ in batches(data, np.arange(3), rng, anchors, TRAIN)] == [3]


def test_images_move_into_the_memory_of_an_accelerator_only_if_they_fit(
    data: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert move_to_device(data, torch.device("cpu")) is data
    accelerator = torch.device("meta")
    monkeypatch.setattr(module, "accelerator_memory_gib", lambda: 8 * (data.images.nbytes - 1) / 2**30)  # type: ignore[union-attr]
    assert move_to_device(data, accelerator) is data
    monkeypatch.setattr(module, "accelerator_memory_gib", lambda: 8 * data.images.nbytes / 2**30)  # type: ignore[union-attr]
    moved = move_to_device(data, accelerator)
    assert isinstance(moved.images, torch.Tensor)
    assert moved.images.device == accelerator
    assert gather_images(moved, np.array([1, 3]), accelerator).shape == (2, 96, 96, 3)


def test_items_are_prefetched_by_one_thread_in_their_order() -> None:
    threads = set()

    def count() -> Iterator[int]:
        for number in range(20):
            threads.add(threading.current_thread())
            yield number

    assert list(prefetch(count())) == list(range(20))
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_an_error_of_prefetching_is_raised_at_its_item_and_the_thread_ends() -> None:
    def count() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("the third")

    items = prefetch(count())
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match="the third"):
        next(items)
    before = threading.active_count()
    endless = prefetch(iter(range(10**9)))
    assert next(endless) == 0
    endless.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
