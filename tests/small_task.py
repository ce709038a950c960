"""A proxy task that trains in a second: a narrow network on generated images of 96 px."""

from __future__ import annotations

from pathlib import Path

import pytest

from spinenas.proxy_task.config import DataConfig, EvalConfig, LossConfig, TaskConfig, TrainConfig
from spinenas.proxy_task.data.synthetic import generate_dataset
from spinenas.space.genotype import Genotype
from spinenas.space.head import HeadConfig
from spinenas.space.scaling import Scaling

SMALL_GENOTYPE = Genotype.from_text("2b 2b / 3b0,1 3b0,1! 4r1,2! 5r3,4!")


def small_dataset(factory: pytest.TempPathFactory, *, num_train: int = 40, num_val: int = 6) -> Path:
    """Write a data set in COCO format. A task holds out a fifth of its training images for the reward."""
    folder = factory.mktemp("data") / "shapes"
    folder.mkdir()
    generate_dataset(folder, num_train=num_train, num_val=num_val, image_size_pixels=96, seed=1)
    return folder


def small_task(folder: Path, factory: pytest.TempPathFactory, evaluation: EvalConfig, *, epochs: int) -> TaskConfig:
    """Return a task whose epochs have four steps on a data set of 40 images."""
    return TaskConfig(
        image_size_pixels=96,
        scaling=Scaling("test", 0.125, 8, 1.0, 1),
        data=DataConfig(folder=str(folder), cache_folder=str(factory.getbasetemp() / "cache")),
        head=HeadConfig(num_convs=1, channels=8, anchor_scale=2.0, num_scales=1),
        loss=LossConfig(box_weight=10.0, mask_zero_targets=False),
        train=TrainConfig(epochs=epochs, batch_size=8, optimizer="adamw", learning_rate=3e-3, warmup_steps=0.1),
        eval=evaluation,
    )
