"""Cost limits: the costs are counted correctly, impossible limits are refused, and every controller respects them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_task import FakeTask

from spinenas.controller import SpaceExhausted, make_controller
from spinenas.controller.registry import CONTROLLERS
from spinenas.results.record import Evaluation
from spinenas.search.config.amount import amount
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.constraints import ConstraintsConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.loading import load_config, stored_config
from spinenas.search.config.parts import BudgetConfig
from spinenas.search.planning.estimate import estimate
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.search.run.or_resume import search_or_resume
from spinenas.space import SearchSpace
from spinenas.space.cost import retinanet_cost
from spinenas.space.errors import UserError
from spinenas.space.graph import dead_blocks, network_key
from spinenas.space.limits import CostTarget, Limits
from spinenas.space.published import SPINENET_49, published
from spinenas.space.sampling import sample_without_dead_blocks

SPINENET49 = SearchSpace.spinenet49()
TINY = SearchSpace.tiny()
TARGET = CostTarget.published("49@640")
NUM_PROPOSALS = {"tpe": 30, "reinforce": 100, "ppo": 150}


def random_madds(share: float) -> float:
    """Return limits that this share of random architectures satisfies."""
    rng = np.random.default_rng(0)
    return float(
        np.quantile([TARGET.cost(sample_without_dead_blocks(SPINENET49, rng)).madds for _ in range(300)], share)
    )


@pytest.mark.parametrize("text", ["49@640", "49S@640", "190@1280", "mobile-49@384"])
def test_a_target_is_the_published_detector(text: str) -> None:
    name = f"spinenet-{text.partition('@')[0].lower()}"
    model = published(name)
    assert CostTarget.published(text).cost(model.genotype) == model.cost()


def test_a_target_may_have_another_size() -> None:
    cost = CostTarget.published("49@896").cost(SPINENET_49)
    assert cost == published("spinenet-49-896").cost()


@pytest.mark.parametrize(
    ("text", "words"),
    [("49", "SCALING@PIXELS"), ("49@", "SCALING@PIXELS"), ("50@640", "'50'"), ("49@64", "at least 96"), ("@640", "''")],
)
def test_an_invalid_target_is_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        CostTarget.published(text)


def test_limits_include_equal_costs() -> None:
    cost = TARGET.cost(SPINENET_49)
    assert Limits(TARGET, max_params=cost.params, max_madds=cost.madds)(SPINENET_49)
    assert not Limits(TARGET, max_params=cost.params - 1, max_madds=cost.madds)(SPINENET_49)
    assert not Limits(TARGET, max_madds=cost.madds - 1)(SPINENET_49)
    assert Limits(TARGET)(SPINENET_49)


@pytest.mark.parametrize("limit", [0, -1.0, float("inf"), float("nan")])
def test_a_limit_is_a_number_above_0(limit: float) -> None:
    with pytest.raises(UserError, match="above 0"):
        Limits(TARGET, max_madds=limit)


@pytest.mark.parametrize("name", ["params", "madds"])
def test_the_cheapest_known_of_a_small_space_is_the_cheapest(name: str) -> None:
    costs = [getattr(TARGET.cost(g), name) for g in TINY.enumerate() if not dead_blocks(g)]
    Limits(TARGET, **{f"max_{name}": min(costs)}).check(TINY)
    unit = {"params": 1e6, "madds": 1e9}[name]
    with pytest.raises(UserError, match=f"cheapest known has .*{min(costs) / unit:.4g} "):
        Limits(TARGET, **{f"max_{name}": min(costs) - 1}).check(TINY)


def test_a_limit_below_the_cheapest_known_is_refused_with_its_figure() -> None:
    with pytest.raises(UserError, match=r"within 60 G multiply-adds at 49@640: the cheapest known has .* 7\d\.\d+ G"):
        Limits(TARGET, max_madds=60e9).check(SPINENET49)
    Limits(TARGET, max_madds=75e9).check(SPINENET49)  # random ones have 78 and more


def test_limits_that_can_only_be_met_separately_are_refused() -> None:
    Limits(TARGET, max_madds=75.5e9).check(SPINENET49)
    Limits(TARGET, max_params=18.5e6).check(SPINENET49)
    with pytest.raises(UserError, match=r"18\.5 M parameters and 75\.5 G multiply-adds"):
        Limits(TARGET, max_params=18.5e6, max_madds=75.5e9).check(SPINENET49)


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_fitting_makes_only_necessary_edits_and_adds_no_dead_blocks(share: float) -> None:
    limits, rng = Limits(TARGET, max_madds=random_madds(share)), np.random.default_rng(1)
    num_within = 0
    for _ in range(20):
        genotype = sample_without_dead_blocks(SPINENET49, rng)
        fitted = limits.fitted(SPINENET49, genotype, rng)
        SPINENET49.check(fitted)
        assert not dead_blocks(fitted)
        assert (fitted == genotype) == limits(genotype) or not limits(fitted)
        num_within += limits(fitted)
    assert num_within >= 15


@pytest.mark.parametrize("name", sorted({*CONTROLLERS} - {"plan"}))
def test_every_proposal_of_every_controller_is_within_the_limits(name: str) -> None:
    limits = Limits(TARGET, max_madds=random_madds(0.05))
    options = {"evolution": {"population_size": 20, "tournament_size": 5}, "ppo": {"batch_size": 20}}
    controller = make_controller(name, SPINENET49, seed=3, feasible=limits, **options.get(name, {}))
    seen = set()
    for number in range(NUM_PROPOSALS.get(name, 200)):
        proposal = controller.ask()
        assert proposal.number == number
        cost = retinanet_cost(proposal.genotype, **TARGET.detector)
        assert cost.madds <= limits.max_madds
        seen.add((network_key(proposal.genotype), proposal.replicate))
        controller.tell(proposal.number, Evaluation(cost.madds / 1e12))  # controllers push towards the limit
    assert len(seen) == number + 1


@pytest.mark.parametrize("name", ["random", "evolution", "reinforce"])
def test_tight_limits_are_met_by_edits(name: str) -> None:
    """Hardly one random architecture in a thousand is so cheap."""
    limits = Limits(TARGET, max_madds=75.5e9)
    controller = make_controller(name, SPINENET49, feasible=limits)
    num_fitted = 0
    for _ in range(6):
        proposal = controller.ask()
        assert limits(proposal.genotype)
        if proposal.origin.endswith("+fitted"):
            num_fitted += 1
            assert proposal.info == {}  # its log-probability would belong to another genotype
        controller.tell(proposal.number, Evaluation(0.1))
    assert num_fitted >= 3


def test_a_small_space_is_exhausted_within_its_limits() -> None:
    costs = sorted(TARGET.cost(g).params for g in TINY.enumerate())
    limits = Limits(TARGET, max_params=costs[len(costs) // 50])
    allowed = {network_key(g) for g in TINY.enumerate() if limits(g) and not dead_blocks(g)}
    controller = make_controller("random", TINY, feasible=limits)
    proposed = set()
    for _ in allowed:
        proposal = controller.ask()
        proposed.add(network_key(proposal.genotype))
        controller.tell(proposal.number, Evaluation(0.1))
    with pytest.raises(SpaceExhausted):
        controller.ask()
    assert proposed == allowed


class FourChannels(FakeTask):
    class_channels = 4


def configured(**constraints: float | str) -> SearchConfig:
    return SearchConfig(
        budget=BudgetConfig(8, replicate_share=0.0),
        executor=ExecutorConfig(kind="serial"),
        constraints=ConstraintsConfig(**constraints),
    )


def test_a_search_respects_its_limits_and_a_refused_one_writes_nothing(tmp_path: Path) -> None:
    limit = random_madds(0.3)
    run = run_search(configured(max_madds=limit, target="49@640"), out=tmp_path / "run", task=FakeTask())
    assert all(TARGET.cost(record.genotype).madds <= limit for record in run.records() if record.genotype)
    assert len(run.records()) == 8
    with pytest.raises(UserError, match="cheapest known"):
        run_search(configured(max_params=1e6), out=tmp_path / "none", task=FakeTask())
    with pytest.raises(UserError, match="cheapest known"):
        estimate(configured(max_params=1e6), tmp_path / "none", print)
    assert not (tmp_path / "none").exists()


def test_a_resumed_search_respects_its_limits(tmp_path: Path) -> None:
    limit = random_madds(0.3)
    config = configured(max_madds=limit, target="49@640")
    whole = run_search(config, out=tmp_path / "whole", task=FakeTask())
    with pytest.raises(KeyboardInterrupt):
        run_search(config, out=tmp_path / "cut", task=FakeTask(interrupt_at=3))
    cut = resume(tmp_path / "cut", task=FakeTask())
    assert [record.genotype for record in cut.records()] == [record.genotype for record in whole.records()]


def test_the_tasks_own_detector_has_the_class_channels_of_its_data(tmp_path: Path) -> None:
    task = FourChannels()
    config = configured(max_madds=1e12)
    run = search_or_resume(config, out=tmp_path / "run", task=task)
    kept = stored_config(run.folder.config())
    assert kept.constraints.class_channels == 4
    own = retinanet_cost(
        SPINENET_49, config.task.scaling, config.task.image_size_pixels, class_channels=4, head_channels=256
    )
    assert kept.constraints.cost_target(kept.task).cost(SPINENET_49) == own
    search_or_resume(config, out=tmp_path / "run", task=task)  # the same command again


@pytest.mark.parametrize(
    ("text", "number"), [("5G", 5e9), ("28.5M", 28.5e6), ("60 g", 60e9), ("7e9", 7e9), ("800k", 8e5)]
)
def test_amounts_may_have_a_suffix(text: str, number: float) -> None:
    assert amount(text) == number


@pytest.mark.parametrize("text", ["G", "5X", "", "five"])
def test_an_invalid_amount_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="not a number"):
        amount(text)


def test_a_configuration_may_give_amounts_as_text() -> None:
    config = load_config(
        {"constraints": {"max_madds": "60G", "max_params": 28.5e6}, "objective": {"kind": "soft", "target_madds": "5G"}}
    )
    assert (config.constraints.max_madds, config.constraints.max_params) == (60e9, 28.5e6)
    assert config.objective.target_madds == 5e9
    with pytest.raises(UserError, match=r"constraints\.max_madds' is '60X'; it is a number such as 5e9, or a text"):
        load_config({"constraints": {"max_madds": "60X"}})
