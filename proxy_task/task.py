"""The proxy task: trains an architecture for a short time and returns its AP on held-out images.

A task never raises for what can go wrong in a trial: it returns a `Failure` with its kind. Invalid data or
configuration is a UserError from `prepare`, before any trial starts.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from spinenas.proxy_task.config import TaskConfig, plain
from spinenas.proxy_task.data.findings import Finding
from spinenas.proxy_task.evaluation.coco_metrics import MAX_DETECTIONS
from spinenas.proxy_task.evaluation.detections import load_detections, save_detections
from spinenas.proxy_task.evaluation.pycocotools_metrics import check_with_pycocotools
from spinenas.proxy_task.probe import Probe, probe, seconds_in_format, trial_seconds
from spinenas.proxy_task.task_data import TaskData
from spinenas.proxy_task.training.device import bfloat16_support, choose_device, choose_dtype, device_name
from spinenas.proxy_task.trial import TrialSetting, catch_failure, detect_objects, run_trial
from spinenas.proxy_task.weights.weights_file import save_detector
from spinenas.results.record import Evaluation, Failure, Fidelity, Report
from spinenas.results.stats.bootstrap import Matches
from spinenas.results.storage.run_folder import VAL_DETECTIONS
from spinenas.space.baseline import Architecture
from spinenas.space.cost import Cost, retinanet_cost
from spinenas.space.errors import UserError
from spinenas.space.genotype import canonical_json
from spinenas.space.scaling import Scaling

logger = logging.getLogger(__name__)

WEIGHTS = "weights.safetensors"
"""File of a trained network in its trial folder."""

PROTOCOL_VERSION = 1
"""Part of every task key: raised whenever a change of the code changes the meaning of a figure."""


class ProxyTask:
    """Trains and evaluates architectures on one data set.

    A pickled task carries its configuration alone; the receiving process opens the data again.
    """

    def __init__(self, config: TaskConfig, *, device: str = "auto", threads: int = 1):
        """Configure a task without touching the data.

        Args:
            config: network, data, training and evaluation. The dtype "auto" becomes that of this machine, and
                stays so in other processes.
            device: "auto" for the accelerator if there is one, "cpu", or an accelerator's type or name, as "cuda:1".
            threads: CPU threads of a trial; sums differ in the last bit with their number.
        """
        if config.train.dtype == "auto":
            dtype = choose_dtype("auto", choose_device(device), bfloat16_support)
            config = replace(config, train=replace(config.train, dtype=dtype))  # type: ignore[arg-type]
        self.config, self._device_name, self.threads = config, device, threads
        self.data = TaskData(config.data, config.image_size_pixels, max_detections=config.eval.max_detections)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.config, self._device_name, self.threads)

    @cached_property
    def torch_device(self) -> torch.device:
        return choose_device(self._device_name)

    @property
    def device(self) -> str:
        """Device type, such as "cpu" or "cuda"."""
        return self.torch_device.type

    @property
    def dtype(self) -> str:
        """Number format of convolutions, never "auto"."""
        return self.config.train.dtype

    @property
    def remark(self) -> str | None:
        """What the user should know of training this task on this machine; None if there is nothing."""
        if self.dtype == "bfloat16" and bfloat16_support(self.torch_device) is None:
            return (
                f"{device_name(self.torch_device)} has no instructions for bfloat16, the run's number format, and "
                "trains several times slower than in float32; use other machines, or start a run with "
                "task.train.dtype=float32"
            )
        return None

    def prepare(self, *, with_val: bool = False) -> None:
        """Read the annotations and decode the images into the cache, once per machine.

        Args:
            with_val: prepare val as well. A search never opens it.

        Raises:
            UserError: naming what is wrong with the data or the configuration.
        """
        _ = self.torch_device, self.key
        self.check_batch()
        self.data.training_rows(self.fidelity.num_train_images)
        for split in ("train", "val") if with_val else ("train",):
            self.data.split(split, self.config.image_size_pixels, self.torch_device)

    def cache_space(self) -> str:
        """Return how much room the image cache needs and has, in words. Raises UserError if there is too little."""
        return self.data.cache_space()

    def check_batch(self) -> None:
        """Raise UserError if fewer images are left to train on than a batch has. It reads annotations alone."""
        num_images, batch_size = self.fidelity.num_train_images, self.config.train.batch_size
        if num_images < batch_size:
            held_out = len(self.data.reward_rows)
            raise UserError(
                f"{num_images} of {num_images + held_out} images are left to train on, fewer than a batch of "
                f"{batch_size}; add images, or set a smaller task.train.batch_size"
            )

    def findings(self, *, with_val: bool = False) -> tuple[Finding, ...]:
        """Return what was found in the data that its owner should know; call it after `prepare`. Raises UserError.

        Args:
            with_val: look at the images of val too. Otherwise only their names and bytes are compared with train.
        """
        return self.data.findings(with_val=with_val)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Hashes of the train annotations and image files, and the counts that matter; val is no part of it."""
        return self.data.fingerprint

    @property
    def val_fingerprint(self) -> dict[str, Any]:
        """Hashes of the val annotations and image files, and their number."""
        return self.data.val_fingerprint

    @cached_property
    def key(self) -> str:
        """16 hex digits of all that gives a result its meaning. Results of different keys are never compared."""
        config = plain(self.config)
        del config["data"]  # the content of the files counts, not their location
        del config["eval"]["batch_size"], config["eval"]["every_epochs"]  # change no final figure
        del config["train"]["compile"]  # left out like the device
        if self.config.train.image_fraction == 1:
            del config["train"]["image_fraction"]  # results older than this option stay comparable
        if self.config.eval.bn_images == 0:
            del config["eval"]["bn_images"]  # likewise
        if self.config.eval.max_detections > MAX_DETECTIONS:
            config["eval"]["counted_detections"] = self.config.eval.max_detections  # once, AP counted 100 all the same
        meaning = {"protocol": PROTOCOL_VERSION, "config": config, "data": self.fingerprint}
        return hashlib.sha256(canonical_json(meaning).encode()).hexdigest()[:16]

    @cached_property
    def fidelity(self) -> Fidelity:
        """Training of a trial whose proposal names no fidelity of its own."""
        train, num_images = self.config.train, len(self.data.train_rows)
        if train.image_fraction < 1:
            num_images = round(train.image_fraction * num_images)
            if num_images < train.batch_size:
                raise UserError(
                    f"task.train.image_fraction is {train.image_fraction:g}, which leaves {num_images} images to train "
                    f"on, less than a batch of {train.batch_size}; choose a larger share or smaller batches"
                )
        return Fidelity(train.epochs, self.config.image_size_pixels, train.batch_size, num_images, self.config.scaling)

    @property
    def class_channels(self) -> int:
        """Number of classes, plus the unused channel 0."""
        return self.data.class_channels

    @property
    def setting(self) -> TrialSetting:
        """What all trials of this task have in common."""
        return TrialSetting(self.config, self.data, self.torch_device, self.threads)

    def evaluate(
        self,
        architecture: Architecture,
        *,
        seed: int,
        fidelity: Fidelity | None = None,
        attempt: int = 0,
        folder: Path | None = None,
        report: Report | None = None,
        until: int | None = None,
    ) -> Evaluation | Failure:
        """Train an architecture and evaluate it on the reward images.

        Args:
            architecture: a genotype or a baseline.
            seed: the only source of randomness.
            fidelity: how much training; None for the task's own.
            attempt: number of workers that were lost with this trial before; has no effect on the result.
            folder: the trial's own folder, for its checkpoint; None for no checkpoints. A later call with the same
                arguments resumes an interrupted one: it returns the same result, and reports only the remaining
                epochs. The caller removes the checkpoint once it has stored the result.
            report: called after each epoch.
            until: an epoch before the last, with AP measured after it, at which to pause. The result is as of that
                epoch, `stopped_after` it. A call with another `until` resumes from the checkpoint.

        Returns:
            An Evaluation, or a Failure that says what went wrong.
        """
        return catch_failure(
            lambda: (
                run_trial(
                    self.setting,
                    architecture,
                    seed=seed,
                    fidelity=fidelity or self.fidelity,
                    task_key=self.key,
                    report=report,
                    folder=folder,
                    until=until,
                ).evaluation
            )
        )

    def evaluate_with_val(
        self,
        architecture: Architecture,
        *,
        seed: int,
        fidelity: Fidelity | None = None,
        attempt: int = 0,
        folder: Path,
        report: Report | None = None,
        keep_weights: bool = False,
    ) -> Evaluation | Failure:
        """Do what `evaluate` does, and keep in the folder what the trained network detects on val.

        The result has no figure of val: `val_metrics` and `val_matches` compute those from the detections.

        Args:
            architecture, seed, fidelity, attempt, folder, report: as in `evaluate`.
            keep_weights: keep the trained network too, as weights.safetensors.
        """

        def train() -> Evaluation:
            chosen = fidelity or self.fidelity
            trained = run_trial(
                self.setting, architecture, seed=seed, fidelity=chosen, task_key=self.key, report=report, folder=folder
            )
            save_detections(folder / VAL_DETECTIONS, detect_objects(self.setting, trained.network, "val", chosen))
            if keep_weights:
                try:
                    save_detector(folder / WEIGHTS, trained.network, trained.spec)
                except UserError as error:  # a full disk must not cost the figures
                    logger.warning("the trained weights are not kept: %s", error)
            return trained.evaluation

        return catch_failure(train)

    def val_matches(self, folder: Path) -> Matches:
        """Match the detections that `evaluate_with_val` kept in a folder with the objects of val. Raises UserError."""
        return self.data.evaluator("val").matches(load_detections(folder / VAL_DETECTIONS))

    def val_metrics(self, folder: Path) -> dict[str, float | None]:
        """Return the metrics on val of the detections that `evaluate_with_val` kept in a folder.

        Raises UserError where a figure differs from that of pycocotools.
        """
        detections = load_detections(folder / VAL_DETECTIONS)
        metrics = self.data.evaluator("val").evaluate(detections)
        check_with_pycocotools(metrics, self.data.val, detections, max_detections=self.config.eval.max_detections)
        return metrics

    def probe(
        self,
        architecture: Architecture,
        fidelity: Fidelity | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> Probe:
        """Train a few steps and detect on a few images, to see that it works and how long a whole trial would take.

        Args:
            fidelity: of the trial; None for the task's own.
            clock: returns seconds.

        Raises whatever goes wrong.
        """
        return probe(self.setting, architecture, fidelity or self.fidelity, clock=clock)

    def seconds_in_format(self, architecture: Architecture, dtype: Literal["float32", "bfloat16"]) -> float:
        """Return the time of a training step in a number format. Raises whatever goes wrong."""
        return seconds_in_format(self.setting, architecture, self.fidelity, dtype)

    def trial_seconds(self, fidelity: Fidelity, *, step_seconds: float, detect_seconds: float) -> float:
        """Return the time of a whole trial from that of a training step and of detection in one image."""
        return trial_seconds(self.setting, fidelity, step_seconds=step_seconds, detect_seconds=detect_seconds)

    def cost(self, architecture: Architecture, scaling: Scaling | None = None, image_size: int | None = None) -> Cost:
        """Return parameters and multiply-adds of the task's detector, at the task's or another scaling and size."""
        return retinanet_cost(
            architecture,
            scaling or self.config.scaling,
            image_size or self.config.image_size_pixels,
            class_channels=self.class_channels,
            **self.config.head.as_cost_arguments(),
        )


def _rebuild(config: TaskConfig, device: str, threads: int) -> ProxyTask:
    return ProxyTask(config, device=device, threads=threads)
