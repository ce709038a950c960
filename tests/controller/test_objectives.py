"""Objectives beside AP: the results reported to controllers, the leaders and the winner."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_task import FakeTask

import spinenas.search.run.lifecycle as loop
from spinenas.controller import OptunaSearch, RandomSearch, ReplicateLeaders, SpaceExhausted, make_controller
from spinenas.controller.objectives import RankedByFront, Scalarized, SoftCost
from spinenas.results.pareto import front
from spinenas.results.record import Evaluation, Failure, FailureKind, Stage
from spinenas.search.cli.main import main
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.constraints import ConstraintsConfig
from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.loading import stored_config
from spinenas.search.config.objective import ObjectiveConfig
from spinenas.search.config.parts import BudgetConfig
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.search.run.run import Run
from spinenas.search.studies.study import run_study
from spinenas.space import Genotype, SearchSpace, UserError
from spinenas.space.limits import CostTarget
from spinenas.space.published import SPINENET_49

SPACE = SearchSpace.spinenet49()
TARGET = CostTarget.published("49@640")


class Told(RandomSearch):
    """Records the results that it is told."""

    def __init__(self) -> None:
        super().__init__(SPACE)
        self.results: list[Evaluation | Failure] = []

    def tell(self, number: int, result: Evaluation | Failure) -> bool:
        self.results.append(result)
        return super().tell(number, result)

    def observe(self, genotype: Genotype, evaluation: Evaluation) -> None:
        self.results.append(evaluation)
        super().observe(genotype, evaluation)


def madds(genotype: Genotype) -> int:
    return TARGET.cost(genotype).madds


def costs(genotype: Genotype) -> tuple[float, ...]:
    return TARGET.cost(genotype).madds, TARGET.cost(genotype).params


def test_a_soft_cost_is_that_of_mnasnet() -> None:
    at = madds(SPINENET_49)
    assert SoftCost(madds, at)(SPINENET_49, 0.4) == pytest.approx(0.4)
    assert SoftCost(madds, at / 2)(SPINENET_49, 0.4) == pytest.approx(0.4 * 2**-0.07)
    assert SoftCost(madds, at * 2, -1.0)(SPINENET_49, 0.4) == pytest.approx(0.8)
    for target, weight in ((0.0, -0.07), (1.0, 0.1)):
        with pytest.raises(UserError, match="soft cost"):
            SoftCost(madds, target, weight)


def test_a_scalarized_objective_is_reported_to_the_controller() -> None:
    told, soft_cost = Told(), SoftCost(madds, 80e9)
    controller = Scalarized(told, soft_cost)
    proposal = controller.ask()
    assert proposal is not None
    assert controller.tell(0, Evaluation(0.3, params=7))
    assert told.results[-1] == Evaluation(soft_cost(proposal.genotype, 0.3), params=7)
    assert not controller.tell(0, Evaluation(0.3))
    assert not controller.tell(5, Evaluation(0.3))
    controller.ask()
    failure = Failure(FailureKind.DIVERGED, "the loss is not finite")
    controller.tell(1, failure)
    assert told.results[-1] is failure
    controller.observe(SPINENET_49, Evaluation(0.5))
    assert told.results[-1] == Evaluation(soft_cost(SPINENET_49, 0.5))


def test_a_front_ranks_by_the_number_of_dominating_results() -> None:
    told = Told()
    controller = RankedByFront(told, lambda genotype: (0.0,))
    for objective in (0.2, 0.3, 0.1, 0.25, 0.3):
        proposal = controller.ask()
        assert proposal is not None
        controller.tell(proposal.number, Evaluation(objective))
    assert [result.objective for result in told.results if isinstance(result, Evaluation)] == [1, 1, 1 / 3, 1 / 2, 1]


def test_a_controller_for_a_single_objective_is_told_ranks() -> None:
    searcher = make_controller("random", SPACE, costs=costs)
    assert isinstance(searcher, RankedByFront)
    assert not isinstance(make_controller("random", SPACE), RankedByFront)
    assert isinstance(make_controller("tpe", SPACE, costs=costs), OptunaSearch)


def searched(make: Callable[[], ReplicateLeaders], value: Callable[[Genotype], float]) -> dict[Genotype, int]:
    """Run a search and count the trainings of each genotype."""
    controller, counts = make(), dict[Genotype, int]()
    for _ in range(40):
        try:
            proposal = controller.ask()
        except SpaceExhausted:
            break
        assert proposal is not None
        assert isinstance(proposal.genotype, Genotype)
        counts[proposal.genotype] = counts.get(proposal.genotype, 0) + 1
        controller.tell(proposal.number, Evaluation(value(proposal.genotype) + 1e-4 * proposal.replicate))
    return counts


def test_the_leaders_are_the_best_by_the_scalarized_objective() -> None:
    counts = searched(
        lambda: ReplicateLeaders(RandomSearch(SPACE), num_trials=40, share=0.2, scalarize=SoftCost(madds, 80e9, -1.0)),
        lambda genotype: 0.3,  # the network with the lowest cost is the best
    )
    again = [genotype for genotype, count in counts.items() if count > 1]
    assert set(again) == set(sorted(counts, key=madds)[: len(again)])
    assert len(again) >= 2


def test_the_leaders_of_a_front_are_its_members() -> None:
    def value(genotype: Genotype) -> float:
        return madds(genotype) / 1e12  # AP rises with cost, so that the front has many members

    counts = searched(
        lambda: ReplicateLeaders(RandomSearch(SPACE), num_trials=40, share=0.25, front_costs=costs), value
    )
    members = front(counts, [(value(genotype), *costs(genotype)) for genotype in counts])
    again = [genotype for genotype, count in counts.items() if count > 1]
    assert len(again) >= min(10, len(members)) > 2
    assert set(again) <= set(members)
    assert sum(counts.values()) == 40


def configured(kind: str, num_trials: int = 12) -> SearchConfig:
    return SearchConfig(
        controller=ControllerConfig("evolution"),
        budget=BudgetConfig(num_trials, replicate_share=0.25),
        executor=ExecutorConfig(kind="serial"),
        constraints=ConstraintsConfig(target="49@640"),
        objective=ObjectiveConfig(kind, weight=-3.0) if kind == "soft" else ObjectiveConfig(kind),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("kind", ["soft", "front"])
def test_a_search_for_more_than_ap_resumes_the_same_and_keeps_ap(tmp_path: Path, kind: str, no_fsync: None) -> None:
    whole = run_search(configured(kind), out=tmp_path / "whole", task=FakeTask())
    with pytest.raises(KeyboardInterrupt):
        run_search(configured(kind), out=tmp_path / "cut", task=FakeTask(interrupt_at=8))
    cut = resume(tmp_path / "cut", task=FakeTask())
    assert [record.evaluation for record in cut.records()] == [record.evaluation for record in whole.records()]
    plain = run_search(configured("ap"), out=tmp_path / "plain", task=FakeTask())
    assert whole.records()[0].evaluation == plain.records()[0].evaluation  # AP is recorded unchanged
    assert any(record.stage is Stage.RERANK for record in whole.records())
    scalarize, winner = whole.scalarized_objective(), whole.winner()
    assert (scalarize is None) == (kind == "front")
    if scalarize is not None:
        assert winner is not None
        rows = [row for row in whole.leaderboard().to_dict("records") if row["n"] > 1]
        values = {row["number"]: scalarize(whole.records()[row["number"]].genotype, row["objective"]) for row in rows}
        assert values[winner.number] == max(values.values())


def test_the_default_target_of_a_soft_cost_is_spinenet_49() -> None:
    soft_cost = ObjectiveConfig("soft").soft_cost(TARGET)
    assert soft_cost is not None
    assert soft_cost(SPINENET_49, 0.4) == pytest.approx(0.4)
    with pytest.raises(UserError, match=r"objective\.weight"):
        ObjectiveConfig("soft", weight=0.1)


def test_the_command_line_sets_limits_and_objective(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}

    def run_search(config: SearchConfig, **others: object) -> None:
        given.update(others, config=config)
        raise UserError("stop here")

    monkeypatch.setattr(loop, "run_search", run_search)
    options = ["--max-madds=80G", "--max-params=25.5M", "--target=49@640", "--objective=soft"]
    options += ["--warm-start=a", "--warm-start=b"]
    result = CliRunner().invoke(main, ["search", "quickstart", "--out", str(tmp_path / "run"), *options])
    assert "stop here" in result.output
    config = given["config"]
    assert isinstance(config, SearchConfig)
    assert config.constraints == ConstraintsConfig(25.5e6, 80e9, "49@640")
    assert config.objective.kind == "soft"
    assert given["warm_start"] == (Path("a"), Path("b"))
    result = CliRunner().invoke(main, ["search", "quickstart", "--out", str(tmp_path / "run"), "--max-madds", "5X"])
    assert result.exit_code == 2
    assert "'5X' is not a number" in result.output


def test_the_front_of_a_run_is_printed(tmp_path: Path, no_fsync: None) -> None:
    run = run_search(configured("ap", 5), out=tmp_path / "run", task=FakeTask())  # which all cost the same
    result = CliRunner().invoke(main, ["leaderboard", str(run.folder.path), "--front", "--json"])
    (row,) = json.loads(result.stdout)
    assert row["number"] == run.leaderboard()["number"][0]


def test_costs_are_printed_as_the_search_counted_them(tmp_path: Path, no_fsync: None) -> None:
    untargeted = replace(configured("front", 5), constraints=ConstraintsConfig())
    trained = run_search(untargeted, out=tmp_path / "trained", task=FakeTask())
    targeted = replace(configured("front", 5), constraints=ConstraintsConfig(target="96@896"))
    targeted_run = run_search(targeted, out=tmp_path / "targeted", task=FakeTask())

    def costs(run: Run, *options: str) -> set[tuple[int, int]]:
        result = CliRunner().invoke(main, ["leaderboard", str(run.folder.path), "--json", *options])
        assert ("those at" in result.stderr) == (run is targeted_run or options != ())
        return {(row["params"], row["madds"]) for row in json.loads(result.stdout)}

    def at(target: str, run: Run) -> set[tuple[int, int]]:
        found = [CostTarget.published(target).cost(record.genotype) for record in run.records() if record.genotype]
        return {(cost.params, cost.madds) for cost in found}

    assert costs(trained) == {(record.evaluation.params, record.evaluation.madds) for record in trained.records()}
    assert costs(trained, "--target=49@640") == at("49@640", trained)
    assert costs(targeted_run) == at("96@896", targeted_run)
    assert costs(targeted_run, "--front") < at("96@896", targeted_run)
    result = CliRunner().invoke(main, ["leaderboard", str(trained.folder.path), "--target=49"])
    assert result.exit_code == 1
    assert "is not of the form SCALING@PIXELS" in result.output


def test_keys_without_effect_are_named() -> None:
    config = SearchConfig(constraints=ConstraintsConfig(target="49@640"), objective=ObjectiveConfig(target_madds=1e9))
    assert [sentence.partition(" ")[0] for sentence in config.unused()] == [
        "constraints.target",
        "objective.target_madds",
    ]
    assert configured("front").unused() == []


def test_a_study_ignores_limits_and_objectives(tmp_path: Path) -> None:
    config = replace(configured("soft"), constraints=ConstraintsConfig(max_madds=1.0))
    run = run_study(config, [SPINENET_49], 1, out=tmp_path / "run", task=FakeTask())
    assert [record.genotype for record in run.records()] == [SPINENET_49]
    assert not stored_config(run.folder.config()).counts_costs
