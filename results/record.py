"""Results and records of trials, as plain data.

Everything here converts to JSON and back, and never holds NaN: an undefined metric is None, and a training that went
wrong is a `Failure`. Higher is better everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from spinenas.space.genotype import Genotype
from spinenas.space.scaling import Scaling

Report = Callable[[int, dict[str, float]], None]
"""Called by a training with the epoch, counted from 1, and its figures, when the epoch is over."""

COCO_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The twelve COCO box metrics in the order of pycocotools' `COCOeval.stats`."""


class FailureKind(StrEnum):
    """Why a trial failed."""

    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    WORKER_LOST = "worker_lost"
    PREEMPTED = "preempted"
    INVALID_GENOTYPE = "invalid_genotype"
    INVALID_DATA = "invalid_data"
    BUG = "bug"


class Stage(StrEnum):
    """Purpose of a training."""

    SEARCH = "search"
    RERANK = "rerank"
    VALIDATE = "validate"
    FULL = "full"


class Status(StrEnum):
    """Status of a trial; `trial_moves.next_status` decides which moves are legal.

    INTERRUPTED is what readers call a running trial of a run that no process works on; no event leads to it.
    """

    ASKED = "asked"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    PAUSED = "paused"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How much training a result stands for; never in seconds.

    Attributes:
        epochs: passes over the training images.
        image_size_pixels: side of the square input.
        batch_size: images per step.
        num_train_images: training images, without the held-out ones.
        scaling: width, alpha and repeats the genotype is built with.
    """

    epochs: int
    image_size_pixels: int
    batch_size: int
    num_train_images: int
    scaling: Scaling

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Fidelity:
        return cls(**{**data, "scaling": Scaling(**data["scaling"])})


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of a finished training.

    Attributes:
        objective: the task's reward, COCO AP on the held-out reward images, 0 to 1.
        metrics: COCO_METRICS and AP by object-size tercile; None where undefined (no object of that size).
        curve: one entry per epoch: losses, learning rate, and AP where it was evaluated.
        params: trainable parameters of the detector that was trained.
        madds: multiply-adds of that detector for one image.
        network_key: identity of the network that was built, read from the module.
        train_seconds: time in training, compilation included.
        compile_seconds: time in compilation; None where nothing is compiled.
        eval_seconds: time in evaluation.
        peak_memory_bytes: largest resident (CPU) or allocated (accelerator) memory of the trial.
        stopped_after: epoch after which the training was stopped or paused; all figures are as of that epoch, and are
            not compared with those of complete trainings. None for a complete training.
        by_epoch: (epoch, objective) after each epoch that measured it, in order, the last one included; empty where it
            was not kept, as in runs of versions before 0.2.
    """

    objective: float
    metrics: dict[str, float | None] = field(default_factory=dict)
    curve: tuple[dict[str, float], ...] = ()
    params: int | None = None
    madds: int | None = None
    network_key: str | None = None
    train_seconds: float | None = None
    compile_seconds: float | None = None
    eval_seconds: float | None = None
    peak_memory_bytes: int | None = None
    stopped_after: int | None = None
    by_epoch: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        if not math.isfinite(self.objective):
            raise ValueError(f"objective is {self.objective}; a run without a finite one is a Failure(diverged)")

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        data["curve"] = list(self.curve)
        data["by_epoch"] = [list(pair) for pair in self.by_epoch]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Evaluation:
        by_epoch = tuple((epoch, objective) for epoch, objective in data.get("by_epoch", ()))
        return cls(**{**data, "curve": tuple(data.get("curve", ())), "by_epoch": by_epoch})


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a trial ended without a result: kind, one sentence, and the traceback if there was one."""

    kind: FailureKind
    message: str
    traceback: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"kind": str(self.kind), "message": self.message, "traceback": self.traceback}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Failure:
        return cls(FailureKind(data["kind"]), data["message"], data.get("traceback", ""))


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """Everything known about one trial: the proposal, how it ran, and its result.

    Attributes:
        number: 0, 1, 2, ... in the order of asking.
        architecture: the name of a baseline, or "genotype".
        genotype: what was proposed; None for baselines that have none.
        network_key: identity of the network that the genotype describes.
        fidelity: None for the task's own.
        replicate: seed index of the same network at the same fidelity.
        stage: purpose of the training.
        until: epoch at which its controller wanted it to pause first; None to train to the end.
        parent: number of the trial that it was derived from.
        origin: how the controller generated it, such as "random" or "mutation:swap".
        info: the controller's figures, such as log_prob or predicted.
        seed: source of weights, data order and augmentation.
        attempt: 0, plus 1 for each lost worker and each rung after which the trial continued.
        task_key: identity of the task; results of different keys are never ranked together.
        status: its current status.
        evaluation, failure: the result; at most one is set. Readers of a run also set the evaluation of an unfinished
            trial that has paused (`run_state.with_pauses`).
        asked_at, started_at, finished_at: UTC, ISO 8601.
        worker, device, dtype: where and how it ran.
    """

    number: int
    genotype: Genotype | None
    network_key: str
    status: Status
    architecture: str = "genotype"
    fidelity: Fidelity | None = None
    replicate: int = 0
    stage: Stage = Stage.SEARCH
    until: int | None = None
    parent: int | None = None
    origin: str = ""
    info: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    attempt: int = 0
    task_key: str = ""
    evaluation: Evaluation | None = None
    failure: Failure | None = None
    asked_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    worker: str | None = None
    device: str | None = None
    dtype: str | None = None
