"""Reads the AP after each epoch of complete trainings, from a run or from a table of trainings."""

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

MIN_NETWORKS = 20
"""Minimum number of networks to fit a landscape to, or to replay a search on."""


@dataclass(frozen=True, slots=True)
class MeasuredCurve:
    """One complete training.

    Attributes:
        network_key: identity of the network that was built.
        genotype: None for a baseline.
        replicate: seed index of the network.
        ap_by_epoch: AP after the last epoch, and after earlier epochs where it was measured.
        ap: final AP, the objective.
        madds: multiply-adds of the detector for one image; None if unknown.
        seconds: time of training and evaluation.
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
    """Complete trainings in the order of their numbers.

    Attributes:
        path: folder of the run, or file of the table.
        space: the search space of the networks.
        data: fingerprints of the data sets.
        trainings: those at the task's own fidelity; one whose batch was reduced for lack of memory is left out.
        num_stopped: number of trainings that halving stopped early, and that are left out.
    """

    path: Path
    space: SearchSpace
    data: dict[str, Any]
    trainings: tuple[MeasuredCurve, ...]
    num_stopped: int = 0

    def aps(self, epoch: int | None = None) -> dict[str, list[float]]:
        """Return APs by network key, after an epoch, or the final ones for None."""
        found: dict[str, list[float]] = {}
        for training in self.trainings:
            ap = training.ap if epoch is None else training.ap_by_epoch.get(epoch)
            if ap is not None:
                found.setdefault(training.network_key, []).append(ap)
        return found

    def networks(self, space: SearchSpace, *, use: str) -> dict[str, tuple[Genotype, list[float]]]:
        """Return genotype and APs by network key, for networks inside a space.

        Raises UserError for fewer than MIN_NETWORKS; `use` is the verb phrase of that message.
        """
        aps = self.aps()
        found = {key: (genotype, aps[key]) for key, genotype in self.genotypes().items() if space.contains(genotype)}
        if len(found) < MIN_NETWORKS:
            raise UserError(f"{self.path} has {len(found)} networks of {space.name}; {use} {MIN_NETWORKS} or more")
        return found

    def genotypes(self) -> dict[str, Genotype]:
        """Return genotypes by network key, without baselines."""
        return {training.network_key: training.genotype for training in self.trainings if training.genotype is not None}

    def epochs(self) -> list[int]:
        """Return the epochs after which AP was measured in at least one training."""
        return sorted({epoch for training in self.trainings for epoch in training.ap_by_epoch})


def measured_curves(path: Path) -> MeasuredCurves:
    """Read the curves of a run's folder or of a table. Raises UserError."""
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
