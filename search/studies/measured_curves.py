"""AP after each epoch of complete trainings, from a run's folder or a file that is a table of trainings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spinenas.results.record import Status
from spinenas.results.training_table import read_table
from spinenas.search.config.loading import stored_config
from spinenas.search.run.run import Run
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.search_space import SearchSpace, space_by_name

FEWEST_NETWORKS = 20
"""From fewer nothing is learnt, and no search is replayed on them."""


@dataclass(frozen=True, slots=True)
class MeasuredCurve:
    """One complete training.

    Attributes:
        network_key: identity of the network that was built.
        genotype: None for a baseline.
        replicate: seed index of the network.
        ap_by_epoch: after the last epoch, and after earlier ones where it was measured.
        ap: what the training is worth: after the last epoch, or of a task that has none.
        madds: of the detector, for one image; None if not known.
        seconds: of training and evaluation.
    """

    network_key: str
    genotype: Genotype | None
    replicate: int
    ap_by_epoch: dict[int, float]
    ap: float
    madds: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class MeasuredCurves:
    """What was trained, in the order of its numbers.

    Attributes:
        path: the run's folder, or the table.
        space: which the networks are of.
        data: fingerprints of the data sets.
        trainings: complete ones of the task's own fidelity, which one with smaller batches for want of memory is not.
        num_stopped: trainings that were stopped early for being weak, and are missing.
    """

    path: Path
    space: SearchSpace
    data: dict[str, Any]
    trainings: tuple[MeasuredCurve, ...]
    num_stopped: int = 0

    def aps(self, epoch: int | None = None) -> dict[str, list[float]]:
        """APs by network key, after an epoch or, with None, of whole trainings."""
        found: dict[str, list[float]] = {}
        for training in self.trainings:
            ap = training.ap if epoch is None else training.ap_by_epoch.get(epoch)
            if ap is not None:
                found.setdefault(training.network_key, []).append(ap)
        return found

    def networks(self, space: SearchSpace, *, use: str) -> dict[str, tuple[Genotype, list[float]]]:
        """Return by network key the networks that are of a space, with their APs; published ones may be of another.

        Raises UserError for fewer than FEWEST_NETWORKS; `use` says what is done with them.
        """
        aps = self.aps()
        found = {key: (genotype, aps[key]) for key, genotype in self.genotypes().items() if space.contains(genotype)}
        if len(found) < FEWEST_NETWORKS:
            raise UserError(f"{self.path} has {len(found)} networks of {space.name}; {use} {FEWEST_NETWORKS} or more")
        return found

    def genotypes(self) -> dict[str, Genotype]:
        """By network key; baselines have none."""
        return {training.network_key: training.genotype for training in self.trainings if training.genotype is not None}

    def epochs(self) -> list[int]:
        """After which AP was measured in some training."""
        return sorted({epoch for training in self.trainings for epoch in training.ap_by_epoch})


def measured_curves(path: Path) -> MeasuredCurves:
    """Read them. Raises UserError."""
    return _of_table(path) if path.is_file() else _of_run(path)


def _of_table(path: Path) -> MeasuredCurves:
    table = read_table(path)
    return MeasuredCurves(
        path=path,
        space=space_by_name(table.about["space"]),
        data=table.about["data"],
        trainings=tuple(
            MeasuredCurve(
                network_key=training.network_key,
                genotype=Genotype.from_text(training.genotype),
                replicate=training.replicate,
                ap_by_epoch=dict(enumerate(training.ap_by_epoch, start=1)),
                ap=training.ap,
                madds=training.madds,
                seconds=training.train_seconds + training.eval_seconds,
            )
            for training in table.trainings
        ),
    )


def _of_run(path: Path) -> MeasuredCurves:
    run = Run.open(path)
    records, trainings = run.records(), []
    for record in records:
        if record.status is not Status.COMPLETE or record.evaluation is None or record.fidelity is not None:
            continue
        found = record.evaluation
        curve = run.folder.read_curve(record.number)
        last = int(curve[-1]["epoch"]) if curve else 1
        measured = {int(entry["epoch"]): entry["AP"] for entry in curve if "AP" in entry}
        trainings.append(
            MeasuredCurve(
                network_key=record.network_key,
                genotype=record.genotype,
                replicate=record.replicate,
                ap_by_epoch=measured | {last: found.objective},
                ap=found.objective,
                madds=found.madds,
                seconds=(found.train_seconds or 0.0) + (found.eval_seconds or 0.0),
            )
        )
    return MeasuredCurves(
        path=path,
        space=space_by_name(stored_config(run.folder.config()).space.name),
        data=run.folder.run_info()["data"],
        trainings=tuple(trainings),
        num_stopped=sum(record.status is Status.PRUNED for record in records),
    )
