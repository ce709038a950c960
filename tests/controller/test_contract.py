"""The contract checks pass our controllers, and name the rule that a broken one breaks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from spinenas.controller import (
    EvolutionOptions,
    Proposal,
    RandomOptions,
    RandomSearch,
    RegularizedEvolution,
    SpaceExhausted,
    make_controller,
)
from spinenas.controller.contract import ContractBroken, check
from spinenas.space.errors import UserError
from spinenas.space.search_space import SearchSpace

TINY = SearchSpace.tiny()


SMALL = {"num_random": 5, "num_candidates": 20}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("evolution", {"population_size": 16, "tournament_size": 4}),
        ("local", {}),
        ("predictor-guided", SMALL),
    ],
)
def test_our_controllers_follow_the_contract_in_another_process_too(name, options):
    check(partial(make_controller, name, **options), SearchSpace.spinenet49(), num_asks=30)


class Wrapped:
    """A working controller, of which each subclass breaks one rule."""

    def __init__(self, space):
        self.inner = RegularizedEvolution(space, EvolutionOptions(population_size=6, tournament_size=3))
        self.num_asked = 0

    def ask(self):
        self.num_asked += 1
        return self.inner.ask()

    def tell(self, number, result):
        return self.inner.tell(number, result)

    def observe(self, genotype, evaluation):
        self.inner.observe(genotype, evaluation)

    def replay_ask(self, proposal):
        self.num_asked += 1
        self.inner.replay_ask(proposal)


class Repeats(Wrapped):
    def ask(self):
        proposal = super().ask()
        self.first = getattr(self, "first", proposal.genotype)
        return replace(proposal, genotype=self.first) if proposal.number == 9 else proposal


class Forgets(Wrapped):
    """A replay does not restore its counter."""

    def __init__(self, space):
        super().__init__(space)
        self.num_own_asks = 0

    def ask(self) -> Proposal:
        self.num_own_asks += 1
        return replace(super().ask(), info={"own_asks": float(self.num_own_asks)})


class Believes(Wrapped):
    def tell(self, number, result):
        return self.inner.tell(number, result) or number > 1000


class Endless(RandomSearch):
    def ask(self):
        try:
            return super().ask()
        except SpaceExhausted:
            return None


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (Repeats, "proposals 0 and 9 are the same training"),
        (Forgets, "replayed to event"),
        (Believes, "tell did not return False for 999999"),
        (
            lambda space: Endless(space, RandomOptions(control="uniform")),
            "ask returned None with no result pending",
        ),
    ],
)
def test_the_message_names_the_broken_rule(broken, rule):
    with pytest.raises(ContractBroken, match=rule):
        check(broken, TINY, spawn=False)


def test_a_genotype_of_another_space_is_reported():
    other = SearchSpace.spinenet49()

    class Leaves(Wrapped):
        def ask(self):
            proposal = super().ask()
            return replace(proposal, genotype=other.decode([0] * len(other.decisions)))

    with pytest.raises(ContractBroken, match="proposal 0 is not of tiny"):
        check(Leaves, TINY, spawn=False)


def test_a_controller_that_cannot_be_pickled_is_one_clear_sentence():
    with pytest.raises(UserError, match=r"cannot be sent to another process.*or spawn=False"):
        check(lambda space: RandomSearch(space, RandomOptions(control="uniform")), TINY, num_asks=10)
