"""Estimates the hours and cost of a search from a few measured training steps on its own machines."""

from __future__ import annotations

from pathlib import Path

from spinenas.search.config.config import SearchConfig
from spinenas.search.executors.base import Note
from spinenas.search.planning.preflight import preflight
from spinenas.space.errors import UserError


def estimate(config: SearchConfig, out: Path, note: Note) -> dict[str, str]:
    """Measure a few steps on each kind of machine, and extrapolate from the slowest. Raises UserError.

    Args:
        config: configuration of the search.
        out: folder of the future run.
        note: receives a line about each machine that is checked.

    Returns:
        The size of the search by name, in words: the number of trainings within the budget, the minutes of each without
        the start of workers, the wall-clock hours with all workers busy, the accelerator hours (a worker on CPUs counts
        as one accelerator), the cost at the configured price, and the machine that was measured. Savings by halving
        are not included.
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
    return {
        "trials": str(num_trials),
        "minutes for each": f"{60 * trial_hours:.2f}",
        "hours": f"{num_trials * trial_hours / workers:.2f}",
        "accelerator hours": f"{accelerator_hours:.2f}",
        "cost": "no price given" if price is None else f"{accelerator_hours * price:.2f}",
        "measured on": f"{slowest.name} ({slowest.device})",
    }
