"""Estimates the hours and cost of a search from a few measured training steps on its own machines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spinenas.search.config.config import SearchConfig
from spinenas.search.executors.base import Note
from spinenas.search.planning.preflight import preflight
from spinenas.space.errors import UserError


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated size of a search; savings by halving are not included.

    Attributes:
        num_trials: number of trainings within the budget.
        minutes_per_trial: as measured on `machine`, without the start of workers.
        hours: wall-clock time with all workers busy.
        accelerator_hours: sum over all trials; a worker on CPUs counts as one accelerator.
        cost: at the configured price; None without one.
        machine: name and device of the machine that was measured.
    """

    num_trials: int
    minutes_per_trial: float
    hours: float
    accelerator_hours: float
    cost: float | None
    machine: str

    def rows(self) -> list[dict[str, Any]]:
        """Return table rows."""
        return [
            {"what": "trials", "value": str(self.num_trials)},
            {"what": "minutes for each", "value": f"{self.minutes_per_trial:.2f}"},
            {"what": "hours", "value": f"{self.hours:.2f}"},
            {"what": "accelerator hours", "value": f"{self.accelerator_hours:.2f}"},
            {"what": "cost", "value": "no price given" if self.cost is None else f"{self.cost:.2f}"},
            {"what": "measured on", "value": self.machine},
        ]


def estimate(config: SearchConfig, out: Path, note: Note) -> Estimate:
    """Measure a few steps on each kind of machine, and extrapolate from the slowest. Raises UserError.

    Args:
        config: configuration of the search.
        out: folder of the future run.
        note: receives a line about each machine that is checked.
    """
    config.check_constraints()
    machines, accelerators = preflight(config, out, note)
    for machine in machines:
        if machine.problems:
            raise UserError(f"{machine.name}: {'; '.join(machine.problems)}")
    slowest = max(machines, key=lambda machine: machine.probe.trial_seconds if machine.probe else 0.0)
    assert slowest.probe is not None, "a machine without a problem has a probe"
    executor, budget = config.executor, config.budget
    workers = 1 if executor.kind == "serial" else executor.workers
    trial_hours = slowest.probe.trial_seconds / 3600
    num_trials = budget.num_trials
    if budget.max_accelerator_hours is not None:
        num_trials = min(num_trials, int(budget.max_accelerator_hours / (trial_hours * accelerators)))
    accelerator_hours = num_trials * trial_hours * accelerators
    price = budget.price_per_accelerator_hour
    return Estimate(
        num_trials=num_trials,
        minutes_per_trial=60 * trial_hours,
        hours=num_trials * trial_hours / workers,
        accelerator_hours=accelerator_hours,
        cost=None if price is None else accelerator_hours * price,
        machine=f"{slowest.name} ({slowest.device})",
    )
