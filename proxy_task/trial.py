"""One trial: builds a detector, trains it, evaluates it, and keeps checkpoints.

Functions here raise whatever goes wrong; `catch_failure` turns that into a `Failure` with its kind.
"""

from __future__ import annotations

import hashlib
import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from spinenas.proxy_task.config import TaskConfig
from spinenas.proxy_task.detector.retinanet import RetinaNet
from spinenas.proxy_task.evaluation.detect import detect
from spinenas.proxy_task.evaluation.detections import Detections, rescale_to_originals
from spinenas.proxy_task.task_data import EvaluatedOn, TaskData
from spinenas.proxy_task.training import checkpoint
from spinenas.proxy_task.training.batch_norm import estimate_batch_norms
from spinenas.proxy_task.training.compilation import compile_seconds, prepare_compilation
from spinenas.proxy_task.training.device import peak_memory_bytes, reset_peak_memory, use_threads
from spinenas.proxy_task.training.train import (
    Diverged,
    TrainState,
    bn_momentum_for,
    steps_per_epoch,
    train_detector,
)
from spinenas.proxy_task.weights.weights_file import DetectorSpec
from spinenas.results.record import Evaluation, Failure, FailureKind, Fidelity, Report
from spinenas.results.storage.run_folder import CHECKPOINT
from spinenas.space.baseline import Architecture
from spinenas.space.cost import Cost, retinanet_cost
from spinenas.space.dialect import DIALECTS
from spinenas.space.errors import GenotypeError, UserError
from spinenas.space.genotype import canonical_json
from spinenas.space.graph import network_key
from spinenas.space.network import num_parameters
from spinenas.space.random_streams import seed_for

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class TrialSetting:
    """What all trials of a task have in common.

    Attributes:
        config: as the user gave it; what it leaves to the dialect is not filled in.
        data: images and annotations.
        device: where networks run.
        threads: CPU threads of a trial.
    """

    config: TaskConfig
    data: TaskData
    device: torch.device
    threads: int


@dataclass(frozen=True, slots=True, eq=False)
class TrainedDetector:
    """What a trial leaves: its result, the trained network, and the description of that network."""

    evaluation: Evaluation
    network: RetinaNet
    spec: DetectorSpec


def run_trial(
    setting: TrialSetting,
    architecture: Architecture,
    *,
    seed: int,
    fidelity: Fidelity,
    task_key: str,
    report: Report | None = None,
    folder: Path | None = None,
    until: int | None = None,
) -> TrainedDetector:
    """Train an architecture, and evaluate it on the reward images. The arguments are those of `ProxyTask.evaluate`."""
    use_threads(setting.threads)
    config, data, device = setting.config.with_dialect(), setting.data, setting.device
    train = replace(config.train, epochs=fidelity.epochs, batch_size=fidelity.batch_size)
    rows = data.training_rows(fidelity.num_train_images)
    images = data.split("train", fidelity.image_size_pixels, device)
    reset_peak_memory(device)
    attempt_started = time.perf_counter()
    compiles = train.compile != "off"
    if compiles:
        prepare_compilation(data.cache_folder / "compiled")
    compiled_before = compile_seconds() if compiles else 0.0
    network, spec, cost = build_detector(setting, architecture, seed=seed, fidelity=fidelity)

    checkpoints = _CheckpointFile(folder, _identity(setting, architecture, network, seed, fidelity, task_key))
    start, progress = checkpoints.load()
    curve, eval_seconds = list(progress.curve), progress.eval_seconds
    started = attempt_started - progress.train_seconds - progress.eval_seconds

    def reward_metrics() -> dict[str, float | None]:
        nonlocal eval_seconds
        eval_started = time.perf_counter()
        if config.eval.bn_images:
            # Training never reads the statistics replaced here. The weights kept are those that were evaluated.
            estimate_batch_norms(
                network, images, rows, num_images=config.eval.bn_images, device=device, dtype=train.dtype
            )
        metrics = data.evaluator("reward").evaluate(detect_objects(setting, network, "reward", fidelity))
        eval_seconds += time.perf_counter() - eval_started
        return metrics

    def after_epoch(state: TrainState, figures: dict[str, float]) -> None:
        every = config.eval.every_epochs
        if state.epoch == until or (every and state.epoch % every == 0 and state.epoch < train.epochs):
            figures = {**figures, "AP": defined_ap(reward_metrics())}
        curve.append({"epoch": state.epoch, **figures})
        train_seconds = time.perf_counter() - started - eval_seconds
        # Before the report, so that no epoch is reported twice.
        checkpoints.save(state, checkpoint.Progress(tuple(curve), train_seconds, eval_seconds))
        if report is not None:
            report(state.epoch, figures)

    train_detector(
        network,
        images,
        rows,
        seed=seed,
        device=device,
        train=train,
        loss=config.loss,
        decay_depthwise=DIALECTS[config.dialect].decay_depthwise,
        after_epoch=after_epoch,
        start=start,
        until=until,
    )
    train_seconds = time.perf_counter() - started - eval_seconds
    is_paused = until is not None and len(curve) >= until
    if is_paused:
        curve = curve[:until]  # an earlier attempt may have passed `until` without its result being received
        metrics: dict[str, float | None] = {"AP": curve[-1]["AP"]}
    else:
        metrics = reward_metrics()
        curve[-1]["AP"] = defined_ap(metrics)
    evaluation = Evaluation(
        objective=curve[-1]["AP"],
        metrics=metrics,
        curve=tuple(curve),
        params=cost.params,
        madds=cost.madds,
        network_key=network.backbone.network_key(),
        train_seconds=train_seconds,
        compile_seconds=compile_seconds() - compiled_before if compiles else None,
        eval_seconds=eval_seconds,
        peak_memory_bytes=peak_memory_bytes(device),
        stopped_after=until if is_paused else None,
    )
    return TrainedDetector(evaluation, network, spec)


def defined_ap(metrics: dict[str, float | None]) -> float:
    """Return AP. Raises UserError if it is undefined, which is never 0."""
    ap = metrics["AP"]
    if ap is None:
        raise UserError(
            "AP is undefined: COCO counts no object in the reward images; hold out other images by "
            "task.data.held_out_images, or correct iscrowd and area in the annotations"
        )
    return ap


def build_detector(
    setting: TrialSetting, architecture: Architecture, *, seed: int, fidelity: Fidelity
) -> tuple[RetinaNet, DetectorSpec, Cost]:
    """Return the detector of a trial on the device, its description, and its cost."""
    config, data, train = setting.config.with_dialect(), setting.data, setting.config.train
    num_images = min(fidelity.num_train_images, len(data.train_rows))
    num_steps = fidelity.epochs * steps_per_epoch(num_images, fidelity.batch_size)
    spec = DetectorSpec(
        name=architecture.text,
        architecture=architecture.text,
        scaling=fidelity.scaling,
        head=config.head,
        category_ids=tuple(data.train.category_ids.tolist()),
        category_names=data.train.category_names,
        image_size_pixels=fidelity.image_size_pixels,
        dialect=config.dialect,
        activation=train.activation,
        bn_momentum=bn_momentum_for(num_steps, train),
        bn_eps=train.bn_eps,
        plus_one_decoding=bool(config.eval.plus_one_decoding),
    )
    network = spec.build(
        stochastic_depth=train.stochastic_depth,
        generator=torch.Generator().manual_seed(seed_for(seed, "weights")),
    )
    network.to(setting.device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    cost = retinanet_cost(
        architecture,
        fidelity.scaling,
        fidelity.image_size_pixels,
        class_channels=data.class_channels,
        **config.head.as_cost_arguments(),
    )
    assert network.backbone.network_key() == network_key(architecture), "the network built is not the one proposed"
    assert num_parameters(network) == cost.params, "the network built has other parameters than the arithmetic says"
    return network, spec, cost


def detect_objects(
    setting: TrialSetting, network: RetinaNet, evaluated_on: EvaluatedOn, fidelity: Fidelity
) -> Detections:
    """Return what a trained network detects on the reward images or on val, in pixels of the original images."""
    config, data = setting.config.with_dialect(), setting.data
    images = data.split("train" if evaluated_on == "reward" else "val", fidelity.image_size_pixels, setting.device)
    found = detect(
        network,
        images,
        data.evaluated_rows(evaluated_on),
        device=setting.device,
        config=config.eval,
        dtype=config.train.dtype,
    )
    return rescale_to_originals(found, images, images.annotations.category_ids)


def _identity(
    setting: TrialSetting,
    architecture: Architecture,
    network: RetinaNet,
    seed: int,
    fidelity: Fidelity,
    task_key: str,
) -> checkpoint.Identity:
    """All that the figures of a trial depend on."""
    layout = [[name, list(tensor.shape)] for name, tensor in network.state_dict().items()]
    return {
        "task": task_key,
        "eval": asdict(setting.config.eval),
        "architecture": architecture.text,
        "network": network.backbone.network_key(),
        "tensors": hashlib.sha256(canonical_json(layout).encode()).hexdigest(),
        "seed": seed,
        "fidelity": asdict(fidelity),
        "torch": str(torch.__version__),
        "device": setting.device.type,
        "dtype": setting.config.train.dtype,
        "threads": setting.threads,
    }


class _CheckpointFile:
    """The checkpoint of one trial in its folder, if it has one; a failure to write it is logged once."""

    def __init__(self, folder: Path | None, identity: checkpoint.Identity):
        self._path = None if folder is None else folder / CHECKPOINT
        self._identity = identity
        self._has_warned = False

    def load(self) -> tuple[TrainState | None, checkpoint.Progress]:
        """Return the state of an earlier attempt, or the beginning."""
        found = None if self._path is None else checkpoint.load(self._path, self._identity)
        return found or (None, checkpoint.Progress())

    def save(self, state: TrainState, progress: checkpoint.Progress) -> None:
        if self._path is None:
            return
        try:
            checkpoint.save(self._path, state, progress, self._identity)
        except OSError as error:  # a full disk must not cost the training
            if not self._has_warned:
                logger.warning("the training continues without a new checkpoint: %s", error)
            self._has_warned = True


def catch_failure(run: Callable[[], T]) -> T | Failure:
    """Return the result of a run, or a Failure that describes the exception it raised."""
    try:
        return run()
    except Exception as error:
        return Failure(failure_kind(error), str(error) or type(error).__name__, traceback.format_exc())


def failure_kind(error: Exception) -> FailureKind:
    """Return the kind of failure that an exception of a trial means."""
    if isinstance(error, Diverged):
        return FailureKind.DIVERGED
    if isinstance(error, GenotypeError):
        return FailureKind.INVALID_GENOTYPE
    if isinstance(error, UserError):
        return FailureKind.INVALID_DATA
    # PyTorch's CPU allocator raises a plain RuntimeError.
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return FailureKind.OUT_OF_MEMORY
    return FailureKind.BUG
