"""Estimated batch-norm statistics: their values, and that training is unaffected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_task import SMALL_GENOTYPE, small_dataset, small_task
from torch import nn

from spinenas.proxy_task.config import EvalConfig, TaskConfig
from spinenas.proxy_task.data.images.labelled_images import LabelledImages
from spinenas.proxy_task.evaluation.evaluate_weights import evaluate_weights
from spinenas.proxy_task.task import ProxyTask
from spinenas.proxy_task.task_data import TaskData
from spinenas.proxy_task.training.augment import normalize_letterboxed
from spinenas.proxy_task.training.batch_norm import BATCH_IMAGES, estimate_batch_norms
from spinenas.proxy_task.training.batches import gather_images
from spinenas.proxy_task.weights.weights_file import load_detector
from spinenas.results.record import COCO_METRICS, Evaluation

GENOTYPE = SMALL_GENOTYPE
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TaskConfig:
    """Three epochs of four steps on 32 images of 96 px."""
    evaluation = EvalConfig(pre_nms_top=100, score_threshold=0.0, plus_one_decoding=False, bn_images=16)
    return small_task(small_dataset(tmp_path_factory), tmp_path_factory, evaluation, epochs=3)


@pytest.fixture(scope="module")
def data(config: TaskConfig) -> LabelledImages:
    return TaskData(config.data, 96).split("train", 96, torch.device("cpu"))


def images_of(data: LabelledImages, rows: list[int]) -> torch.Tensor:
    chosen = np.array(rows)
    return normalize_letterboxed(gather_images(data, chosen, CPU), torch.from_numpy(data.contents[chosen]))


def test_norms_hold_the_statistics_of_evenly_spaced_images_and_nothing_else_changes(data: LabelledImages) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.03), nn.Dropout(0.9), nn.BatchNorm2d(4))
    network[1].running_mean.fill_(7.0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    rows = np.arange(3, 36)
    estimate_batch_norms(network, data, rows, num_images=5, device=CPU, dtype="float32")
    with torch.no_grad():
        convolved = network[0](images_of(data, [3, 11, 19, 27, 35]))
    torch.testing.assert_close(network[1].running_mean, convolved.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(network[1].running_var, convolved.var(dim=(0, 2, 3)))
    # No branch is dropped before the second.
    torch.testing.assert_close(network[3].running_var, torch.ones(4), rtol=0.01, atol=0.01)
    for name, tensor in network.state_dict().items():
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert network.training
    assert [network[place].momentum for place in (1, 3)] == [0.03, 0.1]
    network.eval()
    estimate_batch_norms(network, data, rows, num_images=5, device=CPU, dtype="float32")
    assert not any(layer.training for layer in network)


def test_statistics_of_more_images_than_a_batch_are_averaged_over_batches(
    data: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spinenas.proxy_task.training.batch_norm.BATCH_IMAGES", 2)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    estimate_batch_norms(network, data, np.arange(4), num_images=99, device=CPU, dtype="float32")
    with torch.no_grad():
        variances = [network[0](images_of(data, rows)).var(dim=(0, 2, 3)) for rows in ([0, 1], [2, 3])]
    torch.testing.assert_close(network[1].running_var, torch.stack(variances).mean(dim=0))
    assert BATCH_IMAGES == 128


def test_neither_evaluations_during_training_nor_interruptions_change_a_result(
    config: TaskConfig, tmp_path: Path
) -> None:
    found = []
    for every in (0, 1, 2):
        task = ProxyTask(replace(config, eval=replace(config.eval, every_epochs=every)))
        result = task.evaluate(GENOTYPE, seed=5)
        assert isinstance(result, Evaluation), result
        found.append(result.metrics)
    assert found[0] == found[1] == found[2]

    def interrupt(epoch: int, figures: dict[str, float]) -> bool:
        raise KeyboardInterrupt

    task = ProxyTask(replace(config, eval=replace(config.eval, every_epochs=1)))
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            task.evaluate(GENOTYPE, seed=5, folder=tmp_path, report=interrupt)
    result = task.evaluate(GENOTYPE, seed=5, folder=tmp_path)
    assert isinstance(result, Evaluation)
    assert result.metrics == found[0]


def test_estimated_statistics_change_the_task_key_and_are_in_the_kept_weights(
    config: TaskConfig, tmp_path: Path
) -> None:
    without = replace(config, eval=replace(config.eval, bn_images=0))
    task, plain = ProxyTask(config), ProxyTask(without)
    assert task.key != plain.key
    result = task.evaluate_with_val(GENOTYPE, seed=5, folder=tmp_path, keep_weights=True)
    assert isinstance(result, Evaluation)
    metrics = task.val_metrics(tmp_path)
    other = plain.evaluate(GENOTYPE, seed=5)
    assert isinstance(other, Evaluation)
    assert [entry["loss"] for entry in result.curve] == [entry["loss"] for entry in other.curve]
    assert result.metrics != other.metrics
    again = evaluate_weights(*load_detector(tmp_path / "weights.safetensors"), config.data, config.eval)
    assert {name: again[name] for name in COCO_METRICS} == {name: metrics[name] for name in COCO_METRICS}
