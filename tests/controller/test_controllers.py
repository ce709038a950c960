from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter

import pytest

from spinenas.controller import (
    EvolutionOptions,
    LocalOptions,
    LocalSearch,
    MaddsBand,
    OptunaSearch,
    Ppo,
    PpoOptions,
    PredictorGuidedEvolution,
    PredictorGuidedOptions,
    Proposal,
    RandomOptions,
    RandomSearch,
    RegularizedEvolution,
    Reinforce,
    ReinforceOptions,
    ReplicateLeaders,
    SpaceExhausted,
    TpeOptions,
    contract,
    make_controller,
)
from spinenas.controller.contract import MINIMAL, score, simulate
from spinenas.controller.registry import CONTROLLERS
from spinenas.controller.replicates import num_replicates
from spinenas.results.record import Evaluation, Failure, FailureKind, Stage
from spinenas.space.cost import backbone_cost
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.graph import dead_blocks, network_key
from spinenas.space.published import SPINENET_49
from spinenas.space.scaling import SCALINGS
from spinenas.space.search_space import SearchSpace

SPINENET49 = SearchSpace.spinenet49()
TINY = SearchSpace.tiny()
FAILURE = Failure(FailureKind.BUG, "deliberate failure")


def madds_and_params(genotype: Genotype) -> tuple[float, ...]:
    cost = backbone_cost(genotype, SCALINGS["49"], 640)
    return cost.madds, cost.params


GUIDED = PredictorGuidedOptions(num_random=5, num_candidates=20)
MAKERS = {
    "uniform": lambda space: RandomSearch(space, RandomOptions(control="uniform")),
    "alive": lambda space: RandomSearch(space, RandomOptions(control="alive")),
    "evolution": lambda space: RegularizedEvolution(
        space, EvolutionOptions(population_size=6, tournament_size=3, max_edits=2)
    ),
    "local": lambda space: LocalSearch(space, LocalOptions(num_parents=2, num_random=5)),
    "reinforce": lambda space: Reinforce(space, ReinforceOptions(batch_size=4, learning_rate=0.02)),
    "reinforce, factorised": lambda space: Reinforce(space, ReinforceOptions(policy="factorised", batch_size=3)),
    "ppo": lambda space: Ppo(space, PpoOptions(batch_size=5)),
    "ppo, recurrent": lambda space: Ppo(space, PpoOptions(policy="recurrent", batch_size=7, steps_per_batch=2)),
    "predictor-guided": lambda space: PredictorGuidedEvolution(space, GUIDED),
    "tpe": lambda space: OptunaSearch(space, TpeOptions(num_random=5)),
    "tpe, front": lambda space: OptunaSearch(space, TpeOptions(num_random=5), costs=madds_and_params),
    "random, replicated": lambda space: ReplicateLeaders(RandomSearch(space), num_trials=40, share=0.3),
    "evolution, replicated": lambda space: ReplicateLeaders(
        RegularizedEvolution(space, EvolutionOptions(population_size=6, tournament_size=3)), num_trials=40, share=0.3
    ),
    "local, replicated": lambda space: ReplicateLeaders(
        LocalSearch(space, LocalOptions(num_random=5)), num_trials=40, share=0.3
    ),
    "predictor-guided, replicated": lambda space: ReplicateLeaders(
        PredictorGuidedEvolution(space, GUIDED),
        num_trials=40,
        share=0.3,
    ),
    "ppo, replicated": lambda space: ReplicateLeaders(Ppo(space, PpoOptions(batch_size=5)), num_trials=40, share=0.3),
    "tpe, replicated": lambda space: ReplicateLeaders(
        OptunaSearch(space, TpeOptions(num_random=5)), num_trials=40, share=0.3
    ),
}
SLOW = (MAKERS["tpe"], MAKERS["tpe, front"], MAKERS["tpe, replicated"])
"""Their proposals take a hundred times as long as those of the others."""
every_controller = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
SEARCHERS = {name: make for name, make in MAKERS.items() if "replicated" not in name}
every_searcher = pytest.mark.parametrize("make", SEARCHERS.values(), ids=SEARCHERS.keys())
every_name = pytest.mark.parametrize("name", sorted({*CONTROLLERS} - {"plan"}))


def proposals(events) -> list[Proposal]:
    return [proposal for kind, proposal, _ in events if kind == "ask"]


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in sorted({*CONTROLLERS} - {"plan"})), ("ppo", {"policy": "recurrent"})],
)
def test_a_seed_gives_the_same_trajectory_in_every_process(name, options):
    num_trials = 25 if name == "tpe" else 60
    program = f"""
import hashlib
from spinenas.controller import make_controller
from spinenas.results.record import Evaluation
from spinenas.space.search_space import SearchSpace

controller = make_controller({name!r}, SearchSpace.spinenet49(), **{options!r})
for _ in range({num_trials}):
    proposal = controller.ask()
    print(proposal.number, proposal.parent, proposal.origin, proposal.info, proposal.genotype.text)
    digest = hashlib.sha256(proposal.genotype.text.encode()).hexdigest()
    controller.tell(proposal.number, Evaluation(int(digest[:8], 16) / 2**32))
"""
    printed = set()
    for hash_seed, num_threads in (("0", "1"), ("1", "2"), ("77", "1")):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "OPENBLAS_NUM_THREADS": num_threads},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        printed.add(done.stdout)
    assert len(printed) == 1
    assert printed.pop().count("\n") == num_trials


@every_name
def test_another_seed_is_another_trajectory(name):
    assert make_controller(name, SPINENET49, seed=0).ask() != make_controller(name, SPINENET49, seed=1).ask()


@every_controller
@pytest.mark.parametrize("seed", range(3))
def test_a_search_replayed_to_any_point_continues_identically(make, seed):
    events = simulate(make(TINY), num_asks=40, max_in_flight=7, seed=seed)
    num_asked = len(proposals(events))
    assert num_asked == 40 or (events[-1][0] == "exhausted" and num_asked > 30)
    contract.check_replay(make, TINY, events, every=20 if make in SLOW else 5)


@every_controller
def test_unknown_and_repeated_results_are_refused_and_change_nothing(make):
    contract.check_refusals(make, TINY, num_asks=40)


@every_controller
def test_missing_results_do_no_harm(make):
    contract.check_missing_results(make, TINY, num_asks=40)


def test_the_order_of_results_does_not_matter_to_random_search():
    forward, backward = RandomSearch(TINY), RandomSearch(TINY)
    for _ in range(10):
        assert forward.ask() == backward.ask()
    for number in range(10):
        forward.tell(number, Evaluation(number))
        backward.tell(9 - number, FAILURE)
    assert forward.ask() == backward.ask()


@every_controller
def test_no_training_is_proposed_twice_with_fifty_in_flight(make):
    num_asks = 70 if make in SLOW else 150
    for space in (TINY, SPINENET49):
        events = simulate(make(space), num_asks=num_asks, max_in_flight=50, seed=2)
        assert len(proposals(events)) == num_asks or events[-1][0] == "exhausted"
        contract.check_proposals(events, space)


def networks(space: SearchSpace, feasible=lambda genotype: True) -> set[str]:
    return {network_key(genotype) for genotype in space.enumerate() if feasible(genotype)}


@every_searcher
def test_a_small_space_is_proposed_completely_and_then_exhausted(make):
    controller = make(MINIMAL)
    alive = (lambda genotype: not dead_blocks(genotype)) if make is MAKERS["alive"] else lambda genotype: True
    wanted = networks(MINIMAL, alive)
    asked = proposals(simulate(controller, num_asks=len(wanted), max_in_flight=9, seed=0))
    assert {network_key(proposal.genotype) for proposal in asked} == wanted
    for _ in range(2):
        with pytest.raises(SpaceExhausted, match=f"all {len(wanted)} feasible networks of minimal"):
            controller.ask()


def test_exhaustion_survives_a_replay():
    events = simulate(MAKERS["evolution"](MINIMAL), num_asks=len(networks(MINIMAL)), max_in_flight=3, seed=0)
    controller = MAKERS["evolution"](MINIMAL)
    for proposal in proposals(events):
        controller.replay_ask(proposal)
    with pytest.raises(SpaceExhausted):
        controller.ask()


@every_name
def test_only_feasible_networks_are_proposed(name):
    def feasible(genotype: Genotype) -> bool:
        return genotype.blocks[0].kind == "residual"

    controller = make_controller(name, TINY, feasible=feasible)
    num_asks = 25 if name == "tpe" else 150
    asked = proposals(simulate(controller, num_asks=num_asks, max_in_flight=5, seed=0))
    assert all(feasible(step.genotype) for step in asked if isinstance(step, Proposal))

    impossible = make_controller(name, SPINENET49, feasible=lambda genotype: False)
    with pytest.raises(SpaceExhausted, match="new and feasible"):
        impossible.ask()


@every_name
def test_an_observed_network_is_never_proposed(name):
    controller = make_controller(name, MINIMAL)
    observed = list(MINIMAL.enumerate())[::2]
    for genotype in observed:
        controller.observe(genotype, Evaluation(0.5))
    left = networks(MINIMAL) - {network_key(genotype) for genotype in observed}
    asked = [controller.ask() for _ in left]
    assert {network_key(proposal.genotype) for proposal in asked} == left
    for proposal in asked:
        controller.tell(proposal.number, Failure(FailureKind.TIMEOUT, "no result"))
    with pytest.raises(SpaceExhausted):
        controller.ask()


@every_name
def test_a_network_of_another_space_is_not_observed(name):
    with pytest.raises(UserError, match="in tiny"):
        make_controller(name, TINY).observe(SPINENET_49, Evaluation(0.5))


# Random search


def test_the_controls_of_random_search_hold():
    uniform = RandomSearch(SPINENET49, RandomOptions(control="uniform"))
    assert 5 < sum(bool(dead_blocks(uniform.ask().genotype)) for _ in range(40)) < 35
    alive = RandomSearch(SPINENET49)
    assert not any(dead_blocks(alive.ask().genotype) for _ in range(40))
    band = MaddsBand(SCALINGS["49"], 640, 25_000_000_000, 27_000_000_000)
    banded = RandomSearch(SPINENET49, RandomOptions(control="madds-band", madds_band=band))
    costs = [backbone_cost(banded.ask().genotype, SCALINGS["49"], 640).madds for _ in range(10)]
    assert all(25e9 <= cost <= 27e9 for cost in costs)


# Evolution


def tell_all(controller, objectives):
    for objective in objectives:
        proposal = controller.ask()
        controller.tell(proposal.number, FAILURE if objective is None else Evaluation(objective))


def test_the_first_proposals_are_random_and_alive_and_the_next_are_children():
    controller = RegularizedEvolution(SPINENET49, EvolutionOptions(population_size=10, tournament_size=4))
    asked = [controller.ask() for _ in range(10)]
    assert all(proposal.origin == "random:alive" and not dead_blocks(proposal.genotype) for proposal in asked)
    assert controller.ask().origin == "random:alive"  # no result is in: there is no parent yet
    controller.tell(3, Evaluation(0.1))
    child = controller.ask()
    assert (child.parent, child.origin.split(":")[0]) == (3, "mutation")


def test_a_child_differs_from_its_parent_by_the_named_edits():
    controller = RegularizedEvolution(SPINENET49, EvolutionOptions(population_size=1, tournament_size=1, max_edits=3))
    tell_all(controller, [0.5])
    parent = (
        RegularizedEvolution(SPINENET49, EvolutionOptions(population_size=1, tournament_size=1, max_edits=3))
        .ask()
        .genotype
    )
    counts = set()
    for _ in range(30):
        child = controller.ask()
        edits = child.origin.removeprefix("mutation:").split("+")
        counts.add(len(edits))
        assert set(edits) <= {"swap", "insert", "reparent", "level", "kind"}
        assert child.genotype != parent
        if set(edits) == {"kind"}:
            changed = [a.kind != b.kind for a, b in zip(child.genotype.blocks, parent.blocks, strict=True)]
            assert 1 <= sum(changed) <= len(edits)
    assert counts == {1, 2, 3}


def test_a_failure_is_the_worst_member():
    controller = RegularizedEvolution(SPINENET49, EvolutionOptions(population_size=2, tournament_size=2))
    tell_all(controller, [-5.0, None])
    parents = Counter(controller.ask().parent for _ in range(200))
    # Both draws hit the failure a quarter of the time.
    assert set(parents) == {0, 1}
    assert 25 < parents[1] < 75


def test_a_population_of_failures_alone_still_has_children():
    controller = RegularizedEvolution(SPINENET49, EvolutionOptions(population_size=2, tournament_size=2))
    tell_all(controller, [None, None])
    assert controller.ask().parent in (0, 1)


def test_the_oldest_result_is_removed_however_good():
    controller = RegularizedEvolution(SPINENET49, EvolutionOptions(population_size=2, tournament_size=2))
    tell_all(controller, [1.0, 0.2])
    assert {controller.ask().parent for _ in range(30)} == {0, 1}
    controller.tell(2, Evaluation(0.1))
    assert {controller.ask().parent for _ in range(30)} == {1, 2}


def test_age_counts_from_the_arrival_of_a_result():
    controller = RegularizedEvolution(SPINENET49, EvolutionOptions(population_size=3, tournament_size=3))
    for _ in range(5):
        controller.ask()
    for number in (1, 2, 3, 0):
        controller.tell(number, Evaluation(0.5))
    assert {controller.ask().parent for _ in range(60)} == {2, 3, 0}


def test_a_full_archive_replaces_the_random_start():
    controller = RegularizedEvolution(SPINENET49, EvolutionOptions(population_size=1, tournament_size=1))
    controller.observe(SPINENET_49, Evaluation(0.4))
    child = controller.ask()
    assert child.parent is None
    assert child.origin.startswith("mutation:")
    assert child.genotype != SPINENET_49


def test_evolution_finds_better_networks_than_random_search_on_every_seed():
    def objective(genotype: Genotype, landscape: int) -> float:
        """A weight for each block's level at its place, and for each of its connections."""
        total = 0.0
        for node, block in enumerate(genotype.blocks):
            for term in (("level", node, block.level), *(("edge", node, parent) for parent in block.parents)):
                total += random.Random(f"{landscape} {term}").gauss(0, 1)
        return total

    def best(controller, landscape: int) -> float:
        values = []
        for _ in range(200):
            proposal = controller.ask()
            values.append(objective(proposal.genotype, landscape))
            controller.tell(proposal.number, Evaluation(values[-1]))
        return max(values)

    for seed in range(4):
        evolution = RegularizedEvolution(SPINENET49, EvolutionOptions(population_size=20, tournament_size=5), seed=seed)
        control = RandomSearch(SPINENET49, RandomOptions(control="alive"), seed=seed)
        assert best(evolution, seed) > best(control, seed) + 2


# Replicates


@pytest.mark.parametrize(
    ("num_trials", "share", "expected"),
    [(1, 0.1, 0), (7, 0.9, 0), (8, 0.1, 1), (10, 0.1, 1), (11, 0.1, 2), (24, 0.1, 3), (30, 0.1, 3),
     (1000, 0.1, 100), (100, 0.07, 7), (50, 0.0, 0), (8, 0.001, 1)],
)  # fmt: skip
def test_the_share_of_replicates_is_rounded_up_exactly(num_trials, share, expected):
    assert num_replicates(num_trials, share) == expected


def replicated(num_trials=8, share=0.5):
    return ReplicateLeaders(RandomSearch(SPINENET49), num_trials=num_trials, share=share)


def test_replicates_alternate_between_the_leaders():
    controller = replicated()
    tell_all(controller, [0.1, 0.4, 0.3, 0.2])
    first, second, third = (controller.ask() for _ in range(3))
    assert [proposal.parent for proposal in (first, second, third)] == [1, 2, 1]
    assert [proposal.replicate for proposal in (first, second, third)] == [1, 1, 2]
    assert [proposal.number for proposal in (first, second, third)] == [4, 5, 6]
    assert {(proposal.stage, proposal.origin) for proposal in (first, second, third)} == {(Stage.RERANK, "replicate")}
    # 1 falls to a mean of 0.1 with its second result, so that 2 and 3 lead; 3 has the fewest trainings.
    controller.tell(4, Evaluation(-0.2))
    assert controller.ask().parent == 3


def told(controller, *objectives):
    """Ask for replicates and tell their objectives, None for a failure; return the trials that they replicate."""
    asked = []
    for objective in objectives:
        proposal = controller.ask()
        controller.tell(proposal.number, FAILURE if objective is None else Evaluation(objective))
        asked.append(proposal.parent)
    return asked


def test_leaders_separated_from_the_best_are_not_trained_again():
    controller = replicated(num_trials=20, share=0.6)
    tell_all(controller, [0.50, 0.51, 0.30, 0.10, 0.05, 0.04, 0.03, 0.02])
    # Six leaders are trained again; then only 0 and 1 are contenders, whose seeds are 0.02 apart.
    assert told(controller, 0.53, 0.51, 0.31, 0.11, 0.06, 0.05) == [1, 0, 2, 3, 4, 5]
    assert told(controller, 0.51, 0.52, 0.53, 0.52) == [1, 0, 1, 0]


def test_a_settled_winner_ends_the_budget_early():
    controller = replicated(num_trials=20, share=0.6)
    tell_all(controller, [0.60, 0.50, 0.30, 0.10, 0.05, 0.04, 0.03, 0.02])
    proposals = [controller.ask() for _ in range(6)]
    for proposal, objective in zip(proposals[:5], (0.61, 0.51, 0.31, 0.11, 0.06), strict=True):
        controller.tell(proposal.number, Evaluation(objective))
    assert controller.ask() is None  # the sixth is in flight
    controller.tell(proposals[5].number, Evaluation(0.05))
    with pytest.raises(SpaceExhausted, match=r"the winner is settled.* trial 0"):
        controller.ask()


def test_a_winner_with_one_result_is_not_settled():
    controller = replicated(num_trials=20, share=0.6)
    tell_all(controller, [0.90, 0.50, 0.30, 0.10, 0.05, 0.04, 0.03, 0.02])
    assert told(controller, None, 0.51, 0.31, 0.11, 0.06, 0.05) == [0, 1, 2, 3, 4, 5]
    assert told(controller, None, 0.91) == [0, 0]
    with pytest.raises(SpaceExhausted, match=r"the winner is settled.* trial 0"):
        controller.ask()


@pytest.mark.parametrize("objective", [0.5, 0.1])  # the mean of three 0.1 is not 0.1
def test_equal_results_settle_nothing(objective):
    controller = replicated(num_trials=20, share=0.6)
    tell_all(controller, [objective] * 8)
    assert told(controller, *[objective] * 11)[:8] == [0, 1, 2, 3, 4, 5, 0, 1]


def test_a_failed_replicate_counts_as_a_training_and_not_as_a_result():
    controller = replicated()
    tell_all(controller, [0.1, 0.4, 0.3, 0.2, None])
    following = [controller.ask() for _ in range(3)]
    assert [(proposal.parent, proposal.replicate) for proposal in following] == [(2, 1), (1, 2), (2, 2)]


def test_nothing_is_replicated_before_there_is_a_result():
    controller = replicated()
    for _ in range(4):
        assert controller.ask() is not None
    assert controller.ask() is None
    controller.tell(2, Evaluation(0.1))
    assert controller.ask().parent == 2


def test_a_run_of_failures_alone_ends():
    controller = replicated()
    tell_all(controller, [None] * 4)
    with pytest.raises(SpaceExhausted, match="no trial has given a result"):
        controller.ask()


def test_a_raised_budget_is_searched_first():
    short, long = replicated(num_trials=8, share=0.25), replicated(num_trials=16, share=0.25)
    for _ in range(8):
        proposal = short.ask()
        long.replay_ask(proposal)
        noisy = Evaluation(score(proposal.genotype) + 0.5 * proposal.replicate)
        assert short.tell(proposal.number, noisy)
        assert long.tell(proposal.number, noisy)
    following = [long.ask() for _ in range(8)]
    assert [proposal.stage for proposal in following] == [Stage.SEARCH] * 6 + [Stage.RERANK] * 2
    assert [proposal.number for proposal in following] == list(range(8, 16))


def test_an_exhausted_space_still_gets_its_replicates_and_no_more():
    controller = ReplicateLeaders(RandomSearch(MINIMAL, RandomOptions(control="uniform")), num_trials=500, share=0.01)
    num_networks = len(networks(MINIMAL))
    for _ in range(num_networks + 5):
        proposal = controller.ask()
        controller.tell(proposal.number, Evaluation(score(proposal.genotype) + 0.5 * proposal.replicate))
    assert (proposal.number, proposal.stage) == (num_networks + 4, Stage.RERANK)
    with pytest.raises(SpaceExhausted):
        controller.ask()


def test_replicates_make_no_new_members_of_a_population():
    inner = RegularizedEvolution(SPINENET49, EvolutionOptions(population_size=2, tournament_size=2))
    controller = ReplicateLeaders(inner, num_trials=8, share=0.5)
    tell_all(controller, [0.1, 0.4, 0.3, 0.2, 0.9, 0.9, 0.9, 0.9])
    assert {inner.ask().parent for _ in range(30)} == {2, 3}


# Names and options


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_controller("evolutoin", TINY), "'evolutoin' is unknown; did you mean 'evolution'"),
        (lambda: make_controller("evolution", TINY, population=3), "no option 'population'; did you mean"),
        (lambda: make_controller("evolution", TINY, population_size=8, tournament_size=9), "tournament_size is 9 with"),
        (lambda: make_controller("evolution", TINY, tournament_size=0), "tournament_size is 0"),
        (lambda: make_controller("evolution", TINY, max_edits=0), "max_edits is 0"),
        (lambda: make_controller("predictor-guided", TINY, num_candidates=0), "num_random is None, num_candidates 0"),
        (lambda: make_controller("predictor-guided", TINY, ucb_coefficient=-1.0), "ucb_coefficient -1.0"),
        (lambda: make_controller("hybrid", TINY), "no longer has the controller 'hybrid'"),
        (lambda: make_controller("local", TINY, num_parents=0), "num_parents is 0 and num_random None"),
        (lambda: make_controller("ppo", TINY, policy="recurent"), "'recurent' is unknown; did you mean 'recurrent'"),
        (lambda: make_controller("ppo", TINY, batch_size=1), "batch_size is 1, steps_per_batch 4"),
        (lambda: make_controller("ppo", TINY, temperature=0.0), "temperature is 0.0"),
        (lambda: make_controller("reinforce", TINY, learning_rate=0.0), "learning_rate 0.0"),
        (lambda: make_controller("reinforce", TINY, baseline_decay=1.0), "baseline_decay is 1.0"),
        (lambda: make_controller("tpe", TINY, sampler="tep"), "'tep' is unknown; did you mean 'tpe'"),
        (lambda: make_controller("tpe", TINY, num_random=0), "num_random is 0"),
        (lambda: make_controller("random", TINY, control="alife"), "'alife' is unknown; did you mean 'alive'"),
        (lambda: make_controller("random", TINY, control="madds-band"), "give both or neither"),
        (lambda: MaddsBand(SCALINGS["49"], 640, 2, 1), "0 <= low <= high"),
        (lambda: ReplicateLeaders(RandomSearch(TINY), num_trials=9, share=1.0), "share of replicates is 1.0"),
    ],
)
def test_a_wrong_name_or_option_is_one_clear_sentence(call, message):
    with pytest.raises(UserError, match=message):
        call()
