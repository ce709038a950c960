"""Decides whether a run needs no further session."""

from __future__ import annotations

from dataclasses import replace

from spinenas.results.storage.accelerator_time import AcceleratorTime
from spinenas.results.storage.run_state import RunState
from spinenas.search.config.config import SearchConfig
from spinenas.search.run.components import ordered_window, search_controller
from spinenas.search.run.proposals import Proposals


def has_finished(state: RunState, config: SearchConfig) -> bool:
    """Whether each trial of a run has ended, and no further one would be asked for.

    Args:
        state: of the run.
        config: the configuration with the current budget.
    """
    if state.unfinished:
        return False
    if not config.pauses_trainings:
        return len(state.trials) >= config.budget.num_trials
    # Paused trials end when the budget is spent. A search may also end without any, and then only its controller knows.
    return state.is_ending or _is_spent(state, config)


def _is_spent(state: RunState, config: SearchConfig) -> bool:
    budget = replace(config.budget, max_accelerator_hours=None)
    window = ordered_window(config.executor)
    proposals = Proposals(
        search_controller(config, state.run.get("prior", ())), budget, window=window, note=lambda text: None
    )
    proposals.replay(state)
    return proposals.ask(AcceleratorTime(), now="", num_open=0) is None
