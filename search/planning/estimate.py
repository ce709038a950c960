"""Estimates the hours and cost of a search from a few measured training steps on its own machines."""

from __future__ import annotations

from pathlib import Path

from spinenas.results.storage.epoch_count import trainings_words
from spinenas.results.storage.run_folder import RunFolder
from spinenas.search.config.config import SearchConfig
from spinenas.search.executors.base import Note
from spinenas.search.executors.local_cpus import is_remote, num_cpus_here
from spinenas.search.planning.preflight import preflight
from spinenas.search.run.components import mirror_of, search_controller
from spinenas.search.run.gate import gate_words
from spinenas.space.errors import UserError


def estimate(config: SearchConfig, out: Path, note: Note, *, or_resume: bool = False) -> dict[str, str]:
    """Measure a few steps on each kind of machine, and extrapolate from the slowest. Raises UserError.

    Args:
        config: configuration of the search.
        out: folder of the future run.
        note: receives a line about each machine that is checked.
        or_resume: whether --out and the mirror may hold a run already.

    Returns:
        The size of the search by name, in words: the number of trainings within the budget (if they pause, the epochs
        and how many whole trainings these are worth), the workers that fit, the minutes of each training without the
        start of workers, the wall-clock hours with all these workers busy, the hours of accelerators (of workers where
        they train on CPUs), the cost at the configured price, and the machine that was measured. Less than an hour is
        in minutes. The cost is left out on CPUs without a price. Savings by halving are not included.
    """
    config.check_constraints()
    if not or_resume:
        RunFolder.check_free(out)
        mirror = mirror_of(config)
        if mirror is not None and mirror.holds_run():
            raise UserError(
                f"{mirror.store.uri} already holds a run; resume it with --or-resume, or give another storage.mirror"
            )
    machines, accelerators = preflight(config, out, note)
    for machine in machines:
        if machine.problems:
            raise UserError(f"{machine.name}: {'; '.join(machine.problems)}")
    slowest = max(machines, key=lambda machine: machine.probe.trial_seconds if machine.probe else 0.0)
    assert slowest.probe is not None, "a machine without a problem has a probe"
    executor, budget = config.executor, config.budget
    asked = 1 if executor.kind == "serial" else executor.workers
    rooms = [machine.room for machine in machines if machine.room is not None]
    workers = min(asked, sum(rooms)) if rooms else asked
    trial_hours = slowest.probe.trial_seconds / 3600
    whole = config.task.train.epochs
    # Trainings that pause share their epochs out, so that the budget need not be whole trainings.
    num_trials = config.num_epochs / whole if config.pauses_trainings else float(budget.num_trials)
    if budget.max_accelerator_hours is not None:
        within_hours = budget.max_accelerator_hours / (trial_hours * accelerators)
        num_trials = min(num_trials, within_hours if config.pauses_trainings else int(within_hours))
    size = {"trials": f"{num_trials:.0f}"}
    if (sentence := gate_words(search_controller(config.resolved()), config)) is not None:
        note(sentence)
        size = {
            "epochs": f"{num_trials * whole:.0f}",
            "whole-training equivalents": trainings_words(num_trials * whole, whole),
        }
    accelerator_hours = num_trials * trial_hours * accelerators
    price = budget.price_per_accelerator_hour
    whose = "worker" if slowest.device == "cpu" else "accelerator"
    place = "this cluster" if is_remote(executor) else f"the {num_cpus_here()} CPUs here"
    facts = {
        **size,
        "workers": str(workers) if workers == asked else f"{workers} of {asked} fit {place}",
        "minutes for a whole training" if config.pauses_trainings else "minutes for each": f"{60 * trial_hours:.2f}",
        **_duration("", num_trials * trial_hours / workers),
        **_duration(f"{whose} ", accelerator_hours),
    }
    if price is not None or whose == "accelerator":
        cost = "no price given" if price is None else f"{accelerator_hours * price:.2f}"
        facts["cost by budget.price_per_accelerator_hour"] = cost
    return facts | {"measured on": f"{slowest.name} ({slowest.device})"}


def _duration(whose: str, hours: float) -> dict[str, str]:
    """Return a time by its name with the unit: minutes below an hour."""
    return {f"{whose}hours": f"{hours:.2f}"} if hours >= 1 else {f"{whose}minutes": f"{60 * hours:.1f}"}
