"""Probe of a trial: a few training steps and detections, and the time that a whole trial would take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spinenas.proxy_task.config import TrainConfig
from spinenas.proxy_task.data.images.labelled_images import LabelledImages
from spinenas.proxy_task.detector.retinanet import RetinaNet
from spinenas.proxy_task.evaluation.detect import detect
from spinenas.proxy_task.training.compilation import prepare_compilation
from spinenas.proxy_task.training.device import peak_memory_bytes, reset_peak_memory, use_threads
from spinenas.proxy_task.training.train import steps_per_epoch, train_detector
from spinenas.proxy_task.trial import TrialSetting, build_detector
from spinenas.results.record import Fidelity
from spinenas.space.baseline import Architecture
from spinenas.space.dialect import DIALECTS

PROBE_STEPS = 4
"""Training steps that `probe` times."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Time and memory of a trial on this machine, measured by `probe` or predicted by a `cost_model.CostModel`.

    Attributes:
        step_seconds: time of a training step.
        detect_seconds: time of detection in one image.
        trial_seconds: time of a whole trial with its evaluations, without start-up.
        peak_memory_bytes: as in `Evaluation`; None where it cannot be measured.
    """

    step_seconds: float
    detect_seconds: float
    trial_seconds: float
    peak_memory_bytes: int | None


def probe(
    setting: TrialSetting,
    architecture: Architecture,
    fidelity: Fidelity,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Probe:
    """Train a few steps and detect on a few images. The arguments are those of `ProxyTask.probe`."""
    steps = _Steps.of(setting, architecture, fidelity)
    config, device = setting.config.with_dialect(), setting.device

    def detect_batch() -> None:
        detect(
            steps.network, steps.images, steps.reward_rows, device=device, config=config.eval, dtype=config.train.dtype
        )

    steps.train(1)  # the first step takes longer, and so does the first detection
    step_seconds = _seconds(clock, lambda: steps.train(PROBE_STEPS)) / PROBE_STEPS
    peak = peak_memory_bytes(device)
    detect_batch()
    detect_seconds = _seconds(clock, detect_batch) / len(steps.reward_rows)
    whole = trial_seconds(setting, fidelity, step_seconds=step_seconds, detect_seconds=detect_seconds)
    return Probe(step_seconds, detect_seconds, whole, peak)


def seconds_in_format(
    setting: TrialSetting,
    architecture: Architecture,
    fidelity: Fidelity,
    dtype: Literal["float32", "bfloat16"],
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the time of a training step in a number format. A format without hardware can be slow: two steps do."""
    config = replace(setting.config, train=replace(setting.config.train, dtype=dtype))
    steps = _Steps.of(replace(setting, config=config), architecture, fidelity)
    steps.train(1)
    return _seconds(clock, lambda: steps.train(1))


@dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """A detector that can train for some steps, and the images for it."""

    setting: TrialSetting
    config: TrainConfig
    network: RetinaNet
    images: LabelledImages
    train_rows: NDArray[np.int64]
    reward_rows: NDArray[np.int64]

    @classmethod
    def of(cls, setting: TrialSetting, architecture: Architecture, fidelity: Fidelity) -> _Steps:
        """Build the detector of a trial, and open a batch of images for training and one for detection."""
        use_threads(setting.threads)
        config, data, device = setting.config.with_dialect(), setting.data, setting.device
        train = replace(config.train, epochs=1, batch_size=fidelity.batch_size)
        train_rows = data.training_rows(fidelity.num_train_images)[: fidelity.batch_size]
        reward_rows = data.reward_rows[: config.eval.batch_size]
        if fidelity.image_size_pixels == config.image_size_pixels:
            images = data.split("train", config.image_size_pixels, device)
        else:  # a few steps are not worth decoding all images at another size
            images = data.few_images(np.concatenate([train_rows, reward_rows]), fidelity.image_size_pixels, device)
            train_rows, reward_rows = np.split(np.arange(len(images.images)), [len(train_rows)])
        if train.compile != "off":
            prepare_compilation(data.cache_folder / "compiled")
        reset_peak_memory(device)
        network, _, _ = build_detector(setting, architecture, seed=0, fidelity=fidelity)
        return cls(setting, train, network, images, train_rows, reward_rows)

    def train(self, count: int) -> None:
        """Train so many steps."""
        config = self.setting.config.with_dialect()
        train_detector(
            self.network,
            self.images,
            np.resize(self.train_rows, count * self.config.batch_size),
            seed=0,
            device=self.setting.device,
            train=self.config,
            loss=config.loss,
            decay_depthwise=DIALECTS[config.dialect].decay_depthwise,
            after_epoch=lambda state, figures: None,
        )


def trial_seconds(setting: TrialSetting, fidelity: Fidelity, *, step_seconds: float, detect_seconds: float) -> float:
    """Return the time of a whole trial from that of a training step and of detection in one image.

    An image used to estimate batch-norm statistics takes a forward pass: a third of its training step.
    """
    num_steps = fidelity.epochs * steps_per_epoch(fidelity.num_train_images, fidelity.batch_size)
    every = setting.config.eval.every_epochs
    num_evaluations = 1 + ((fidelity.epochs - 1) // every if every else 0)
    bn_images = min(setting.config.eval.bn_images, fidelity.num_train_images)
    one_evaluation = len(setting.data.reward_rows) * detect_seconds + bn_images * step_seconds / fidelity.batch_size / 3
    return num_steps * step_seconds + num_evaluations * one_evaluation


def _seconds(clock: Callable[[], float], action: Callable[[], None]) -> float:
    started = clock()
    action()
    return clock() - started
