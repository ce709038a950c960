"""The fidelity of a trial by configuration: which images it uses, and which results stay comparable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_task import SMALL_GENOTYPE, small_dataset

import spinenas.proxy_task.trial as trial_module
from spinenas.proxy_task.config import DataConfig, TaskConfig, TrainConfig
from spinenas.proxy_task.data.annotation_files.annotation_file import read_annotations
from spinenas.proxy_task.data.annotation_files.layout import find_split
from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.splits.subsets import training_subset
from spinenas.proxy_task.task import ProxyTask
from spinenas.search.config.presets import preset
from spinenas.space.errors import UserError
from spinenas.space.head import HeadConfig
from spinenas.space.scaling import Scaling


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_dataset(tmp_path_factory, num_train=50, num_val=2)


@pytest.fixture
def config(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TaskConfig:
    return TaskConfig(
        image_size_pixels=96,
        scaling=Scaling("test", 0.0625, 8, 1.0, 1),
        data=DataConfig(folder=str(folder), cache_folder=str(tmp_path_factory.getbasetemp() / "cache")),
        head=HeadConfig(num_convs=1, channels=8, num_scales=1),
        train=TrainConfig(epochs=1, batch_size=4, optimizer="adamw", learning_rate=1e-3),
    )


@pytest.fixture
def annotations(folder: Path) -> Annotations:
    paths = find_split(DataConfig(folder=str(folder)), "train")
    return read_annotations(paths.annotations, paths.images)


def with_share(config: TaskConfig, share: float) -> TaskConfig:
    return replace(config, train=replace(config.train, image_fraction=share))


@pytest.mark.parametrize(
    ("name", "dtype", "key"),
    [
        ("quickstart", "float32", "19ecf0725dda9315"),
        ("coco-small", "bfloat16", "cb81e3eb8bda5936"),
        ("spinenet49-proxy", "bfloat16", "280c2a5fb0fa779a"),
    ],
)
def test_task_keys_without_image_fraction_are_those_from_before_the_option_existed(
    name: str, dtype: Any, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProxyTask, "fingerprint", {"train_annotations": "abc", "num_train_images": 10})
    config = preset(name).task
    config = replace(config, train=replace(config.train, dtype=dtype))  # what these presets had then
    assert ProxyTask(config).key == key
    assert ProxyTask(with_share(config, 0.5)).key != key


def test_a_task_key_does_not_depend_on_how_a_float_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProxyTask, "fingerprint", {})
    keys = {
        ProxyTask(TaskConfig(train=replace(TrainConfig(dtype="float32"), **given))).key
        for given in (
            {"warmup_steps": 500, "scale_jitter": (1, 2), "gradient_clip_norm": 10},
            {"warmup_steps": 500.0, "scale_jitter": (1.0, 2.0), "gradient_clip_norm": 10.0},
        )
    }
    assert len(keys) == 1


def test_a_larger_share_contains_the_smaller_ones(annotations: Annotations) -> None:
    rows = np.arange(5, 45)
    before: set[int] = set()
    for count in range(1, 41):
        chosen = training_subset(annotations, rows, count)
        assert len(chosen) == count
        assert np.array_equal(chosen, np.sort(chosen))
        assert before < set(chosen.tolist()) <= set(rows.tolist())
        before = set(chosen.tolist())
    assert training_subset(annotations, rows, 40) is rows
    assert training_subset(annotations, rows, 1000) is rows


def test_a_share_is_selected_from_the_whole_file_and_depends_on_this_data_alone(annotations: Annotations) -> None:
    rows = np.arange(50)
    chosen = training_subset(annotations, rows, 10)
    assert chosen.tolist() != list(range(10))
    assert chosen.min() < 17
    assert chosen.max() > 33
    assert np.array_equal(training_subset(annotations, rows, 10), chosen)
    other = replace(annotations, widths=annotations.widths + 1)
    assert not np.array_equal(training_subset(other, rows, 10), chosen)


def test_a_trial_trains_on_its_share(config: TaskConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, task = ProxyTask(config), ProxyTask(with_share(config, 0.4))
    task.prepare()
    assert (whole.fidelity.num_train_images, task.fidelity.num_train_images) == (40, 16)
    assert whole.fingerprint == task.fingerprint, "the data is the same"
    trained_on: list[Any] = []
    train_detector = trial_module.train_detector

    def spy(network: Any, data: Any, rows: Any, **options: Any) -> None:
        trained_on.append(rows)
        train_detector(network, data, rows, **options)

    monkeypatch.setattr(trial_module, "train_detector", spy)
    for fidelity in (None, replace(task.fidelity, num_train_images=8)):
        task.evaluate(SMALL_GENOTYPE, seed=0, fidelity=fidelity)
    share, less = (set(rows.tolist()) for rows in trained_on)
    assert (len(share), len(less)) == (16, 8)
    assert less < share <= set(whole.data.train_rows.tolist())


def test_a_share_too_small_to_train_on_is_refused(config: TaskConfig, annotations: Annotations) -> None:
    with pytest.raises(
        UserError, match=r"image_fraction is 0.05, which leaves 2 images to train on, less than a batch"
    ):
        ProxyTask(with_share(config, 0.05)).prepare()
    empty = replace(annotations, iscrowd=np.ones_like(annotations.iscrowd))
    with pytest.raises(
        UserError, match=r"none of the 10 images trained on, of 50, has an object in it; choose a larger"
    ):
        training_subset(empty, np.arange(50), 10)
    for share, rule in ((0.0, "above 0"), (float("nan"), "above 0"), (1.5, "0 to 1")):
        with pytest.raises(UserError, match=f"task.train.image_fraction is {share}; it is {rule}"):
            with_share(config, share)
