"""What every controller must keep to, as checks that a controller of one's own can be put to.

    from spinenas.controller import contract
    contract.check(MyController, SearchSpace.spinenet49())

It knows nothing of how good proposals are. What is checked: they are legal and numbered in order; no network is
proposed twice while others are left; failures, late, repeated, unknown, out-of-order and missing results do no harm; a
recorded search that is replayed to any point goes on as it was lived; the same holds in another process; a small space
is proposed whole and then ends.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable
from itertools import cycle
from multiprocessing.reduction import ForkingPickler

from spinenas.controller.base import Controller, Proposal, SpaceExhausted
from spinenas.results.record import Evaluation, Failure, FailureKind
from spinenas.space.errors import UserError
from spinenas.space.genotype import SPINENET_STEM, BlockKind, Genotype
from spinenas.space.graph import network_key
from spinenas.space.random_streams import generator
from spinenas.space.search_space import SearchSpace

MakeController = Callable[[SearchSpace], Controller]

MINUTE = SearchSpace("minute", SPINENET_STEM, (5,), (3, 4), (0,), (BlockKind.BOTTLENECK,), 2)
"""36 genotypes of 27 networks, 5 of them with a dead block: no output has level 5, so that none merges it."""

Event = tuple[str, Proposal | None, Evaluation | Failure | None]
"""("ask", what was proposed, None), ("tell", the proposal, its result) or ("exhausted", None, None)."""


class ContractBroken(AssertionError):
    """A controller does not keep to the contract; the message says which rule, and where."""


def check(make: MakeController, space: SearchSpace, *, num_asks: int = 60, spawn: bool = True) -> None:
    """Raise ContractBroken, with one sentence, at the first rule that a controller breaks.

    Args:
        make: returns a new controller for a space, always with the same seed: a class, or a function of a module.
        space: what it shall be tried on, besides a minute one.
        num_asks: proposals of each search; a few dozen are enough to leave a random beginning.
        spawn: try another process as well, for which `make` must be picklable. Raises UserError if it is not.
    """
    for seed in range(2):
        story = live(make(space), num_asks=num_asks, max_in_flight=7, seed=seed)
        check_proposals(story, space)
        check_replay(make, space, story, step=max(1, len(story) // 6))
    check_proposals(live(make(space), num_asks=num_asks, max_in_flight=50, seed=2), space)
    check_refusals(make, space, num_asks=num_asks)
    check_missing_results(make, space, num_asks=num_asks)
    check_exhaustion(make)
    if spawn:
        check_another_process(make, space, num_asks=num_asks)


def score(genotype: Genotype) -> float:
    """An arbitrary objective in [0, 1), the same in every process."""
    return int(hashlib.sha256(genotype.text.encode()).hexdigest()[:8], 16) / 2**32


def outcome(proposal: Proposal) -> Evaluation | Failure:
    """What a training of a proposal gives: every seventh fails, in every way in turn."""
    assert isinstance(proposal.genotype, Genotype), "a controller proposes genotypes"
    value = score(proposal.genotype)
    if value < 0.15:
        kinds = list(FailureKind)
        return Failure(kinds[int(value * 1e6) % len(kinds)], "broken on purpose")
    return Evaluation(value + 0.01 * proposal.replicate)


def live(controller: Controller, *, num_asks: int, max_in_flight: int, seed: int) -> list[Event]:
    """Ask and tell in a random order, to the end of the space at most; return what happened."""
    rng = generator(seed, "contract/live")
    story: list[Event] = []
    waiting: list[Proposal] = []
    num_asked = 0
    while num_asked < num_asks or waiting:
        may_ask = num_asked < num_asks and len(waiting) < max_in_flight
        if may_ask and (not waiting or rng.random() < 0.6):
            try:
                proposal = controller.ask()
            except SpaceExhausted:
                story.append(("exhausted", None, None))
                break
            if proposal is not None:
                story.append(("ask", proposal, None))
                waiting.append(proposal)
                num_asked += 1
                continue
            if not waiting:
                raise ContractBroken("ask returned None while no result was awaited; it never would go on")
        proposal = waiting.pop(rng.integers(len(waiting)))
        result = outcome(proposal)
        if controller.tell(proposal.number, result) is not True:
            raise ContractBroken(f"tell did not return True for the first result of proposal {proposal.number}")
        story.append(("tell", proposal, result))
    return story


def check_proposals(story: list[Event], space: SearchSpace) -> None:
    """Proposals are of the space, numbered in order, and no training is proposed twice."""
    trainings: dict[object, int] = {}
    proposals = [proposal for kind, proposal, _ in story if kind == "ask" and proposal is not None]
    for expected, proposal in enumerate(proposals):
        if proposal.number != expected:
            raise ContractBroken(f"a proposal has number {proposal.number}; the next one is {expected}")
        if not isinstance(proposal.genotype, Genotype):
            raise ContractBroken(f"proposal {expected} has no genotype of {space.name}")
        try:
            space.check(proposal.genotype)
        except UserError as error:
            raise ContractBroken(f"proposal {expected} is not of {space.name}: {error}") from error
        training = (network_key(proposal.genotype), proposal.fidelity, proposal.replicate)
        if training in trainings:
            raise ContractBroken(f"proposals {trainings[training]} and {expected} are the same training")
        trainings[training] = expected


def check_replay(make: MakeController, space: SearchSpace, story: list[Event], *, step: int = 1) -> None:
    """What is replayed, as a journal has it, up to every `step`-th event goes on as it was lived."""
    for cut in {*range(0, len(story), step), len(story) - 1}:
        controller = make(space)
        for kind, proposal, result in story[:cut]:
            if kind == "ask":
                assert proposal is not None
                controller.replay_ask(Proposal.from_json(proposal.to_json()))
            elif kind == "tell":
                assert proposal is not None
                assert result is not None
                if controller.tell(proposal.number, result) is not True:
                    raise ContractBroken(f"after replay_ask, tell refuses the result of proposal {proposal.number}")
        _continue(controller, story[cut:], f"replayed to event {cut}")


def _continue(controller: Controller, story: list[Event], where: str) -> None:
    for kind, proposal, result in story:
        if kind == "tell":
            assert proposal is not None
            assert result is not None
            controller.tell(proposal.number, result)
            continue
        asked = _ask(controller)
        if asked != (proposal if kind == "ask" else SpaceExhausted):
            raise ContractBroken(f"{where}, ask gave {asked}; it had given {proposal or 'SpaceExhausted'}")


def _ask(controller: Controller) -> Proposal | type[SpaceExhausted] | None:
    try:
        return controller.ask()
    except SpaceExhausted:
        return SpaceExhausted


def check_refusals(make: MakeController, space: SearchSpace, *, num_asks: int) -> None:
    """Unknown and repeated results are answered with False and change nothing."""
    controller, untouched = make(space), make(space)
    story = live(controller, num_asks=num_asks // 2, max_in_flight=4, seed=1)
    live(untouched, num_asks=num_asks // 2, max_in_flight=4, seed=1)
    finished = next(proposal.number for kind, proposal, _ in story if kind == "tell" and proposal is not None)
    for number in (-1, num_asks, 999_999, finished):
        for result in (Evaluation(1e9), Failure(FailureKind.BUG, "broken on purpose")):
            if controller.tell(number, result) is not False:
                raise ContractBroken(f"tell did not return False for {number}, which is unknown or finished")
    for _ in range(10):
        after, wanted = _ask(controller), _ask(untouched)
        if after != wanted:
            raise ContractBroken(f"a refused result changed the next proposal from {wanted} to {after}")


def check_missing_results(make: MakeController, space: SearchSpace, *, num_asks: int) -> None:
    """A third of the results never comes; the others come in reverse, ten at a time."""
    controller = make(space)
    story: list[Event] = []
    waiting: list[Proposal] = []
    silent = cycle((False, True, False))
    for _ in range(num_asks):
        asked = _ask(controller)
        if not isinstance(asked, Proposal):
            break
        story.append(("ask", asked, None))
        if not next(silent):
            waiting.append(asked)
        if len(waiting) == 10:
            for proposal in reversed(waiting):
                controller.tell(proposal.number, outcome(proposal))
            waiting.clear()
    check_proposals(story, space)


def check_exhaustion(make: MakeController) -> None:
    """The networks of a minute space are proposed, each once, and then SpaceExhausted is raised, again and again."""
    controller = make(MINUTE)
    every = {network_key(genotype) for genotype in MINUTE.enumerate()}
    story = live(controller, num_asks=20 * len(every), max_in_flight=9, seed=0)
    if story[-1][0] != "exhausted":
        raise ContractBroken(f"a space of {len(every)} networks gave {20 * len(every)} proposals and no SpaceExhausted")
    check_proposals(story, MINUTE)
    if _ask(controller) is not SpaceExhausted:
        raise ContractBroken("ask proposed again after it had raised SpaceExhausted")


def check_another_process(make: MakeController, space: SearchSpace, *, num_asks: int) -> None:
    """A spawned process, with another hash seed, proposes the same."""
    try:
        ForkingPickler.dumps(make)
    except Exception as error:  # whatever its parts raise
        raise UserError(
            f"{make} cannot be sent to another process ({error}); give a class or function of a module, or spawn=False"
        ) from error
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        theirs = pool.apply(_trajectory, (make, space, num_asks))
    ours = _trajectory(make, space, num_asks)
    different = next((number for number, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if different is not None or len(ours) != len(theirs):
        raise ContractBroken(f"in another process, proposal {different} is another one: {theirs[different or 0]}")


def _trajectory(make: MakeController, space: SearchSpace, num_asks: int) -> list[Proposal]:
    story = live(make(space), num_asks=num_asks, max_in_flight=5, seed=3)
    return [proposal for kind, proposal, _ in story if kind == "ask" and proposal is not None]
