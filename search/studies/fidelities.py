"""Compares low-fidelity with high-fidelity trainings: rank agreement, and the savings of halving."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spinenas.results.stats.rank_correlation import Agreement, agreement, correlation, places
from spinenas.search.studies.halving_replay import replay_halving
from spinenas.search.studies.measured_curves import MeasuredCurves
from spinenas.space.errors import UserError
from spinenas.space.graph import built_graph, dead_blocks, depth, lost_levels, path_figures


@dataclass(frozen=True, slots=True)
class LowFidelity:
    """Rank agreement of a low-fidelity training with the high-fidelity reference.

    Attributes:
        name: folder of the run or name of the table, and the epoch unless it is the last.
        stops_early: whether it is an epoch before the last, where the learning rate is still high.
        rung: that epoch if the training is the reference itself, which a search can pause there.
        cost: median seconds of a training, relative to the reference.
        num_seeds: median number of trainings of an architecture.
        agreement: rank agreement of the mean APs.
    """

    name: str
    stops_early: bool
    cost: float
    num_seeds: int
    agreement: Agreement
    rung: int | None = None

    def row(self) -> dict[str, Any]:
        """Return a table row."""
        return {
            "fidelity": self.name,
            "cost": self.cost,
            "n": self.agreement.num_architectures,
            "seeds": self.num_seeds,
            "kendall": str(self.agreement.kendall),
            "weighted": str(self.agreement.weighted),
            "best third": str(self.agreement.top_third),
            "best kept": "yes" if self.agreement.best_kept else "no",
        }


def compare_fidelities(reference: MeasuredCurves, others: Sequence[MeasuredCurves]) -> list[LowFidelity]:
    """Compare how studies rank the architectures of a reference study, at each epoch with an AP.

    Earlier epochs of the reference are compared with its end as well. They show when to stop early. They do not predict
    a shorter training, whose learning rate decays sooner. Raises UserError.
    """
    for study in (reference, *others):
        if not study.trainings:
            raise UserError(f"{study.path} has no complete training; resume it")
    final, seconds = reference.aps(), _median_seconds(reference)
    found = []
    for study in (reference, *others):
        if study.data != reference.data:
            raise UserError(f"{study.path} has other data than {reference.path}; compare studies of the same data")
        epochs = study.epochs()
        for epoch in epochs:
            is_last = epoch == epochs[-1]
            if study is reference and is_last:
                continue
            aps = study.aps(epoch)
            common = sorted(aps.keys() & final.keys())
            if len(common) < 3:
                raise UserError(
                    f"{study.path} and {reference.path} have {len(common)} architectures in common; "
                    "make both with the same --seed and --genotypes"
                )
            found.append(
                LowFidelity(
                    name=str(study.path) if is_last else f"{study.path}, epoch {epoch}",
                    stops_early=not is_last,
                    cost=_median_seconds(study) * epoch / epochs[-1] / seconds,
                    num_seeds=int(statistics.median_low(len(aps[key]) for key in common)),
                    agreement=agreement(
                        np.array([statistics.fmean(aps[key]) for key in common]),
                        np.array([statistics.fmean(final[key]) for key in common]),
                    ),
                    rung=epoch if study is reference else None,
                )
            )
    if not found:
        raise UserError(
            f"there is nothing to compare {reference.path} with; add a low-fidelity study, or make a study with "
            "--set task.eval.every_epochs=1"
        )
    return sorted(found, key=lambda fidelity: fidelity.cost)


def recommended(fidelities: Sequence[LowFidelity], wanted: float) -> LowFidelity | None:
    """Return the fidelity of least cost whose Kendall's tau reaches `wanted`, or None."""
    taus = [(fidelity, fidelity.agreement.kendall.value) for fidelity in fidelities]
    return next((fidelity for fidelity, tau in taus if tau is not None and tau >= wanted), None)


def measured_rungs(fidelities: Sequence[LowFidelity], wanted: float) -> tuple[int, ...]:
    """Return the epochs at which a search should pause trainings of the reference task; empty if none ranks well.

    The first is the earliest that ranks all architectures with a Kendall's tau of `wanted`, the last the earliest that
    ranks their best third so as well.
    """
    overall = [
        (fidelity.rung, fidelity.agreement)
        for fidelity in fidelities
        if fidelity.rung is not None and (fidelity.agreement.kendall.value or 0) >= wanted
    ]
    of_best = next((rung for rung, agreement in overall if (agreement.top_third.value or 0) >= wanted), None)
    return () if of_best is None else tuple(sorted({overall[0][0], of_best}))


def advice(fidelities: Sequence[LowFidelity], wanted: float) -> list[str]:
    """Name the cheapest whole training, the earliest epoch whose Kendall's tau reaches `wanted`, and the rungs."""
    lines = []
    for stops_early, what in ((False, "whole trainings"), (True, "stopping early")):
        of_kind = [fidelity for fidelity in fidelities if fidelity.stops_early == stops_early]
        chosen = recommended(of_kind, wanted)
        if chosen is not None:
            tau = chosen.agreement
            lines.append(
                f"{what}: the cheapest that reaches {wanted:g} is {chosen.name}, {chosen.cost:.0%} of the cost, "
                f"tau {tau.kendall}, in the best third {tau.top_third}"
            )
        elif of_kind:
            lines.append(f"{what}: none reaches a Kendall's tau of {wanted:g}")
    if rungs := measured_rungs(fidelities, wanted):
        listed = ",".join(map(str, rungs))
        lines.append(
            f"rungs of a search that pauses trainings of this task: --set controller.freeze_thaw.rungs=[{listed}]"
        )
    return lines


def rank_shifts(study: MeasuredCurves) -> list[str]:
    """Describe which kinds of network gain or lose ranks between the first epoch with an AP and the last.

    Stopping early is biased against kinds that gain. Only correlations whose interval excludes 0 are described. The
    list is empty if AP was measured at one epoch only.
    """
    epochs = study.epochs()
    if len(epochs) < 2:
        return []
    begin, end = epochs[0], epochs[-1]
    first, last, genotypes = study.aps(begin), study.aps(end), study.genotypes()
    madds = {training.network_key: training.madds or 0 for training in study.trainings}
    keys = sorted(first.keys() & last.keys() & genotypes.keys())
    early, late = (places([statistics.fmean(aps[key]) for key in keys]) for aps in (first, last))
    graphs = [built_graph(genotypes[key]) for key in keys]
    paths = [path_figures(graph) for graph in graphs]
    features = {
        "deeper networks": [depth(genotypes[key]) for key in keys],
        "networks with a longer path to the finest output": [found[min(found)].blocks for found in paths],
        "networks that lose more resolution on the way to the outputs": [
            sum(lost_levels(graph).values()) for graph in graphs
        ],
        "networks with more dead blocks": [len(dead_blocks(genotypes[key])) for key in keys],
        "networks with more multiply-adds": [madds[key] for key in keys],
    }
    lines = []
    for name, values in features.items():
        moved = correlation(np.array(values, dtype=np.float64), late - early)
        if moved.lower is not None and moved.upper is not None and moved.lower * moved.upper > 0:
            how = "gain" if moved.lower > 0 else "lose"
            lines.append(f"{name} {how} ranks between epoch {begin} and {end}: tau {moved}")
    return lines or [f"no kind of network gains or loses ranks significantly between epoch {begin} and {end}"]


REDUCTIONS = (2.0, 3.0, 4.0)
"""Reduction factors to compare: the best 1/reduction of the trainings continue after a rung."""


def halving_options(study: MeasuredCurves) -> list[dict[str, Any]]:
    """Return a row for each choice of rungs and reduction: epochs saved and AP lost by halving.

    Only the first training of each network counts. Raises UserError.
    """
    if study.num_stopped:
        raise UserError(
            f"{study.path} stopped {study.num_stopped} trainings early, so that weak ones are missing; "
            "give a run or study without halving.rungs"
        )
    curves = [training.ap_by_epoch for training in study.trainings if training.replicate == 0]
    epochs = sorted(set.intersection(*map(set, curves))) if curves else []
    if len(epochs) < 2:
        raise UserError(
            f"{study.path} has no trainings with an AP after an earlier epoch; make a study with "
            "--set task.eval.every_epochs=1"
        )
    rows = []
    for rungs in [(epoch,) for epoch in epochs[:-1]] + ([tuple(epochs[:-1])] if len(epochs) > 2 else []):
        for reduction in REDUCTIONS:
            found = replay_halving(curves, rungs, reduction=reduction)
            rows.append(
                {
                    "rungs": " ".join(map(str, rungs)),
                    "reduction": reduction,
                    "epochs saved": found.saved_epochs,
                    "best is stopped": found.best_stopped,
                    "AP lost": found.loss,
                    "AP lost, worst order": found.largest_loss,
                    "n": found.num_trials,
                }
            )
    return rows


def _median_seconds(study: MeasuredCurves) -> float:
    return statistics.median(training.seconds for training in study.trainings)
