"""Replays a journal into a fresh controller, which restores the state of the run's controller."""

from __future__ import annotations

from dataclasses import replace

from spinenas.controller.base import Continuation, Controller, Proposal
from spinenas.results.record import Evaluation, Failure
from spinenas.results.storage.run_state import ENDED, NEW, RunState
from spinenas.results.storage.trial_moves import FINISHED

Result = Evaluation | Failure


def replay_into(
    controller: Controller, state: RunState, *, ordered: bool, known: int | None = None
) -> tuple[dict[int, Proposal], dict[int, tuple[int, Result]]]:
    """Give a fresh controller the state of a run's controller, by the same calls in the same order.

    Args:
        state: of the run.
        ordered: whether results were told in the order of the steps, and only as far as further steps needed them.
        known: number of results that the controller knows in the end. None for all; in an ordered run, for as many as
            the last step needed.

    Returns:
        The proposals of trials without a result; and by step, the trial and the result that the controller was not
        told.
    """
    for observation in state.observed:
        controller.observe(observation.genotype, observation.evaluation)
    results = sorted(state.results, key=lambda pair: pair[0]) if ordered else state.results
    open_proposals: dict[int, Proposal] = {}
    num_told = 0

    def tell(count: int) -> None:
        nonlocal num_told
        for step, result in results[num_told:count]:
            controller.tell(state.steps[step].number, result)
        num_told = max(num_told, count)

    for number, known_then, continues_until in state.steps:
        if continues_until == ENDED:
            continue  # told with the other results
        tell(known_then)
        if continues_until != NEW:
            controller.replay_ask(Continuation(number, continues_until))
            continue
        record = state.trials[number]
        fidelity = state.proposed_fidelities.get(number, record.fidelity)
        proposal = Proposal.of_record(replace(record, fidelity=fidelity))
        controller.replay_ask(proposal)
        if record.status not in FINISHED:
            open_proposals[number] = proposal
    if known is not None:
        tell(known)
    elif not ordered:
        tell(len(results))
    return open_proposals, {step: (state.steps[step].number, result) for step, result in results[num_told:]}
