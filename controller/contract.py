"""Rules that every controller must follow, as checks for controllers of your own.

    from spinenas.controller import contract
    contract.check(MyController, SearchSpace.spinenet49())

The rules say nothing about the quality of proposals:

- Proposals are legal and numbered in order.
- No network is proposed twice while others are left.
- Failures do no harm, nor do late, repeated, unknown, out-of-order and missing results.
- Only a paused training is continued.
- A recorded search that is replayed to any point continues identically, in another process too.
- A small space is proposed completely and then ends.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable
from itertools import cycle
from multiprocessing.reduction import ForkingPickler

from spinenas.controller.base import Continuation, Controller, Proposal, SpaceExhausted, Step
from spinenas.results.record import Evaluation, Failure, FailureKind
from spinenas.space.errors import UserError
from spinenas.space.genotype import SPINENET_STEM, BlockKind, Genotype
from spinenas.space.graph import network_key
from spinenas.space.random_streams import generator
from spinenas.space.search_space import SearchSpace

MakeController = Callable[[SearchSpace], Controller]

MINIMAL = SearchSpace("minimal", SPINENET_STEM, (5,), (3, 4), (0,), (BlockKind.BOTTLENECK,), 2)
"""36 genotypes of 27 networks. 5 have a dead block of level 5, which merges into no output."""

Event = tuple[str, Step | None, Evaluation | Failure | None]
"""("ask", the step, None), ("tell", the step, its result) or ("exhausted", None, None)."""

NUM_EPOCHS = 5
"""Length of the simulated trainings that controllers pause."""


class ContractBroken(AssertionError):
    """A controller breaks a rule; the message says which one, and where."""


def check(make: MakeController, space: SearchSpace, *, num_asks: int = 60, spawn: bool = True) -> None:
    """Raise ContractBroken, with one sentence, at the first rule that a controller breaks.

    Args:
        make: class or function of a module that returns a new controller for a space, always with the same seed.
        space: search space for the checks, which also use a minimal one.
        num_asks: proposals of each search; a few dozen are enough to get past a random start.
        spawn: check another process as well. `make` must then be picklable; UserError is raised if it is not.
    """
    for seed in range(2):
        events = simulate(make(space), num_asks=num_asks, max_in_flight=7, seed=seed)
        check_proposals(events, space)
        check_replay(make, space, events, every=max(1, len(events) // 6))
    check_proposals(simulate(make(space), num_asks=num_asks, max_in_flight=50, seed=2), space)
    check_refusals(make, space, num_asks=num_asks)
    check_missing_results(make, space, num_asks=num_asks)
    check_exhaustion(make)
    if spawn:
        check_another_process(make, space, num_asks=num_asks)


def score(genotype: Genotype) -> float:
    """An arbitrary objective in [0, 1), the same in every process."""
    return int(hashlib.sha256(genotype.text.encode()).hexdigest()[:8], 16) / 2**32


def outcome(proposal: Proposal, until: int | None) -> Evaluation | Failure:
    """Result of training a proposal to an epoch, or to the end for None; earlier epochs have lower objectives.

    About every seventh fails, with failures of all kinds.
    """
    assert isinstance(proposal.genotype, Genotype), "a controller proposes genotypes"
    value = score(proposal.genotype)
    if value < 0.15:
        kinds = list(FailureKind)
        return Failure(kinds[int(value * 1e6) % len(kinds)], "deliberate failure")
    value += 0.01 * proposal.replicate
    if until is None:
        return Evaluation(value)
    by_epoch = tuple((epoch, value * epoch / NUM_EPOCHS) for epoch in range(1, until + 1))
    return Evaluation(by_epoch[-1][1], stopped_after=until, by_epoch=by_epoch)


def simulate(controller: Controller, *, num_asks: int, max_in_flight: int, seed: int) -> list[Event]:
    """Ask and tell in a random order until `num_asks` proposals or the end of the space; return the events."""
    rng = generator(seed, "contract/live")
    events: list[Event] = []
    waiting: list[Step] = []
    proposals: dict[int, Proposal] = {}
    num_asked = 0
    while num_asked < num_asks or waiting:
        may_ask = num_asked < num_asks and len(waiting) < max_in_flight
        if may_ask and (not waiting or rng.random() < 0.6):
            try:
                step = controller.ask()
            except SpaceExhausted:
                events.append(("exhausted", None, None))
                break
            if step is not None:
                events.append(("ask", step, None))
                waiting.append(step)
                if isinstance(step, Proposal):
                    proposals[step.number] = step
                num_asked += 1
                continue
            if not waiting:
                raise ContractBroken("ask returned None with no result pending, so that the search cannot continue")
        step = waiting.pop(rng.integers(len(waiting)))
        if step.number not in proposals:
            raise ContractBroken(f"ask continues training {step.number}, which was never proposed")
        result = outcome(proposals[step.number], step.until)
        if controller.tell(step.number, result) is not True:
            raise ContractBroken(f"tell did not return True for the first result of proposal {step.number}")
        events.append(("tell", step, result))
    return events


def check_proposals(events: list[Event], space: SearchSpace) -> None:
    """Check that proposals are of the space and numbered in order, and that no training is proposed twice."""
    trainings: dict[object, int] = {}
    paused: dict[int, int] = {}
    for kind, step, result in events:
        if kind == "tell" and step is not None:
            after = result.stopped_after if isinstance(result, Evaluation) else None
            paused[step.number] = after or 0
        elif kind == "ask" and isinstance(step, Continuation):
            after = paused.pop(step.number, 0)
            if not after or (step.until is not None and step.until <= after):
                raise ContractBroken(
                    f"ask continues training {step.number} to epoch {step.until}, but "
                    + (f"it has reached epoch {after}" if after else "it is not paused")
                )
    proposals = [step for kind, step, _ in events if kind == "ask" and isinstance(step, Proposal)]
    for expected, proposal in enumerate(proposals):
        if proposal.number != expected:
            raise ContractBroken(f"a proposal has number {proposal.number} instead of {expected}")
        if not isinstance(proposal.genotype, Genotype):
            raise ContractBroken(f"proposal {expected} is not a genotype of {space.name}")
        try:
            space.check(proposal.genotype)
        except UserError as error:
            raise ContractBroken(f"proposal {expected} is not of {space.name}: {error}") from error
        training = (network_key(proposal.genotype), proposal.fidelity, proposal.replicate)
        if training in trainings:
            raise ContractBroken(f"proposals {trainings[training]} and {expected} are the same training")
        trainings[training] = expected


def check_replay(make: MakeController, space: SearchSpace, events: list[Event], *, every: int = 1) -> None:
    """Check that a search replayed up to every nth event, as from a journal, continues identically."""
    for cut in {*range(0, len(events), every), len(events) - 1}:
        controller = make(space)
        for kind, step, result in events[:cut]:
            if kind == "ask":
                assert step is not None
                recorded = Proposal.from_json(step.to_json()) if isinstance(step, Proposal) else step
                controller.replay_ask(recorded)
            elif kind == "tell":
                assert step is not None
                assert result is not None
                if controller.tell(step.number, result) is not True:
                    raise ContractBroken(f"after replay_ask, tell refuses the result of proposal {step.number}")
        _continue(controller, events[cut:], f"replayed to event {cut}")


def _continue(controller: Controller, events: list[Event], where: str) -> None:
    for kind, step, result in events:
        if kind == "tell":
            assert step is not None
            assert result is not None
            controller.tell(step.number, result)
            continue
        asked = _ask(controller)
        if asked != (step if kind == "ask" else SpaceExhausted):
            raise ContractBroken(f"{where}, ask returned {asked} instead of {step or 'SpaceExhausted'}")


def _ask(controller: Controller) -> Step | type[SpaceExhausted] | None:
    try:
        return controller.ask()
    except SpaceExhausted:
        return SpaceExhausted


def check_refusals(make: MakeController, space: SearchSpace, *, num_asks: int) -> None:
    """Check that `tell` returns False for unknown and repeated results, and that they change nothing."""
    controller, untouched = make(space), make(space)
    events = simulate(controller, num_asks=num_asks // 2, max_in_flight=4, seed=1)
    simulate(untouched, num_asks=num_asks // 2, max_in_flight=4, seed=1)
    finished = next(
        step.number for kind, step, result in events if kind == "tell" and step is not None and _is_final(result)
    )
    for number in (-1, num_asks, 999_999, finished):
        for result in (Evaluation(1e9), Failure(FailureKind.BUG, "deliberate failure")):
            if controller.tell(number, result) is not False:
                raise ContractBroken(f"tell did not return False for {number}, which is unknown or finished")
    for _ in range(10):
        after, wanted = _ask(controller), _ask(untouched)
        if after != wanted:
            raise ContractBroken(f"a refused result changed the next proposal from {wanted} to {after}")


def _is_final(result: Evaluation | Failure | None) -> bool:
    return isinstance(result, Failure) or (result is not None and result.stopped_after is None)


def check_missing_results(make: MakeController, space: SearchSpace, *, num_asks: int) -> None:
    """Check proposals when a third of the results never arrive, and the others arrive in reverse, ten at a time."""
    controller = make(space)
    events: list[Event] = []
    waiting: list[Step] = []
    proposals: dict[int, Proposal] = {}
    is_missing = cycle((False, True, False))
    for _ in range(num_asks):
        asked = _ask(controller)
        if not isinstance(asked, Step):
            break
        events.append(("ask", asked, None))
        if isinstance(asked, Proposal):
            proposals[asked.number] = asked
        if not next(is_missing):
            waiting.append(asked)
        if len(waiting) == 10:
            for step in reversed(waiting):
                result = outcome(proposals[step.number], step.until)
                controller.tell(step.number, result)
                events.append(("tell", step, result))
            waiting.clear()
    check_proposals(events, space)


def check_exhaustion(make: MakeController) -> None:
    """Check that each network of a minimal space is proposed once, and that SpaceExhausted is raised from then on."""
    controller = make(MINIMAL)
    every = {network_key(genotype) for genotype in MINIMAL.enumerate()}
    events = simulate(controller, num_asks=20 * len(every), max_in_flight=9, seed=0)
    if events[-1][0] != "exhausted":
        raise ContractBroken(
            f"{20 * len(every)} proposals of a space of {len(every)} networks did not raise SpaceExhausted"
        )
    check_proposals(events, MINIMAL)
    if _ask(controller) is not SpaceExhausted:
        raise ContractBroken("ask proposed again after it had raised SpaceExhausted")


def check_another_process(make: MakeController, space: SearchSpace, *, num_asks: int) -> None:
    """Check that a spawned process, with another hash seed, makes the same proposals."""
    try:
        ForkingPickler.dumps(make)
    except Exception as error:  # pickling raises errors of many types
        raise UserError(
            f"{make} cannot be sent to another process ({error}); give a class or function of a module, or spawn=False"
        ) from error
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        theirs = pool.apply(_trajectory, (make, space, num_asks))
    ours = _trajectory(make, space, num_asks)
    different = next((number for number, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if different is not None or len(ours) != len(theirs):
        raise ContractBroken(f"in another process, proposal {different} differs: {theirs[different or 0]}")


def _trajectory(make: MakeController, space: SearchSpace, num_asks: int) -> list[Step]:
    events = simulate(make(space), num_asks=num_asks, max_in_flight=5, seed=3)
    return [step for kind, step, _ in events if kind == "ask" and step is not None]
