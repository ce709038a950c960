"""The proxy task: a genotype goes in, its AP on held-out images after a short training comes out.

A task never raises for what can go wrong in a trial: that comes back as a `Failure` with its kind. What is wrong
with the data or the configuration is a UserError from `prepare`, before any trial starts.
"""

from __future__ import annotations

import hashlib
import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from spinenas.proxy_task.config import DataConfig, TaskConfig
from spinenas.proxy_task.data.annotation_cache import open_annotations
from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.cache_folder import cache_root
from spinenas.proxy_task.data.image_cache import ImageCache, files_digest, open_cache
from spinenas.proxy_task.data.labelled_images import LabelledImages, labelled
from spinenas.proxy_task.data.layout import Split, find_split
from spinenas.proxy_task.data.subsets import check_same_categories, hold_out, training_subset
from spinenas.proxy_task.data.synthetic import with_built_in
from spinenas.proxy_task.detector.retinanet import RetinaNet
from spinenas.proxy_task.evaluation.coco_metrics import CocoEvaluator
from spinenas.proxy_task.evaluation.detect import detect
from spinenas.proxy_task.evaluation.detections import Detections, load_detections, on_originals, save_detections
from spinenas.proxy_task.training import checkpoint
from spinenas.proxy_task.training.batch_norm import estimate_batch_norms
from spinenas.proxy_task.training.batches import on_device
from spinenas.proxy_task.training.compilation import compile_seconds, prepare_compilation
from spinenas.proxy_task.training.device import (
    choose_device,
    peak_memory_bytes,
    reset_peak_memory,
    use_threads,
)
from spinenas.proxy_task.training.train import (
    Diverged,
    TrainState,
    bn_momentum_for,
    steps_per_epoch,
    train_detector,
)
from spinenas.proxy_task.weights.weights_file import DetectorSpec, save_detector
from spinenas.results.record import Evaluation, Failure, FailureKind, Fidelity
from spinenas.results.stats.bootstrap import Matches
from spinenas.results.storage.run_folder import CHECKPOINT, VAL_DETECTIONS
from spinenas.space.baseline import Architecture
from spinenas.space.cost import Cost, retinanet_cost
from spinenas.space.dialect import DIALECTS
from spinenas.space.errors import GenotypeError, UserError
from spinenas.space.genotype import canonical_json
from spinenas.space.graph import network_key
from spinenas.space.network import num_parameters
from spinenas.space.random_streams import seed_for
from spinenas.space.scaling import Scaling

logger = logging.getLogger(__name__)

T = TypeVar("T")

PROTOCOL_VERSION = 1
"""Part of every task key: raised whenever the code changes what a number means."""

Report = Callable[[int, dict[str, float]], None]
"""Called with (epoch from 1, figures) after each epoch."""


@dataclass(frozen=True, slots=True, eq=False)
class _Split:
    """Annotations with their cached images, ready for training and evaluation."""

    annotations: Annotations
    cache: ImageCache
    data: LabelledImages


PROBE_STEPS = 4
"""Steps that `probe` times."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a trial takes here, from a few steps of it, or as a `cost_model.CostModel` predicts it.

    Attributes:
        step_seconds: time of a training step.
        detect_seconds: time of finding the objects in an image.
        trial_seconds: time of a whole trial, its evaluations included; start-up is not.
        peak_memory_bytes: as in `Evaluation`; None where nothing counts it.
    """

    step_seconds: float
    detect_seconds: float
    trial_seconds: float
    peak_memory_bytes: int | None


class ProxyTask:
    """Trains and evaluates genotypes on one data set.

    A task may be sent to another process: only its configuration travels, data is opened there again.
    """

    def __init__(self, config: TaskConfig, *, device: str = "auto", threads: int = 1):
        """Configure a task without touching the data.

        Args:
            config: what is trained, on what, how.
            device: "auto" for the accelerator if there is one, "cpu", or an accelerator's type or name, as "cuda:1".
            threads: CPU threads of a trial; sums differ in the last bit with their number.
        """
        self.config, self._device_name, self.threads = config, device, threads
        self._splits: dict[tuple[str, int], _Split] = {}
        self._evaluators: dict[str, CocoEvaluator] = {}

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
        """Number format of convolutions."""
        return self.config.train.dtype

    def prepare(self, *, with_val: bool = False) -> None:
        """Read the annotations and decode the images into the cache, once per machine.

        Args:
            with_val: val as well, which `replay` and `validate` need; a search never opens it.

        Raises:
            UserError: naming what is wrong with the data or the configuration.
        """
        _ = self.torch_device, self.key, self._trained_on(self.fidelity)
        self._split("train", self.config.image_size_pixels)
        if with_val:
            self._split("val", self.config.image_size_pixels)

    @cached_property
    def _data_config(self) -> DataConfig:
        """Where the data is; the generated set is written first."""
        return with_built_in(self.config.data, self.config.image_size_pixels)

    def _open(self, split: Split) -> Annotations:
        paths = find_split(self._data_config, split)
        return open_annotations(paths.annotations, paths.images, cache_root(self.config.data.cache_folder))

    @cached_property
    def _train(self) -> Annotations:
        """The training annotations, the reward images among them."""
        return self._open("train")

    @cached_property
    def _val(self) -> Annotations:
        val = self._open("val")
        check_same_categories(self._train, val)
        return val

    @cached_property
    def _rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of the train annotations: (trained on, held out as reward images)."""
        train = self._train
        count = self.config.data.held_out_images
        if count is None:
            count = max(1, len(train.image_ids) // 5)
        return hold_out(train, count, train.fingerprint)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What the data is: hashes of annotations and image files, and the counts that matter; val is no part of it."""
        train = self._train
        return {
            "train_annotations": train.fingerprint,
            "train_images": files_digest(train),
            "num_train_images": len(self._rows[0]),
            "num_reward_images": len(self._rows[1]),
            "categories": list(train.category_names),
        }

    @cached_property
    def val_fingerprint(self) -> dict[str, Any]:
        """What val is, for those who may look at it."""
        val = self._val
        return {
            "val_annotations": val.fingerprint,
            "val_images": files_digest(val),
            "num_val_images": len(val.image_ids),
        }

    @cached_property
    def key(self) -> str:
        """16 hex digits of all that gives a result its meaning; results of other keys are never compared."""
        config = asdict(self.config)
        del config["data"]  # what is in the files counts, not where they are
        del config["eval"]["batch_size"], config["eval"]["every_epochs"]  # change no final figure
        del config["train"]["compile"]  # as the device, which is no part of it either
        if self.config.train.image_fraction == 1:
            del config["train"]["image_fraction"]  # results from before there was this key stay comparable
        if self.config.eval.bn_images == 0:
            del config["eval"]["bn_images"]  # those as well
        meaning = {"protocol": PROTOCOL_VERSION, "config": config, "data": self.fingerprint}
        return hashlib.sha256(canonical_json(meaning).encode()).hexdigest()[:16]

    @cached_property
    def fidelity(self) -> Fidelity:
        """How much training a trial is, unless its proposal says otherwise."""
        train, num_images = self.config.train, len(self._rows[0])
        if train.image_fraction < 1:
            num_images = round(train.image_fraction * num_images)
            if num_images < train.batch_size:
                raise UserError(
                    f"task.train.image_fraction is {train.image_fraction:g}, which leaves {num_images} images to train "
                    f"on, less than a batch of {train.batch_size}; choose a larger share or smaller batches"
                )
        return Fidelity(train.epochs, self.config.image_size_pixels, train.batch_size, num_images, self.config.scaling)

    def _trained_on(self, fidelity: Fidelity) -> NDArray[np.int64]:
        """Rows of the images that a trial trains on, ascending."""
        return training_subset(self._train, self._rows[0], fidelity.num_train_images)

    @property
    def class_channels(self) -> int:
        """Classes and the unused channel 0."""
        return len(self._train.category_ids) + 1

    def _annotations(self, name: str) -> Annotations:
        return self._train if name == "train" else self._val

    def _split(self, name: str, size: int) -> _Split:
        if (name, size) not in self._splits:
            annotations = self._annotations(name)
            cache = open_cache(annotations, size, cache_root(self.config.data.cache_folder))
            data = on_device(labelled(annotations, cache), self.torch_device)
            self._splits[name, size] = _Split(annotations, cache, data)
        return self._splits[name, size]

    def _evaluator(self, name: str) -> CocoEvaluator:
        if name not in self._evaluators:
            # The terciles of object sizes are those of all of train, so that reward and val figures compare.
            self._evaluators[name] = CocoEvaluator(
                self._train.subset(self._rows[1]) if name == "train" else self._val, sizes_of=self._train
            )
        return self._evaluators[name]

    def evaluate(
        self,
        genotype: Architecture,
        *,
        seed: int,
        fidelity: Fidelity | None = None,
        attempt: int = 0,
        folder: Path | None = None,
        report: Report | None = None,
        until: int | None = None,
    ) -> Evaluation | Failure:
        """Train a genotype and evaluate it on the reward images.

        Args:
            genotype: what is built.
            seed: everything random is derived from it, and from nothing else.
            fidelity: how much training; None for the task's own.
            attempt: 0, or how often a worker was lost with this trial; changes nothing in the result.
            folder: the trial's own folder, where its checkpoint is kept, from which a call with the same arguments
                goes on that follows one that was interrupted; the result is the same, and only the epochs not
                reported before are. Who keeps the result removes the checkpoint. None for no checkpoints.
            report: called after each epoch.
            until: an epoch before the last, after which AP is measured: where to pause. The result is then as of that
                epoch, `stopped_after` it, and a call with another `until` goes on from the checkpoint.

        Returns:
            An Evaluation, or a Failure that says what went wrong.
        """
        return _guarded(lambda: self._trial(genotype, seed, fidelity or self.fidelity, report, folder, until=until)[0])

    def replay(
        self,
        genotype: Architecture,
        *,
        seed: int,
        folder: Path | None = None,
        report: Report | None = None,
        scaling: Scaling | None = None,
    ) -> tuple[Evaluation | Failure, dict[str, float | None]]:
        """Do the same training and evaluate it on the reward images and on val.

        Args:
            folder: as `evaluate` has it; the trained weights are kept there, as weights.safetensors.
            scaling: another width than the task's, such as SCALINGS["49"].

        Returns:
            What `evaluate` returns, and the metrics on val (empty after a Failure).
        """

        def train() -> tuple[Evaluation, dict[str, float | None]]:
            fidelity = self.fidelity if scaling is None else replace(self.fidelity, scaling=scaling)
            evaluation, network, spec = self._trial(genotype, seed, fidelity, report, folder)
            if folder is not None:
                try:
                    save_detector(folder / "weights.safetensors", network, spec)
                except UserError as error:  # a full disk must not cost the figures
                    logger.warning("the trained weights are not kept: %s", error)
            return evaluation, self._metrics(network, "val", self._val_rows, fidelity)

        result = _guarded(train)
        return (result, {}) if isinstance(result, Failure) else result

    def validate(
        self,
        genotype: Architecture,
        *,
        seed: int,
        folder: Path,
        fidelity: Fidelity | None = None,
        report: Report | None = None,
    ) -> Evaluation | Failure:
        """Do what `evaluate` does, and keep in the folder what the trained network detects on val.

        The result has no figure of val: those follow from all trainings together, by `val_matches`.
        """

        def train() -> Evaluation:
            chosen = fidelity or self.fidelity
            evaluation, network, _ = self._trial(genotype, seed, chosen, report, folder)
            save_detections(folder / VAL_DETECTIONS, self._detections(network, "val", self._val_rows, chosen))
            return evaluation

        return _guarded(train)

    def val_matches(self, folder: Path) -> Matches:
        """Compare what `validate` kept in a folder with the annotations of val. Raises UserError."""
        return self._evaluator("val").matches(load_detections(folder / VAL_DETECTIONS))

    def _trial(
        self,
        genotype: Architecture,
        seed: int,
        fidelity: Fidelity,
        report: Report | None,
        folder: Path | None,
        *,
        until: int | None = None,
    ) -> tuple[Evaluation, RetinaNet, DetectorSpec]:
        """Train, and evaluate on the reward images; raises what goes wrong."""
        use_threads(self.threads)
        config, device = self.config.with_dialect(), self.torch_device
        train = replace(config.train, epochs=fidelity.epochs, batch_size=fidelity.batch_size)
        rows = self._trained_on(fidelity)
        split = self._split("train", fidelity.image_size_pixels)
        reset_peak_memory(device)
        attempt_started = time.perf_counter()
        compiles = train.compile != "off"
        if compiles:
            prepare_compilation(cache_root(config.data.cache_folder) / "compiled")
        compiled_before = compile_seconds() if compiles else 0.0
        network, spec, cost = self._build(genotype, seed, fidelity, len(rows))

        checkpoints = _Checkpoints(folder, self._identity(genotype, network, seed, fidelity))
        start, progress = checkpoints.load()
        curve, eval_seconds = list(progress.curve), progress.eval_seconds
        started = attempt_started - progress.train_seconds - progress.eval_seconds

        def reward_metrics() -> dict[str, float | None]:
            nonlocal eval_seconds
            eval_started = time.perf_counter()
            if config.eval.bn_images:
                # Training does not look at what is replaced; the weights that are kept are those that were measured.
                estimate_batch_norms(
                    network,
                    split.data,
                    rows,
                    num_images=config.eval.bn_images,
                    device=device,
                    dtype=train.dtype,
                )
            metrics = self._metrics(network, "train", self._rows[1], fidelity)
            eval_seconds += time.perf_counter() - eval_started
            return metrics

        def keep(state: TrainState) -> None:
            train_seconds = time.perf_counter() - started - eval_seconds
            checkpoints.save(state, checkpoint.Progress(tuple(curve), train_seconds, eval_seconds))

        def after_epoch(state: TrainState, figures: dict[str, float]) -> bool:
            every = config.eval.every_epochs
            if every and state.epoch % every == 0 and state.epoch < train.epochs:
                figures = {**figures, "AP": reward_metrics()["AP"] or 0.0}
            curve.append({"epoch": state.epoch, **figures})
            keep(state)  # before the report: no epoch is reported twice
            if report is not None:
                report(state.epoch, figures)
            return state.epoch != until

        # An attempt whose word was lost may have come to the epoch, or further, before this one.
        if until is None or len(curve) < until:
            train_detector(
                network,
                split.data,
                rows,
                seed=seed,
                device=device,
                train=train,
                loss=config.loss,
                decay_depthwise=DIALECTS[config.dialect].decay_depthwise,
                after_epoch=after_epoch,
                start=start,
            )
        train_seconds = time.perf_counter() - started - eval_seconds
        is_paused = until is not None and len(curve) >= until
        if is_paused:
            curve = curve[:until]
            metrics: dict[str, float | None] = {"AP": curve[-1]["AP"]}
        else:
            metrics = reward_metrics()
            curve[-1]["AP"] = metrics["AP"] or 0.0
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
        return evaluation, network, spec

    def _build(
        self, genotype: Architecture, seed: int, fidelity: Fidelity, num_images: int
    ) -> tuple[RetinaNet, DetectorSpec, Cost]:
        """Return the detector of a trial on the device, what it is built from, and its cost."""
        config, train = self.config.with_dialect(), self.config.train
        num_steps = fidelity.epochs * steps_per_epoch(num_images, fidelity.batch_size)
        spec = DetectorSpec(
            name=genotype.text,
            architecture=genotype.text,
            scaling=fidelity.scaling,
            head=config.head,
            category_ids=tuple(self._train.category_ids.tolist()),
            category_names=self._train.category_names,
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
        network.to(self.torch_device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        assert network.backbone.network_key() == network_key(genotype), "the network built is not the one proposed"
        cost = self.cost(genotype, fidelity.scaling, fidelity.image_size_pixels)
        assert num_parameters(network) == cost.params, "the network built has other parameters than the arithmetic says"
        return network, spec, cost

    def probe(
        self,
        genotype: Architecture,
        fidelity: Fidelity | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> Probe:
        """Train a few steps and detect on a few images, to see that it works and what a whole trial would take.

        Args:
            fidelity: of the trial; None for the task's own.
            clock: seconds.

        Raises whatever goes wrong.
        """
        use_threads(self.threads)
        fidelity = fidelity or self.fidelity
        config, device = self.config.with_dialect(), self.torch_device
        train = replace(config.train, epochs=1, batch_size=fidelity.batch_size)
        train_rows = self._trained_on(fidelity)[: fidelity.batch_size]
        reward_rows = self._rows[1][: config.eval.batch_size]
        if fidelity.image_size_pixels == config.image_size_pixels:
            data = self._split("train", config.image_size_pixels).data
        else:  # a few steps are not worth decoding all images at another size
            few = self._train.subset(np.concatenate([train_rows, reward_rows]))
            cache = open_cache(few, fidelity.image_size_pixels, cache_root(config.data.cache_folder))
            data = on_device(labelled(few, cache), device)
            train_rows, reward_rows = np.split(np.arange(len(few.image_ids)), [len(train_rows)])
        if train.compile != "off":
            prepare_compilation(cache_root(config.data.cache_folder) / "compiled")
        reset_peak_memory(device)
        network, _, _ = self._build(genotype, 0, fidelity, fidelity.num_train_images)

        def train_steps(count: int) -> None:
            train_detector(
                network,
                data,
                np.resize(train_rows, count * train.batch_size),
                seed=0,
                device=device,
                train=train,
                loss=config.loss,
                decay_depthwise=DIALECTS[config.dialect].decay_depthwise,
                after_epoch=lambda state, figures: True,
            )

        def detect_batch() -> None:
            detect(network, data, reward_rows, device=device, config=config.eval, dtype=self.dtype)

        train_steps(1)  # the first one of each takes longer
        step_seconds = _seconds(clock, lambda: train_steps(PROBE_STEPS)) / PROBE_STEPS
        peak = peak_memory_bytes(device)
        detect_batch()
        detect_seconds = _seconds(clock, detect_batch) / len(reward_rows)
        trial_seconds = self.trial_seconds(fidelity, step_seconds=step_seconds, detect_seconds=detect_seconds)
        return Probe(step_seconds, detect_seconds, trial_seconds, peak)

    def trial_seconds(self, fidelity: Fidelity, *, step_seconds: float, detect_seconds: float) -> float:
        """Time of a whole trial by that of a training step and of detection in an image.

        An image that statistics of batch norms are estimated from takes a pass forward, a third of its training.
        """
        num_steps = fidelity.epochs * steps_per_epoch(fidelity.num_train_images, fidelity.batch_size)
        every = self.config.eval.every_epochs
        num_evaluations = 1 + ((fidelity.epochs - 1) // every if every else 0)
        bn_images = min(self.config.eval.bn_images, fidelity.num_train_images)
        evaluation = len(self._rows[1]) * detect_seconds + bn_images * step_seconds / fidelity.batch_size / 3
        return num_steps * step_seconds + num_evaluations * evaluation

    def _identity(
        self, genotype: Architecture, network: RetinaNet, seed: int, fidelity: Fidelity
    ) -> checkpoint.Identity:
        """All that the figures of a trial depend on."""
        layout = [[name, list(tensor.shape)] for name, tensor in network.state_dict().items()]
        return {
            "task": self.key,
            "eval": asdict(self.config.eval),
            "architecture": genotype.text,
            "network": network.backbone.network_key(),
            "tensors": hashlib.sha256(canonical_json(layout).encode()).hexdigest(),
            "seed": seed,
            "fidelity": asdict(fidelity),
            "torch": str(torch.__version__),
            "device": self.device,
            "dtype": self.dtype,
            "threads": self.threads,
        }

    def cost(self, genotype: Architecture, scaling: Scaling | None = None, image_size: int | None = None) -> Cost:
        """Parameters and multiply-adds of the task's detector, at the task's or another scaling and size."""
        return retinanet_cost(
            genotype,
            scaling or self.config.scaling,
            image_size or self.config.image_size_pixels,
            class_channels=self.class_channels,
            **self.config.head.as_cost_arguments(),
        )

    @property
    def _val_rows(self) -> NDArray[np.int64]:
        return np.arange(len(self._val.image_ids))

    def _metrics(
        self, network: RetinaNet, name: str, rows: NDArray[np.int64], fidelity: Fidelity
    ) -> dict[str, float | None]:
        return self._evaluator(name).evaluate(self._detections(network, name, rows, fidelity))

    def _detections(self, network: RetinaNet, name: str, rows: NDArray[np.int64], fidelity: Fidelity) -> Detections:
        split = self._split(name, fidelity.image_size_pixels)
        found = detect(
            network,
            split.data,
            rows,
            device=self.torch_device,
            config=self.config.with_dialect().eval,
            dtype=self.dtype,
        )
        return on_originals(found, split.annotations, split.cache, split.annotations.category_ids)


class _Checkpoints:
    """The checkpoints of one trial in its folder, if it has one; what cannot be written there is told once."""

    def __init__(self, folder: Path | None, identity: checkpoint.Identity):
        self._path = None if folder is None else folder / CHECKPOINT
        self._identity = identity
        self._was_told = False

    def load(self) -> tuple[TrainState | None, checkpoint.Progress]:
        """Return where an earlier attempt was, or the beginning."""
        found = None if self._path is None else checkpoint.load(self._path, self._identity)
        return found or (None, checkpoint.Progress())

    def save(self, state: TrainState, progress: checkpoint.Progress) -> None:
        if self._path is None:
            return
        try:
            checkpoint.save(self._path, state, progress, self._identity)
        except OSError as error:  # a full disk must not cost the training
            if not self._was_told:
                logger.warning("the training goes on without a new checkpoint: %s", error)
            self._was_told = True


def _guarded(train: Callable[[], T]) -> T | Failure:
    """Do a training; what goes wrong in it is a Failure."""
    try:
        return train()
    except Exception as error:
        kind = failure_kind(error)
        return Failure(kind, str(error) or type(error).__name__, traceback.format_exc())


def _seconds(clock: Callable[[], float], do: Callable[[], None]) -> float:
    started = clock()
    do()
    return clock() - started


def failure_kind(error: Exception) -> FailureKind:
    """Tell what kind of failure an exception of a trial is."""
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


def _rebuild(config: TaskConfig, device: str, threads: int) -> ProxyTask:
    return ProxyTask(config, device=device, threads=threads)
