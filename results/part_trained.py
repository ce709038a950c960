"""Networks without a complete training: how far they were trained, and what is foretold of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from spinenas.results.foretold import END, Foretold, Progress, foretold, last_epoch, progress_of
from spinenas.results.record import Fidelity, Status, TrialRecord

Group = Sequence[TrialRecord]
"""The trials of one network at one fidelity, the first one first."""


@dataclass(frozen=True, slots=True)
class PartTrained:
    """A network that was trained for some epochs of its schedule.

    Attributes:
        epochs: seen by the training that went furthest.
        objective: mean AP there.
        count: number of trainings that went so far.
        foretold: AP that is predicted for the end; None while too few trainings are complete.
    """

    epochs: int
    objective: float
    count: int
    foretold: Foretold | None

    @property
    def rank(self) -> tuple[float, ...]:
        """Sort key: the highest prediction first, then those that went furthest."""
        predicted = (0.0, -self.foretold.value) if self.foretold is not None else (1.0, 0.0)
        return (*predicted, -self.epochs, -self.objective)

    def words(self, whole: int | None) -> str:
        """Describe what was reached and what is predicted.

        Args:
            whole: epochs of a complete training; None if unknown.
        """
        of = f"{self.epochs} of {whole} epochs" if whole is not None else f"{self.epochs} epochs"
        count = f" (n={self.count})" if self.count > 1 else ""
        words = f"AP {self.objective:.4f}{count} after {of}"
        return words if self.foretold is None else f"{words}, predicted final AP {predicted_words(self.foretold)}"


def predicted_words(foretold: Foretold) -> str:
    """Return a prediction with its standard deviation, such as "0.3120 ± 0.0140"."""
    return f"{foretold.value:.4f} ± {foretold.std:.4f}"


def part_trained(groups: Sequence[Group]) -> dict[int, PartTrained]:
    """Return the networks without a complete training, the best prediction first, by number of the first trial.

    Networks without any result are left out. Only trainings of one fidelity foretell each other.
    """
    found: dict[int, PartTrained] = {}
    by_fidelity: dict[Fidelity | None, list[Group]] = {}
    for group in groups:
        by_fidelity.setdefault(group[0].fidelity, []).append(group)
    for same in by_fidelity.values():
        progress = [_progress(group) for group in same]
        for group, trainings, prediction in zip(same, progress, foretold(progress), strict=True):
            lasts = [last_epoch(training) for training in trainings]
            if lasts and END not in lasts:
                furthest = max(lasts)
                reached = [training[furthest] for training in trainings if furthest in training]
                found[group[0].number] = PartTrained(furthest, statistics.fmean(reached), len(reached), prediction)
    return dict(sorted(found.items(), key=lambda item: (*item[1].rank, item[0])))


def at_last_pause(groups: Sequence[Group]) -> list[list[float]]:
    """Return the APs of each network after the last epoch at which trainings pause, if it has any."""
    progress = [_progress(group) for group in groups]
    furthest = max((last for network in progress for each in network if (last := last_epoch(each)) != END), default=END)
    found = [[each[furthest] for each in network if furthest in each] for network in progress]
    return [network for network in found if network]


def _progress(group: Group) -> list[Progress]:
    """Return the objectives by epoch of the trainings that are complete, paused or stopped."""
    return [
        progress_of(record.evaluation)
        for record in group
        if record.evaluation is not None and record.status is not Status.FAILED
    ]
