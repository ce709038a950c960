"""Predicts time and memory of a trial from architecture and fidelity: linear in the counts of `space.cost`.

A model is fitted to a few probes. It belongs to a device and a setting (`setting_of`): number format, threads, head,
optimiser and so on. It holds for any architecture, image size, width, batch size, number of images and epochs.
Predictions never influence a search.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls

from spinenas.proxy_task.data.cache_folder import cache_root
from spinenas.proxy_task.probe import Probe
from spinenas.proxy_task.task import ProxyTask
from spinenas.proxy_task.training.device import device_name
from spinenas.proxy_task.trial import failure_kind
from spinenas.results.record import FailureKind, Fidelity
from spinenas.results.storage.atomic_write import write_text_atomically
from spinenas.space.baseline import Architecture
from spinenas.space.cost import MIN_IMAGE_SIZE, Cost
from spinenas.space.errors import UserError, explained_os_errors, first_line
from spinenas.space.genotype import Genotype, canonical_json
from spinenas.space.published import SPINENET_49
from spinenas.space.random_streams import generator
from spinenas.space.search_space import SearchSpace

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
"""Part of every setting; raise it when a feature changes, so that old coefficients are ignored."""

NUM_CANDIDATES = 200
"""Number of random genotypes from which the extremes are probed."""

ROUNDS = 2
"""Repetitions of every probe. The fastest counts, because other processes can only slow a probe down."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A probe: the genotype, its computed cost, the fidelity, and the measurements."""

    genotype: str
    cost: Cost
    fidelity: Fidelity
    probe: Probe


@dataclass(frozen=True, slots=True)
class Fit:
    """Linear model of one predicted figure.

    Attributes:
        coefficients: one for each feature, none below 0.
        median_error, largest_error: leave-one-out errors of the probes, as a share of the measured value.
    """

    coefficients: tuple[float, ...]
    median_error: float
    largest_error: float


@dataclass(frozen=True, slots=True)
class CostModel:
    """Predicts what `ProxyTask.probe` measures.

    Attributes:
        step_seconds, detect_seconds: see `Probe`.
        peak_memory_bytes: None if the device does not measure it.
        samples: the probes it was fitted to.
    """

    step_seconds: Fit
    detect_seconds: Fit
    peak_memory_bytes: Fit | None
    samples: tuple[Sample, ...]

    def predict(self, task: ProxyTask, architecture: Architecture, fidelity: Fidelity | None = None) -> Probe:
        """Return the predicted time and memory of a trial; fidelity None means the task's own."""
        fidelity = fidelity or task.fidelity
        cost = task.cost(architecture, fidelity.scaling, fidelity.image_size_pixels)
        step_seconds = _value(self.step_seconds, step_features(cost, fidelity))
        detect_seconds = _value(self.detect_seconds, detect_features(cost, fidelity))
        peak = self.peak_memory_bytes
        return Probe(
            step_seconds,
            detect_seconds,
            task.trial_seconds(fidelity, step_seconds=step_seconds, detect_seconds=detect_seconds),
            None if peak is None else round(_value(peak, memory_features(cost, fidelity))),
        )


Features = Callable[[Cost, Fidelity], list[float]]


def step_features(cost: Cost, fidelity: Fidelity) -> list[float]:
    """Return a constant, the convolutions started, the parameters updated, and the work that grows with the batch."""
    return [1.0, cost.convs, cost.params, *_batch_features(cost, fidelity)]


def detect_features(cost: Cost, fidelity: Fidelity) -> list[float]:
    """Return the features of detection in one image; the evaluation batch size is part of the setting."""
    return [1.0, cost.convs, *_batch_features(cost, replace(fidelity, batch_size=1))]


def memory_features(cost: Cost, fidelity: Fidelity) -> list[float]:
    """Return fixed overhead, parameters (with gradients and optimiser state), and saved activations."""
    return [1.0, cost.params, fidelity.batch_size * cost.activations, _pixels(fidelity)]


def _batch_features(cost: Cost, fidelity: Fidelity) -> list[float]:
    return [fidelity.batch_size * cost.madds, fidelity.batch_size * cost.activations, _pixels(fidelity)]


def _pixels(fidelity: Fidelity) -> float:
    """Return the pixels of a batch, with which images, anchors, predictions and losses grow."""
    return fidelity.batch_size * fidelity.image_size_pixels**2


def _value(fit: Fit, features: Sequence[float]) -> float:
    return float(np.dot(fit.coefficients, features))


def fit_model(samples: Sequence[Sample]) -> CostModel:
    """Fit all figures to the probes."""
    peaks = [sample.probe.peak_memory_bytes for sample in samples]
    return CostModel(
        _fit(samples, step_features, [sample.probe.step_seconds for sample in samples]),
        _fit(samples, detect_features, [sample.probe.detect_seconds for sample in samples]),
        None if None in peaks else _fit(samples, memory_features, [float(peak or 0) for peak in peaks]),
        tuple(samples),
    )


def _fit(samples: Sequence[Sample], features: Features, measured: Sequence[float]) -> Fit:
    """Fit one figure to the probes, and measure its leave-one-out errors."""
    rows = np.array([features(sample.cost, sample.fidelity) for sample in samples])
    values = np.array(measured)
    errors = []
    for left_out in range(len(values)):
        others = np.arange(len(values)) != left_out
        predicted = rows[left_out] @ _coefficients(rows[others], values[others])
        errors.append(abs(predicted / values[left_out] - 1))
    return Fit(tuple(_coefficients(rows, values).tolist()), float(np.median(errors)), float(np.max(errors)))


def _coefficients(rows: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the non-negative least-squares solution for relative errors.

    Args:
        rows: (N, F) features.
        values: (N,) above 0.
    """
    relative = rows / values[:, None]
    scales = np.maximum(relative.max(axis=0), np.finfo(float).tiny)  # features differ by nine orders of magnitude
    found, _ = nnls(relative / scales, np.ones(len(values)))
    return np.asarray(found / scales)


def calibrate(task: ProxyTask, space: SearchSpace, note: Callable[[str], None]) -> CostModel:
    """Probe a few genotypes at a few fidelities, and fit a model; about a minute on a CPU for `quickstart`.

    With one thread on a CPU, it measures processor time, which other processes disturb less.

    Args:
        task: prepared.
        space: source of the genotypes.
        note: called with progress messages.

    Raises UserError when memory runs out.
    """
    is_alone = task.device == "cpu" and task.threads == 1
    clock = time.process_time if is_alone else time.perf_counter
    genotypes = probed_genotypes(task, space)
    jobs = [(genotype, fidelity) for fidelity in probed_fidelities(task.fidelity) for genotype in genotypes]
    fastest: list[Probe | None] = [None] * len(jobs)
    try:
        task.probe(*jobs[0])  # torch loads some of its parts at first use
        for turn in range(ROUNDS):
            note(f"calibrating, round {turn + 1} of {ROUNDS}: {len(jobs)} probes")
            for index, (genotype, fidelity) in enumerate(jobs):
                fastest[index] = _faster(fastest[index], task.probe(genotype, fidelity, clock=clock))
    except Exception as error:
        if failure_kind(error) is not FailureKind.OUT_OF_MEMORY:
            raise
        raise UserError(
            f"a training step runs out of memory ({first_line(error)}); choose a smaller task.train.batch_size"
        ) from error
    return fit_model(
        [
            Sample(genotype.text, task.cost(genotype, fidelity.scaling, fidelity.image_size_pixels), fidelity, probe)
            for (genotype, fidelity), probe in zip(jobs, fastest, strict=True)
            if probe is not None
        ]
    )


def _faster(one: Probe | None, other: Probe) -> Probe:
    """Return the smaller value of each figure."""
    if one is None:
        return other
    peaks = [peak for peak in (one.peak_memory_bytes, other.peak_memory_bytes) if peak is not None]
    return Probe(
        min(one.step_seconds, other.step_seconds),
        min(one.detect_seconds, other.detect_seconds),
        min(one.trial_seconds, other.trial_seconds),
        min(peaks, default=None),
    )


def random_genotypes(space: SearchSpace, count: int) -> list[Genotype]:
    """Return genotypes from a random stream that no controller uses."""
    return [space.sample(generator(0, "cost-model", number)) for number in range(count)]


def probed_genotypes(task: ProxyTask, space: SearchSpace) -> list[Genotype]:
    """Return the extremes of many random genotypes by madds and by activations, and SpineNet-49 if the space has it."""
    candidates = random_genotypes(space, NUM_CANDIDATES)
    costs = [task.cost(genotype) for genotype in candidates]
    chosen = []
    for counts in ([cost.madds for cost in costs], [cost.activations for cost in costs]):
        chosen += [candidates[int(np.argmin(counts))], candidates[int(np.argmax(counts))]]
    try:
        space.check(SPINENET_49)
        chosen.append(SPINENET_49)
    except UserError:
        pass
    return list(dict.fromkeys(chosen))


def probed_fidelities(fidelity: Fidelity) -> list[Fidelity]:
    """Return the task's fidelity, and it with half the batch, half the width, or smaller images.

    None is larger than the task's, because that might not fit into memory.
    """
    scaling = fidelity.scaling
    smaller = max(MIN_IMAGE_SIZE, fidelity.image_size_pixels * 3 // 4 // 32 * 32)
    changed = [
        replace(fidelity, batch_size=max(min(2, fidelity.batch_size), fidelity.batch_size // 2)),
        replace(fidelity, scaling=replace(scaling, filter_scale=scaling.filter_scale / 2)),
        fidelity if fidelity.batch_size == 1 else replace(fidelity, image_size_pixels=smaller),
    ]
    return list(dict.fromkeys([fidelity, *changed]))


def setting_of(task: ProxyTask) -> dict[str, Any]:
    """Return all that a model depends on besides architecture and fidelity."""
    config = task.config.with_dialect()
    train, detection = config.train, config.eval
    return {
        "format": FORMAT_VERSION,
        "device": device_name(task.torch_device),
        "torch": str(torch.__version__),
        "dtype": task.dtype,
        "threads": task.threads,
        "dialect": config.dialect,
        "head": asdict(config.head),
        "class_channels": task.class_channels,
        "optimizer": train.optimizer,
        "activation": train.activation,
        "has_stochastic_depth": train.stochastic_depth > 0,
        "clips": train.gradient_clip_norm is not None,
        "compile": train.compile,
        "detect_batch_size": detection.batch_size,
        "pre_nms_top": detection.pre_nms_top,
        "max_detections": detection.max_detections,
    }


def model_path(task: ProxyTask) -> Path:
    """Return the file of the model for this device and setting, in the cache folder."""
    name = hashlib.sha256(canonical_json(setting_of(task)).encode()).hexdigest()[:16]
    return cache_root(task.config.data.cache_folder) / "cost_models" / f"{name}.json"


def save_model(model: CostModel, task: ProxyTask) -> Path:
    """Store a model for this device and setting, and return its file. Raises UserError."""
    path = model_path(task)
    document = {"setting": setting_of(task), **asdict(model)}
    remedy = "name another folder by task.data.cache_folder or SPINENAS_CACHE"
    with explained_os_errors(f"cannot write {path}", remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path, json.dumps(document, indent=1, allow_nan=False) + "\n")
    return path


def load_model(task: ProxyTask) -> CostModel | None:
    """Return the stored model for this device and setting; None if there is none, or it cannot be read."""
    path = model_path(task)
    try:
        return pydantic.TypeAdapter(CostModel).validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be read (%s); calibrate again", path, first_line(error))
        return None
