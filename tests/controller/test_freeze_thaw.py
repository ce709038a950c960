"""Freeze-thaw search spends epochs where the predictor expects most."""

from __future__ import annotations

from collections import Counter

import pytest

from spinenas.controller.base import BudgetSpent, Continuation, Proposal, SpaceExhausted, Step
from spinenas.controller.contract import score
from spinenas.controller.predictor.freeze_thaw import FreezeThaw, FreezeThawOptions, Schedule, rungs_for
from spinenas.results.record import Evaluation, Failure, FailureKind, Stage
from spinenas.space.errors import UserError
from spinenas.space.graph import built_graph, lost_levels
from spinenas.space.search_space import SearchSpace

SPACE = SearchSpace.spinenet49()
EPOCHS = 5


def make(budget: int = 100, epochs: int = EPOCHS, **options) -> FreezeThaw:
    given = FreezeThawOptions(**{"num_random": 4, "num_candidates": 20, **options})
    return FreezeThaw(SPACE, given, seed=1, schedule=Schedule(epochs, budget, 0.2))


def result(proposal: Proposal, until: int | None, epochs: int = EPOCHS) -> Evaluation:
    final = 0.1 + 0.1 * score(proposal.genotype) + 0.002 * (proposal.replicate % 3)
    last = until or epochs
    curve = tuple((epoch, final * (epoch / epochs) ** 0.5) for epoch in range(1, last + 1))
    return Evaluation(curve[-1][1], stopped_after=until, by_epoch=curve)


def run(controller: FreezeThaw, epochs: int = EPOCHS) -> tuple[list[Step], dict[int, Proposal]]:
    steps: list[Step] = []
    proposals: dict[int, Proposal] = {}
    while True:
        try:
            step = controller.ask()
        except BudgetSpent:
            return steps, proposals
        assert step is not None, "every result is told before the next step"
        steps.append(step)
        if isinstance(step, Proposal):
            proposals[step.number] = step
        assert controller.tell(step.number, result(proposals[step.number], step.until, epochs))


def epochs_of(steps: list[Step]) -> dict[int, int]:
    return {step.number: step.until or EPOCHS for step in steps}


@pytest.mark.parametrize(
    ("epochs", "rungs"), [(1, ()), (2, (1,)), (3, (1, 2)), (5, (1, 3)), (8, (2, 5)), (20, (4, 12)), (60, (12, 36))]
)
def test_trainings_of_any_length_pause_after_about_a_fifth_and_three_fifths(epochs: int, rungs: tuple) -> None:
    assert rungs_for(epochs) == rungs


def test_a_search_pauses_continues_repeats_and_ends_within_its_budget() -> None:
    controller = make()
    steps, proposals = run(controller)
    assert controller.num_epochs == sum(epochs_of(steps).values()) <= 100
    assert controller.num_epochs > 100 - EPOCHS, "no more than a training is left over"
    kinds = Counter(
        (type(step).__name__, step.until) for step in steps if not isinstance(step, Proposal) or step.replicate == 0
    )
    assert set(kinds) == {("Proposal", 1), ("Continuation", 3), ("Continuation", None)}
    repeated = [proposal for proposal in proposals.values() if proposal.replicate]
    assert repeated
    assert {proposal.stage for proposal in repeated} == {Stage.RERANK}
    assert 0 < sum(reached == EPOCHS for reached in epochs_of(steps).values()) < len(proposals) / 3


def test_only_the_best_networks_are_trained_to_the_end() -> None:
    steps, proposals = run(make())
    reached = epochs_of(steps)
    finals = {number for number, epochs in reached.items() if epochs == EPOCHS}
    best = sorted(
        (score(proposals[number].genotype) for number, epochs in reached.items() if epochs >= 3), reverse=True
    )
    assert min(score(proposals[number].genotype) for number in finals) >= best[len(best) // 2]


def test_the_first_networks_all_go_on_to_the_last_rung_and_most_keep_detail() -> None:
    steps, proposals = run(make(num_random=20, budget=200))
    reached = epochs_of(steps)
    first = [proposals[number] for number in range(20)]
    assert all(reached[proposal.number] >= 3 for proposal in first)
    keeping = sum(not any(lost_levels(built_graph(proposal.genotype)).values()) for proposal in first)
    assert keeping >= 14


def test_a_schedule_of_one_epoch_has_whole_trainings_alone() -> None:
    controller = make(budget=20, epochs=1, replicate_chance=0.5)
    steps, proposals = run(controller, 1)
    assert {step.until for step in steps} == {None}
    assert controller.num_epochs == len(steps) == 20
    assert any(proposal.replicate for proposal in proposals.values())


def test_a_training_that_ended_is_not_continued() -> None:
    controller = make(num_random=2)
    proposals = [controller.ask() for _ in range(2)]
    for proposal in proposals:
        assert controller.tell(proposal.number, result(proposal, 1))
    assert controller.tell(0, result(proposals[0], 1)), "the second result says that it ended there"
    assert not controller.tell(0, result(proposals[0], 1))
    step = controller.ask()
    assert step == Continuation(1, 3)


def test_nothing_is_asked_while_the_last_results_are_awaited() -> None:
    controller = make(budget=10, num_random=1)
    asked = []
    while (step := controller.ask()) is not None:
        asked.append(step)
    assert asked, "and ask returns None instead of an error"
    controller.tell(asked[0].number, Failure(FailureKind.TIMEOUT, "it took too long"))


def test_failed_trainings_end_and_their_networks_are_no_finalists() -> None:
    controller = make()
    proposals: dict[int, Proposal] = {}
    failed = set()
    for _ in range(200):
        try:
            step = controller.ask()
        except SpaceExhausted:
            break
        if isinstance(step, Proposal):
            proposals[step.number] = step
        assert step.number not in failed
        if step.number % 3 == 1:
            failed.add(step.number)
            controller.tell(step.number, Failure(FailureKind.DIVERGED, "the loss is not finite"))
        else:
            controller.tell(step.number, result(proposals[step.number], step.until))
    assert failed
    assert controller.num_epochs > 90


def test_an_observed_network_teaches_and_is_not_trained_again() -> None:
    first = make()
    _, proposals = run(first)
    second = make(num_random=1)
    known = {proposal.network_key for proposal in proposals.values()}
    for proposal in proposals.values():
        if not proposal.replicate:
            second.observe(proposal.genotype, result(proposal, 3))
    steps, _ = run(second)
    assert not known & {step.network_key for step in steps if isinstance(step, Proposal)}


def test_the_end_of_a_search_by_time_leaves_the_finalists() -> None:
    controller = make(budget=1000)
    proposals: dict[int, Proposal] = {}
    for number in range(40):
        if number == 30:
            controller.end_search()
        try:
            step = controller.ask()
        except BudgetSpent:
            break
        if isinstance(step, Proposal):
            proposals[step.number] = step
        assert number < 30 or step.until is None, "only finalists go on"
        controller.tell(step.number, result(proposals[step.number], step.until))
    assert number > 30


@pytest.mark.parametrize(
    "options", [{"rungs": (3, 1)}, {"rungs": (0, 2)}, {"replicate_chance": 1.0}, {"num_leaders": 0}, {"num_seeds": 0}]
)
def test_wrong_options_are_refused(options: dict) -> None:
    with pytest.raises(UserError, match=r"at least 1|above the last"):
        FreezeThawOptions(**options)
