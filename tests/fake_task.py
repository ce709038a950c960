"""A task that trains nothing: its objective depends on genotype and seed, and a test chooses its failures."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spinenas.results.record import Evaluation, Failure, FailureKind, Fidelity, Report
from spinenas.results.stats.bootstrap import Matches
from spinenas.results.storage.run_folder import VAL_DETECTIONS
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key
from spinenas.space.random_streams import generator
from spinenas.space.scaling import Scaling


@dataclass
class FakeTask:
    """Takes `num_epochs` epochs of `epoch_seconds` per trial. It keeps no checkpoints: each attempt starts over.

    Attributes:
        fail: outcome by trial number: a failure kind to return, or "raise".
        kill_worker: (number, attempt) pairs in which the process kills itself after the first epoch.
        interrupt_at: a trial number that raises KeyboardInterrupt.
        scale: factor on every objective.
        measures_ap: whether AP is measured after each epoch; it is always measured before a pause.
    """

    num_epochs: int = 2
    epoch_seconds: float = 0.0
    fail: dict[int, str] = field(default_factory=dict)
    kill_worker: frozenset[tuple[int, int]] = frozenset()
    interrupt_at: int | None = None
    scale: float = 1.0
    measures_ap: bool = False
    key: str = "fake-task"
    fingerprint: dict[str, Any] = field(default_factory=lambda: {"train": "abc", "num_train_images": 10})
    device: str = "cpu"
    dtype: str = "float32"
    num_prepared: int = 0

    @property
    def fidelity(self) -> Fidelity:
        return Fidelity(self.num_epochs, 96, 2, 10, Scaling("fake", 0.25, 64, 0.25, 1))

    def prepare(self, *, with_val: bool = False) -> None:
        self.num_prepared += 1

    def evaluate(
        self,
        genotype: Genotype,
        *,
        seed: int,
        fidelity: Fidelity | None,
        attempt: int,
        folder: Path,
        report: Report,
        until: int | None = None,
    ) -> Evaluation | Failure:
        number = int(folder.name)
        curve = []
        for epoch in range(1, self.num_epochs + 1):
            time.sleep(self.epoch_seconds)
            figures = {"loss": 1 / epoch}
            if self.measures_ap:
                figures["AP"] = objective_after(epoch, self.num_epochs, genotype, seed)
            curve.append({"epoch": epoch, **figures})
            report(epoch, figures)
            if (number, attempt) in self.kill_worker:
                os.kill(os.getpid(), signal.SIGKILL)
            if epoch == until:
                break
        if number == self.interrupt_at:
            raise KeyboardInterrupt
        outcome = self.fail.get(number)
        if outcome == "raise":
            raise ZeroDivisionError("a bug in the task")
        if outcome is not None:
            return Failure(FailureKind(outcome), f"trial {number} was told to fail")
        is_paused = until is not None and until < self.num_epochs
        return Evaluation(
            objective=self.scale * objective_after(len(curve), self.num_epochs, genotype, seed),
            curve=tuple(curve),
            params=1000,
            madds=10**6,
            network_key=network_key(genotype),
            train_seconds=0.1,
            stopped_after=until if is_paused else None,
        )


@dataclass
class FakeValTask(FakeTask):
    """A fake task with a val split of 40 images. The chance of finding an object is the network's objective.

    Attributes:
        num_val_looks: number of accesses to val.
        val_name: name of val in the fingerprint.
    """

    num_val_looks: int = 0
    val_name: str = "val"

    def prepare(self, *, with_val: bool = False) -> None:
        super().prepare()
        self.num_val_looks += with_val

    @property
    def val_fingerprint(self) -> dict[str, Any]:
        self.num_val_looks += 1
        return {"val_annotations": self.val_name}

    def evaluate_with_val(
        self, architecture: Genotype, *, attempt: int, folder: Path, keep_weights: bool = False, **options: Any
    ) -> Evaluation | Failure:
        self.num_val_looks += 1
        (folder / f"attempt-{attempt}").touch()
        result = self.evaluate(architecture, attempt=attempt, folder=folder, **options)
        if isinstance(result, Evaluation):
            (folder / VAL_DETECTIONS).write_text(repr(result.objective))
            if keep_weights:
                (folder / "weights.safetensors").touch()
        return result

    def val_matches(self, folder: Path) -> Matches:
        self.num_val_looks += 1
        return matches_of(float((folder / VAL_DETECTIONS).read_text()))

    def val_metrics(self, folder: Path) -> dict[str, float | None]:
        return {"AP": self.val_matches(folder).average_precision(), "AP50": None}


def matches_of(quality: float, num_images: int = 40) -> Matches:
    """Return one object and one detection per image; the detection is a hit with probability `quality`."""
    rng = generator(0, f"matches/{quality}")
    hits = np.repeat(rng.random((1, num_images)) < quality, 10, axis=0)
    images = np.arange(num_images)
    return Matches(
        images,
        np.zeros_like(images),
        rng.random(num_images),
        hits,
        np.zeros_like(hits),
        np.ones((num_images, 1), dtype=np.int64),
    )


def objective_of(genotype: Genotype, seed: int) -> float:
    """Return 0.9 times a quality of the genotype plus 0.1 times the luck of the seed."""
    quality = generator(0, f"quality/{genotype.key}").random()
    luck = generator(seed, f"luck/{genotype.key}").random()
    return float(0.9 * quality + 0.1 * luck)


def objective_after(epoch: int, num_epochs: int, genotype: Genotype, seed: int) -> float:
    """Return the objective after an epoch. Curves cross before the last epoch, which has `objective_of`."""
    share = epoch / num_epochs
    noise = generator(seed, f"epoch {epoch}/{genotype.key}").random()
    return float(share * objective_of(genotype, seed) + 0.6 * (1 - share) * noise)
