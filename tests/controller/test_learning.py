"""Which results controllers learn from, and that they improve."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from functools import cache
from statistics import fmean

import numpy as np
import pytest
from as_recorded import as_recorded

from spinenas.controller import (
    LocalOptions,
    LocalSearch,
    OptunaSearch,
    Ppo,
    PpoOptions,
    Proposal,
    RandomSearch,
    Reinforce,
    ReinforceOptions,
    TpeOptions,
    make_controller,
)
from spinenas.controller.base import Controller
from spinenas.results.record import Evaluation, Failure, FailureKind, Stage
from spinenas.space.cost import backbone_cost
from spinenas.space.genotype import Genotype
from spinenas.space.graph import dead_blocks
from spinenas.space.published import SPINENET_49
from spinenas.space.random_streams import seed_for
from spinenas.space.scaling import SCALINGS
from spinenas.space.search_space import SearchSpace

SPINENET49 = SearchSpace.spinenet49()
UNLIMITED = SearchSpace.spinenet49(window=None)


@cache
def weight(*term: object) -> float:
    return random.Random(str(term)).gauss(0, 1)


def objective(genotype: Genotype, landscape: int) -> float:
    """A sum of weights for levels, kinds and connections; about 0.2 with a standard deviation of 0.03."""
    total = 0.0
    for node, block in enumerate(genotype.blocks):
        total += weight(landscape, "level", node, block.level) + weight(landscape, "kind", node, block.kind)
        total += sum(weight(landscape, "edge", node, parent) for parent in block.parents)
    return 0.2 + 0.004 * total


def late_mean(controller: Controller, landscape: int, *, num_trials: int, in_flight: int) -> float:
    """Mean objective of the last quarter of proposals; `in_flight` trials run at a time, and end in random order."""
    draw, waiting, values = random.Random(landscape), [], []
    for _ in range(num_trials):
        if len(waiting) >= in_flight:
            proposal = waiting.pop(draw.randrange(len(waiting)))
            value = values[proposal.number] + draw.gauss(0, 0.002)
            assert controller.tell(proposal.number, Evaluation(value))
        proposal = controller.ask()
        waiting.append(proposal)
        values.append(objective(proposal.genotype, landscape))
    return float(np.mean(values[-num_trials // 4 :]))


@cache
def late_mean_of_random_search(landscape: int) -> float:
    return late_mean(RandomSearch(SPINENET49, seed=landscape), landscape, num_trials=200, in_flight=1)


@pytest.mark.parametrize(
    ("make", "num_trials", "in_flight", "margin"),
    [
        (lambda seed: LocalSearch(SPINENET49, seed=seed), 200, 8, 0.015),
        (lambda seed: Reinforce(SPINENET49, ReinforceOptions(policy="factorised"), seed=seed), 200, 8, 0.015),
        (lambda seed: Reinforce(SPINENET49, seed=seed), 160, 8, 0.01),
        (lambda seed: Ppo(SPINENET49, seed=seed), 300, 8, 0.015),
        (lambda seed: Ppo(SPINENET49, PpoOptions(policy="recurrent"), seed=seed), 240, 8, 0.006),
        (lambda seed: Ppo(SPINENET49, seed=seed), 600, 100, 0.015),
        (lambda seed: OptunaSearch(SPINENET49, seed=seed), 70, 4, 0.004),
    ],
    ids=["local", "reinforce factorised", "reinforce", "ppo", "ppo recurrent", "ppo, 100 in flight", "tpe"],
)
def test_later_proposals_are_better_than_random_ones_on_every_seed(
    make, num_trials: int, in_flight: int, margin: float
) -> None:
    gains = [
        late_mean(make(seed), seed, num_trials=num_trials, in_flight=in_flight) - late_mean_of_random_search(seed)
        for seed in range(3)
    ]
    assert min(gains) > margin, gains  # the standard deviation of a random network is 0.03


def learners() -> list[Controller]:
    return [
        LocalSearch(SPINENET49, LocalOptions(num_random=2)),
        Reinforce(SPINENET49, ReinforceOptions(batch_size=2)),
        Ppo(SPINENET49, PpoOptions(batch_size=2)),
        OptunaSearch(SPINENET49, TpeOptions(num_random=2)),
    ]


every_learner = pytest.mark.parametrize("which", range(4), ids=["local", "reinforce", "ppo", "tpe"])
DIVERGED = Failure(FailureKind.DIVERGED, "the loss is not finite")
LOST = Failure(FailureKind.TIMEOUT, "took too long")


def after(which: int, *results: Evaluation | Failure) -> list[Proposal | None]:
    """Return the proposals after these results of the first proposals."""
    controller = learners()[which]
    asked = [controller.ask() for _ in results]
    for proposal, result in zip(asked, results, strict=True):
        assert controller.tell(proposal.number, result)
    return [controller.ask() for _ in range(4)]


@every_learner
def test_a_diverged_network_counts_as_objective_0(which: int) -> None:
    results = [Evaluation(0.3), Evaluation(0.1), Evaluation(0.2)]
    assert after(which, *results, DIVERGED) == after(which, *results, Evaluation(0.0))
    assert after(which, *results, DIVERGED) != after(which, *results, Evaluation(0.9))


@every_learner
def test_other_failures_are_not_learnt_from(which: int) -> None:
    """Proposals do not depend on the kind of such a failure."""
    results = [Evaluation(0.3), Evaluation(0.1), Evaluation(0.2)]
    kinds = [kind for kind in FailureKind if kind is not FailureKind.DIVERGED]
    following = [after(which, *results, Failure(kind, "")) for kind in kinds]
    assert all(proposals == following[0] for proposals in following)
    assert following[0] != after(which, *results, Evaluation(0.9))


@pytest.mark.parametrize("which", [0, 1, 2], ids=["local", "reinforce", "ppo"])
def test_proposals_after_a_diverged_network_differ_from_those_after_a_lost_one(which: int) -> None:
    results = [Evaluation(0.3), Evaluation(0.1), Evaluation(0.2)]
    assert after(which, *results, DIVERGED) != after(which, *results, LOST)


@pytest.mark.parametrize("which", [1, 2, 3], ids=["reinforce", "ppo", "tpe"])
def test_replicates_change_no_later_proposal(which: int) -> None:
    controllers = [learners()[which] for _ in range(2)]
    for controller, value in zip(controllers, (0.9, 0.1), strict=True):
        first = controller.ask()
        for number in range(1, 6):
            controller.replay_ask(Proposal(number, first.genotype, replicate=number, stage=Stage.RERANK))
            assert controller.tell(number, Evaluation(value * number))
    assert controllers[0].ask() == controllers[1].ask()


@every_learner
def test_archived_results_change_proposals(which: int) -> None:
    following = []
    for sign in (1, -1):
        controller, rng = learners()[which], np.random.default_rng(0)
        for number in range(8):
            controller.observe(SPINENET49.sample(rng), Evaluation(sign * 0.1 * number))
        following.append(controller.ask())
    assert following[0].genotype != following[1].genotype


# Local search


def test_the_best_by_mean_have_children_and_a_bad_replicate_costs_a_place() -> None:
    controller = LocalSearch(SPINENET49, LocalOptions(num_parents=1, num_random=3))
    asked = [controller.ask() for _ in range(3)]
    assert all(proposal.origin == "random:alive" and not dead_blocks(proposal.genotype) for proposal in asked)
    for number, value in enumerate((0.2, 0.3, 0.25)):
        controller.tell(number, Evaluation(value))
    child = controller.ask()
    assert (child.parent, child.origin.split(":")[0]) == (1, "local")
    controller.replay_ask(Proposal(4, asked[1].genotype, replicate=1, stage=Stage.RERANK))
    controller.tell(4, Evaluation(0.1))
    assert {controller.ask().parent for _ in range(5)} == {2}


def test_a_child_of_an_observed_network_has_no_parent_number() -> None:
    controller = LocalSearch(UNLIMITED, LocalOptions(num_random=1))
    controller.observe(SPINENET_49, Evaluation(0.4))
    child = controller.ask()
    assert child.parent is None
    assert child.origin.startswith("local:")


# Policies


def test_the_log_probability_of_a_sample_is_kept_in_the_journal() -> None:
    for proposal in (Ppo(SPINENET49).ask(), Reinforce(SPINENET49).ask()):
        assert proposal.origin == "policy"
        assert -90 < proposal.info["log_prob"] < -50, "about 1e38 genotypes are almost equally likely"
        assert as_recorded(proposal).info == proposal.info


def test_a_policy_that_repeats_itself_proposes_edits_of_its_samples() -> None:
    controller = Ppo(SPINENET49)
    controller._policy.logits[:] = -1000.0 * np.arange(controller._sequence.max_features)
    asked = [controller.ask() for _ in range(6)]
    assert asked[0].origin == "policy"
    assert {proposal.origin.split(":")[0] for proposal in asked[1:]} == {"policy+mutation"}


def test_a_rewarded_option_becomes_likely() -> None:
    for controller in (
        Ppo(SPINENET49, PpoOptions(batch_size=10)),
        Reinforce(SPINENET49, ReinforceOptions(policy="factorised")),
        Reinforce(SPINENET49),
    ):
        for _ in range(250):
            proposal = controller.ask()
            controller.tell(proposal.number, Evaluation(0.1 + 0.1 * (proposal.genotype.blocks[14].level == 7)))
        rewarded = [controller.ask().genotype.blocks[14].level == 7 for _ in range(20)]
        assert sum(rewarded) >= 17, type(controller)


def test_the_entropy_weight_keeps_a_policy_random() -> None:
    """With equal results, advantages are 0 and only the entropy changes the policy."""
    log_probs = {}
    for entropy_weight in (0.0, 1.0):
        controller = Ppo(SPINENET49, PpoOptions(entropy_weight=entropy_weight, batch_size=5))
        controller._policy.logits[:, ::2] = 1.5
        for _ in range(50):
            controller.tell(controller.ask().number, Evaluation(0.2))
        log_probs[entropy_weight] = np.mean([controller.ask().info["log_prob"] for _ in range(50)])
    assert log_probs[1.0] < log_probs[0.0] - 3


# Optuna


def test_tpe_suggests_what_optunas_default_sampler_does() -> None:
    """With the same trials, one of them in flight."""
    import optuna

    space = SearchSpace.tiny()
    controller = OptunaSearch(space, TpeOptions(num_random=10))
    for number in range(14):
        proposal = controller.ask()
        if number != 7:
            controller.tell(proposal.number, Evaluation(0.1 + 0.01 * (number % 5)))
    trials = controller._study.get_trials()
    seed = seed_for(0, "controller/optuna/sampler", 14) % 2**32
    with warnings.catch_warnings(action="ignore"):
        reference = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=seed),
        )
    reference.add_trials(trials)
    expected = reference.ask(dict(controller._distributions)).params
    assert controller.ask().genotype == space.decode([expected[decision.name] for decision in space.decisions])


def test_optuna_says_nothing_and_its_settings_are_left_alone(capfd: pytest.CaptureFixture[str]) -> None:
    import optuna

    verbosity = optuna.logging.get_verbosity()
    controller = OptunaSearch(SearchSpace.tiny(), TpeOptions(num_random=2))
    for _ in range(6):
        controller.tell(controller.ask().number, Evaluation(0.2))
    controller.tell(controller.ask().number, LOST)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == verbosity


def test_the_study_has_trials_in_flight_as_running_and_refused_samples_as_failed() -> None:
    controller = OptunaSearch(SearchSpace.tiny(), TpeOptions(num_random=2))
    for _ in range(5):
        controller.ask()
    controller.tell(1, Evaluation(0.2))
    controller.tell(2, LOST)
    states = Counter(trial.state.name for trial in controller._study.trials)
    assert (states["RUNNING"], states["COMPLETE"]) == (3, 1)
    assert states["FAIL"] >= 6


def test_optuna_searches_for_a_front_itself() -> None:
    def madds(genotype: Genotype) -> float:
        return backbone_cost(genotype, SCALINGS["49"], 640).madds

    def searched(**given: object) -> tuple[Controller, float]:
        """Search with equal APs; return the controller and the mean multiply-adds of its last twenty networks."""
        controller, proposals = make_controller("tpe", SPINENET49, num_random=15, **given), []
        for _ in range(60):
            proposals.append(controller.ask())
            controller.tell(proposals[-1].number, Evaluation(0.3))
        controller.observe(SPINENET_49, Evaluation(0.4))
        return controller, fmean(madds(proposal.genotype) for proposal in proposals[-20:])

    (searcher, high_madds), (front_searcher, low_madds) = (
        searched(),
        searched(costs=lambda genotype: (madds(genotype),)),
    )
    assert isinstance(front_searcher, OptunaSearch)
    assert low_madds < 0.95 * high_madds
    assert searcher._study.trials[-1].values == [0.4]
    assert front_searcher._study.trials[-1].values == [0.4, madds(SPINENET_49)]


def test_gaussian_processes_fit_as_well() -> None:
    first, second = OptunaSearch(SearchSpace.tiny(), TpeOptions(sampler="gp", num_random=3)), None
    story = []
    for _ in range(5):
        proposal = first.ask()
        story.append((proposal, Evaluation(0.1 * len(story))))
        first.tell(proposal.number, story[-1][1])
    second = OptunaSearch(SearchSpace.tiny(), TpeOptions(sampler="gp", num_random=3))
    for proposal, evaluation in story:
        second.replay_ask(as_recorded(proposal))
        second.tell(proposal.number, evaluation)
    following = first.ask()
    assert following == second.ask()
    assert following.origin == "gp"
