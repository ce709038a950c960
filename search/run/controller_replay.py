"""Replays a journal into a fresh controller, which restores the state of the run's controller."""

from __future__ import annotations

from dataclasses import replace

from spinenas.controller.base import Controller, Proposal
from spinenas.results.record import Evaluation, Failure, TrialRecord
from spinenas.results.storage.run_state import FINISHED, RunState

Result = Evaluation | Failure


def replay_into(
    controller: Controller, state: RunState, *, ordered: bool, known: int | None = None
) -> tuple[dict[int, Proposal], dict[int, Result]]:
    """Give a fresh controller the state of a run's controller, by the same calls in the same order.

    Args:
        state: of the run.
        ordered: whether results were told in the order of their numbers, and only as far as proposals needed them.
        known: number of results that the controller knows in the end. None for all; in an ordered run, for as many as
            the last proposal needed.

    Returns:
        The proposals of trials without a result, and the results that the controller was not told, by number.
    """
    for observation in state.observed:
        controller.observe(observation.genotype, observation.evaluation)
    told = sorted(state.told) if ordered else list(state.told)
    open_proposals: dict[int, Proposal] = {}
    num_told = 0

    def tell(count: int) -> None:
        nonlocal num_told
        for number in told[num_told:count]:
            controller.tell(number, _result(state.trials[number]))
        num_told = max(num_told, count)

    for record, known_then in zip(state.trials.values(), state.known, strict=True):
        tell(known_then)
        fidelity = state.proposed_fidelities.get(record.number, record.fidelity)
        proposal = Proposal.of_record(replace(record, fidelity=fidelity))
        controller.replay_ask(proposal)
        if record.status not in FINISHED:
            open_proposals[record.number] = proposal
    if known is not None:
        tell(known)
    elif not ordered:
        tell(len(told))
    return open_proposals, {number: _result(state.trials[number]) for number in told[num_told:]}


def _result(record: TrialRecord) -> Result:
    result = record.evaluation or record.failure
    assert result is not None, "a finished trial has a result"
    return result
