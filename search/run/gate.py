"""Says at which epochs the trainings of a search pause, and what is kept for its finalists."""

from __future__ import annotations

from spinenas.controller.base import Controller, PausesTrainings
from spinenas.results.storage.epoch_count import trainings_words
from spinenas.search.config.config import SearchConfig


def gate_words(controller: Controller, config: SearchConfig) -> str | None:
    """Return the gate of a search as a sentence; None if its trainings do not pause."""
    if not isinstance(controller, PausesTrainings):
        return None
    whole, budget, kept = config.task.train.epochs, config.num_epochs, controller.num_final_epochs
    if not controller.rungs:
        return f"trainings do not pause; the budget is {budget} epochs"
    hours = config.budget.max_accelerator_hours
    limit = "" if hours is None else f"; the search ends earlier if it has used {hours:g} accelerator-hours"
    rungs = " and ".join(map(str, controller.rungs))
    return (
        f"trainings pause after epoch{'s' if len(controller.rungs) > 1 else ''} {rungs} of {whole}; {kept} of the "
        f"{budget} epochs ({trainings_words(budget, whole)} trainings' worth) are kept for the finalists, which alone "
        f"are trained to the end{limit}"
    )
