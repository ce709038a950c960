"""Studies: planned trainings resume after interruptions, and known tasks give the known answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fake_task import FakeTask

from spinenas.results.record import Evaluation, Failure, FailureKind, Status
from spinenas.results.stats.intervals import share_interval
from spinenas.results.training_table import training_of, write_table
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.parts import BudgetConfig
from spinenas.search.config.presets import preset
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.search.studies.fidelities import (
    advice,
    compare_fidelities,
    halving_options,
    measured_rungs,
    rank_shifts,
    recommended,
)
from spinenas.search.studies.ladder import LADDER, damaged, ladder_architectures, ladder_result
from spinenas.search.studies.measured_curves import MeasuredCurve, MeasuredCurves, measured_curves
from spinenas.search.studies.noise import measured_noise, mutants_of_best, random_architectures
from spinenas.search.studies.study import run_study
from spinenas.space.baseline import Baseline
from spinenas.space.cost import backbone_cost
from spinenas.space.errors import UserError
from spinenas.space.genotype import SPINENET_STEM, BlockKind, Genotype
from spinenas.space.graph import dead_blocks, depth, network_key
from spinenas.space.published import R0_SP53, SPINENET_49
from spinenas.space.random_streams import generator
from spinenas.space.search_space import SearchSpace

SPACE = SearchSpace.spinenet49()
CONFIG = replace(preset("quickstart"), executor=ExecutorConfig(kind="serial"))
PAPER = {network_key(rung.architecture): rung.published_ap / 100 for rung in LADDER}


@dataclass
class KnownTask(FakeTask):
    """A task whose true scores are the paper's, or drawn by network; seeds add noise, early epochs a bias.

    Attributes:
        noise: standard deviation between seeds.
        early_bias: weight of a random bias that decays with the epochs.
    """

    noise: float = 0.0
    early_bias: float = 0.0

    def evaluate(self, genotype: Any, *, seed: int, report: Any, **options: Any) -> Evaluation:
        key = network_key(genotype)
        number = int(key, 16) % 2**32
        truth = PAPER.get(key, 0.3 + 0.05 * generator(number, "truth").normal())
        other = 0.05 * generator(number, "haste").normal()
        curve = []
        for epoch in range(1, self.num_epochs + 1):
            objective = truth + self.early_bias * other / epoch + self.noise * generator(seed, "noise").normal()
            curve.append({"epoch": epoch, "AP": objective, "loss": 1 - objective})
            report(epoch, {"AP": objective, "loss": 1 - objective})
        return Evaluation(
            objective=objective, curve=tuple(curve), network_key=key, train_seconds=float(self.num_epochs)
        )


def test_random_architectures_differ_have_no_dead_blocks_and_start_the_same() -> None:
    few, many = random_architectures(SPACE, 5, 3), random_architectures(SPACE, 20, 3)
    assert many[:5] == few
    assert few[0] == SPINENET_49
    assert len({network_key(genotype) for genotype in many}) == 20
    assert not any(dead_blocks(genotype) for genotype in many)
    assert random_architectures(SPACE, 5, 4)[1:] != few[1:]
    elsewhere = random_architectures(SearchSpace.tiny(), 3, 0)
    assert SPINENET_49 not in elsewhere
    assert len(elsewhere) == 3
    minute = SearchSpace("minute", SPINENET_STEM, (5,), (3, 4), (0,), (BlockKind.BOTTLENECK,), 2)
    with pytest.raises(UserError, match="ask for fewer"):
        random_architectures(minute, 40, 0)


def test_mutants_are_new_near_the_best_and_without_dead_blocks(tmp_path: Path) -> None:
    run = run_study(CONFIG, random_architectures(SPACE, 30, 0), 2, out=tmp_path / "run", task=KnownTask())
    few, many = mutants_of_best(run.folder.path, 4, 1), mutants_of_best(run.folder.path, 24, 1)
    assert many[:4] == few
    known = {record.network_key for record in run.records()}
    assert len({network_key(genotype) for genotype in many} - known) == 24
    assert not any(dead_blocks(genotype) for genotype in many)
    best = sorted({r.network_key: r for r in run.records()}.values(), key=lambda r: -r.evaluation.objective)[:3]
    blocks = [set(record.genotype.blocks) for record in best]
    num_shared = [max(len(set(genotype.blocks) & parent) for parent in blocks) for genotype in many]
    others = random_architectures(SPACE, 30, 5)[1:]
    assert min(num_shared[:3]) > max(len(set(genotype.blocks) & parent) for genotype in others for parent in blocks)
    task = FakeTask(fail=dict.fromkeys(range(4), "diverged"))
    failed = run_study(CONFIG, many[:2], 2, out=tmp_path / "failed", task=task)
    with pytest.raises(UserError, match="has no result of a genotype"):
        mutants_of_best(failed.folder.path, 4, 0)


def test_mutants_have_parents_inside_the_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PAPER, network_key(damaged(R0_SP53, "short-range")), 0.9)  # one parent for each block
    run = run_study(CONFIG, ladder_architectures(CONFIG, 10), 1, out=tmp_path / "run", task=KnownTask())
    assert all(SPACE.contains(genotype) for genotype in mutants_of_best(run.folder.path, 12, 1))


def test_a_study_trains_the_plan_and_resumes(tmp_path: Path) -> None:
    architectures = random_architectures(SPACE, 4, 0)
    with pytest.raises(KeyboardInterrupt):
        run_study(CONFIG, architectures, 3, out=tmp_path / "run", task=FakeTask(interrupt_at=6))
    run = run_study(CONFIG, architectures, 3, out=tmp_path / "run", task=FakeTask())
    records = run.records()
    assert [record.genotype for record in records] == architectures * 3
    assert [record.replicate for record in records] == [0] * 4 + [1] * 4 + [2] * 4
    assert len({record.seed for record in records}) == 12
    assert all(record.evaluation for record in records)
    again = run_study(CONFIG, architectures, 3, out=tmp_path / "run", task=FakeTask())
    assert again.records() == records
    with pytest.raises(UserError, match="holds another run"):
        run_study(CONFIG, architectures[:3], 3, out=tmp_path / "run", task=FakeTask())


def test_the_noise_of_a_task_is_found(tmp_path: Path) -> None:
    run = run_study(CONFIG, random_architectures(SPACE, 60, 0), 3, out=tmp_path / "run", task=KnownTask(noise=0.02))
    found = measured_noise(run)
    assert (found.num_architectures, found.num_seeds) == (60, 3)
    assert found.correlation.within_std == pytest.approx(0.02, rel=0.2)
    assert found.correlation.between_std == pytest.approx(0.05, rel=0.35)


def test_architectures_without_all_results_are_left_out_of_the_noise(tmp_path: Path) -> None:
    task = FakeTask(fail={5: "diverged"})
    run = run_study(CONFIG, random_architectures(SPACE, 4, 0), 2, out=tmp_path / "run", task=task)
    assert measured_noise(run).num_architectures == 3


def test_a_search_is_not_accepted_as_a_study(tmp_path: Path) -> None:
    config = SearchConfig(budget=BudgetConfig(num_trials=2), executor=ExecutorConfig(kind="serial"))
    run = run_search(config, out=tmp_path / "run", task=FakeTask())
    for answer in (measured_noise, ladder_result):
        with pytest.raises(UserError, match="is a search, not a study"):
            answer(run)


@pytest.mark.parametrize("rule", ["short-range", "long-range", "sequential"])
def test_a_damaged_graph_has_one_parent_for_each_block_by_the_rule(rule: str) -> None:
    found = damaged(R0_SP53, rule)
    assert [block.level for block in found.blocks] == [block.level for block in R0_SP53.blocks]
    for node, (before, after) in enumerate(zip(R0_SP53.blocks, found.blocks, strict=True), start=2):
        wanted = {"short-range": min(before.parents), "long-range": max(before.parents), "sequential": node - 1}[rule]
        assert after.parents == (wanted,)


def test_the_ladder_has_baselines_damaged_graphs_and_random_genotypes_of_equal_cost() -> None:
    architectures = ladder_architectures(CONFIG, 12)
    assert architectures[0] == Baseline(50)
    assert len({network_key(architecture) for architecture in architectures}) == len(LADDER) + 12
    task = CONFIG.task
    wanted = backbone_cost(SPINENET_49, task.scaling, task.image_size_pixels).madds
    for architecture in architectures[len(LADDER) :]:
        assert isinstance(architecture, Genotype)
        madds = backbone_cost(architecture, task.scaling, task.image_size_pixels).madds
        assert 0.9 * wanted <= madds <= 1.1 * wanted


def test_a_task_that_ranks_like_the_paper_has_a_tau_of_one(tmp_path: Path) -> None:
    run = run_study(CONFIG, ladder_architectures(CONFIG, 10), 2, out=tmp_path / "run", task=KnownTask(noise=0.0))
    found = ladder_result(run)
    assert found.order == pytest.approx(1)
    assert found.reversed_pairs == []
    assert [row["architecture"] for row in found.rows][:2] == ["SpineNet-49", "R0-SP53"]
    assert found.num_random == 10
    assert found.num_better == 0
    low, high = found.better_interval
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 10))


def test_a_task_that_ranks_the_other_way_round_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in PAPER.items():
        monkeypatch.setitem(PAPER, key, 0.5 - value)
    run = run_study(CONFIG, ladder_architectures(CONFIG, 4), 2, out=tmp_path / "run", task=KnownTask(noise=1e-4))
    found = ladder_result(run)
    assert found.order == pytest.approx(-1)
    assert ("SpineNet-49", "R50-FPN") in found.reversed_pairs
    assert found.num_better == 4


class LuckyPairTask(FakeTask):
    """Two seeds of SpineNet-49, and of R0-SP53, agree; other networks vary between seeds by more than that gap."""

    def evaluate(self, genotype: Any, *, seed: int, report: Any, **options: Any) -> Evaluation:
        key = network_key(genotype)
        fixed = {network_key(SPINENET_49): 0.40, network_key(R0_SP53): 0.41}
        noise = 0.0 if key in fixed else 0.05 * generator(seed, "noise").normal()
        return Evaluation(fixed.get(key, 0.3) + noise, network_key=key)


def test_two_seeds_that_happen_to_agree_do_not_prove_an_order(tmp_path: Path) -> None:
    run = run_study(CONFIG, ladder_architectures(CONFIG, 10), 2, out=tmp_path / "run", task=LuckyPairTask())
    assert ("SpineNet-49", "R0-SP53") not in ladder_result(run).reversed_pairs


def test_a_ladder_without_results_has_no_answer(tmp_path: Path) -> None:
    task = FakeTask(fail=dict.fromkeys(range(8), "diverged"))
    run = run_study(CONFIG, ladder_architectures(CONFIG, 1), 1, out=tmp_path / "run", task=task)
    with pytest.raises(UserError, match="has results for 0 architectures"):
        ladder_result(run)


class SpineNetDivergesTask(KnownTask):
    def evaluate(self, genotype: Any, **options: Any) -> Any:
        if genotype == SPINENET_49:
            return Failure(FailureKind.DIVERGED, "the loss is not finite")
        return super().evaluate(genotype, **options)


def test_a_ladder_without_spinenet_49_still_has_an_order(tmp_path: Path) -> None:
    run = run_study(CONFIG, ladder_architectures(CONFIG, 3), 1, out=tmp_path / "run", task=SpineNetDivergesTask())
    found = ladder_result(run)
    assert found.order == pytest.approx(1)
    assert (found.num_random, found.num_better, found.better_interval) == (0, 0, (0.0, 1.0))
    assert next(row for row in found.rows if row["architecture"] == "SpineNet-49")["AP"] is None


def test_a_ladder_of_equal_aps_has_no_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in PAPER:
        monkeypatch.setitem(PAPER, key, 0.3)
    run = run_study(CONFIG, ladder_architectures(CONFIG, 0), 1, out=tmp_path / "run", task=KnownTask())
    assert ladder_result(run).order is None


def test_the_share_of_better_genotypes_includes_the_uncertainty_of_spinenet_49(tmp_path: Path) -> None:
    shares = []
    for std in (0.0, 0.03):
        run = run_study(CONFIG, ladder_architectures(CONFIG, 20), 2, out=tmp_path / str(std), task=KnownTask(noise=std))
        found = ladder_result(run)
        plain = share_interval(found.num_better, 20)
        shares.append((found.better_interval, plain))
    assert shares[0][0] == shares[0][1]
    (low, high), (plain_low, plain_high) = shares[1]
    assert low <= plain_low
    assert high > plain_high


class TooLargeOnceTask(FakeTask):
    def evaluate(self, genotype: Any, *, folder: Path, attempt: int, **options: Any) -> Any:
        if folder.name.endswith("1") and attempt == 0:
            return Failure(FailureKind.OUT_OF_MEMORY, "out of memory")
        return super().evaluate(genotype, folder=folder, attempt=attempt, **options)


def test_trainings_with_reduced_batches_are_left_out_of_the_curves(tmp_path: Path) -> None:
    config = replace(CONFIG, executor=replace(CONFIG.executor, out_of_memory_retries=1))
    architectures = random_architectures(SPACE, 3, 0)
    run = run_study(config, architectures, 1, out=tmp_path / "run", task=TooLargeOnceTask())
    records = run.records()
    assert [record.fidelity is None for record in records] == [True, False, True]
    assert [record.status for record in records] == [Status.COMPLETE] * 3
    assert len(measured_curves(run.folder.path).trainings) == 2


def test_a_short_fidelity_is_compared_with_a_long_one(tmp_path: Path) -> None:
    architectures = random_architectures(SPACE, 24, 0)
    runs = {
        epochs: run_study(
            CONFIG, architectures, 2, out=tmp_path / str(epochs), task=KnownTask(num_epochs=epochs, early_bias=3.0)
        )
        for epochs in (2, 16)
    }
    curves = {epochs: measured_curves(run.folder.path) for epochs, run in runs.items()}
    found = compare_fidelities(curves[16], [curves[2]])
    names = [fidelity.name for fidelity in found]
    assert names[0] == f"{tmp_path / '16'}, epoch 1"
    short = next(fidelity for fidelity in found if fidelity.name == str(tmp_path / "2"))
    assert short.cost == pytest.approx(2 / 16)
    assert short.num_seeds == 2
    assert short.agreement.num_architectures == 24
    late = next(fidelity for fidelity in found if fidelity.name.endswith("epoch 15"))
    assert late.cost == pytest.approx(15 / 16)
    assert late.agreement.kendall.value is not None
    assert short.agreement.kendall.value is not None
    assert late.agreement.kendall.value > 0.95 > short.agreement.kendall.value
    chosen = recommended(found, 0.9)
    assert chosen is not None
    assert chosen.cost < late.cost
    assert chosen.agreement.kendall.value is not None
    assert chosen.agreement.kendall.value >= 0.9
    assert recommended(found, 1.01) is None
    whole, early, rungs = advice(found, 0.9)
    assert whole == "whole trainings: none reaches a Kendall's tau of 0.9"
    assert early.startswith(f"stopping early: the cheapest that reaches 0.9 is {chosen.name}, ")
    assert rungs.endswith(f"--set controller.freeze_thaw.rungs=[{chosen.rung}]")
    assert measured_rungs(found, 1.01) == ()


def test_the_rungs_of_a_task_rank_all_networks_and_then_the_best_of_them() -> None:
    table = Path(__file__).parents[2] / "benchmarks" / "tables" / "digits.csv.gz"
    found = compare_fidelities(measured_curves(table), [])
    assert measured_rungs(found, 0.7) == (1, 3)
    assert measured_rungs(found, 0.85) == (), "no epoch ranks the best third so well"


def test_a_comparison_needs_something_to_compare_with(tmp_path: Path) -> None:
    architectures = random_architectures(SPACE, 5, 0)
    run = run_study(CONFIG, architectures, 1, out=tmp_path / "run", task=KnownTask(num_epochs=1))
    curves = measured_curves(run.folder.path)
    with pytest.raises(UserError, match=r"there is nothing to compare .*run with"):
        compare_fidelities(curves, [])
    with pytest.raises(UserError, match="has no complete training"):
        compare_fidelities(curves, [replace(curves, trainings=())])


@pytest.mark.parametrize(("sign", "how"), [(1, "gain"), (-1, "lose"), (0, "")])
def test_kinds_that_gain_or_lose_ranks_are_named_only_if_significant(sign: int, how: str) -> None:
    rng = generator(0, "places")
    trainings = []
    for number, genotype in enumerate(random_architectures(SPACE, 30, 0)):
        early, late = rng.normal(), sign * depth(genotype) + 0.1 * rng.normal()
        aps = {1: early, 2: late if sign else early + 0.01 * rng.normal()}
        trainings.append(MeasuredCurve(network_key(genotype), genotype, 0, aps, aps[2], number % 3, 1.0))
    lines = rank_shifts(MeasuredCurves(Path("study"), SPACE, {}, tuple(trainings)))
    deeper = [line for line in lines if line.startswith("deeper networks")]
    if sign:
        assert [line.partition(" ranks")[0] for line in deeper] == [f"deeper networks {how}"]
    else:
        assert deeper == []


def test_runs_that_share_no_architectures_or_data_are_not_compared(tmp_path: Path) -> None:
    task = KnownTask()
    first = run_study(CONFIG, random_architectures(SPACE, 5, 0), 1, out=tmp_path / "a", task=task)
    other = run_study(CONFIG, random_architectures(SPACE, 5, 1), 1, out=tmp_path / "b", task=task)
    with pytest.raises(UserError, match="have 1 architectures in common"):
        compare_fidelities(measured_curves(first.folder.path), [measured_curves(other.folder.path)])
    elsewhere = KnownTask(fingerprint={"train": "xyz"})
    third = run_study(CONFIG, random_architectures(SPACE, 5, 0), 1, out=tmp_path / "c", task=elsewhere)
    with pytest.raises(UserError, match="has other data"):
        compare_fidelities(measured_curves(first.folder.path), [measured_curves(third.folder.path)])


def test_a_study_is_resumed_like_any_run(tmp_path: Path) -> None:
    architectures = [*random_architectures(SPACE, 2, 0), Baseline(50)]
    with pytest.raises(KeyboardInterrupt):
        run_study(CONFIG, architectures, 2, out=tmp_path / "run", task=FakeTask(interrupt_at=3))
    records = resume(tmp_path / "run", task=FakeTask()).records()
    assert len(records) == 6
    assert records[2].architecture == "r50-fpn"
    assert records[5].replicate == 1


def test_halving_is_replayed_on_the_curves_of_a_study(tmp_path: Path) -> None:
    task = KnownTask(num_epochs=4, early_bias=8.0)
    run = run_study(CONFIG, random_architectures(SPACE, 18, 0), 2, out=tmp_path / "run", task=task)
    rows = halving_options(measured_curves(run.folder.path))
    assert {row["rungs"] for row in rows} == {"1", "2", "3", "1 2 3"}
    assert {row["n"] for row in rows} == {18}
    by_rung = {row["rungs"]: row for row in rows if row["reduction"] == 3.0}
    assert by_rung["1"]["epochs saved"] > by_rung["3"]["epochs saved"] > 0
    assert by_rung["1"]["AP lost"] >= by_rung["3"]["AP lost"] >= 0
    assert by_rung["1"]["best is stopped"] > by_rung["3"]["best is stopped"] >= 0


def test_halving_needs_curves(tmp_path: Path) -> None:
    run = run_study(CONFIG, random_architectures(SPACE, 3, 0), 1, out=tmp_path / "run", task=FakeTask())
    with pytest.raises(UserError, match="every_epochs=1"):
        halving_options(measured_curves(run.folder.path))


def test_a_table_gives_the_same_results_as_its_run(tmp_path: Path) -> None:
    task = KnownTask(num_epochs=4, early_bias=2.0, noise=0.01)
    run = run_study(CONFIG, random_architectures(SPACE, 18, 0), 2, out=tmp_path / "run", task=task)
    trainings = [training_of(record, run.folder.read_curve(record.number), "random") for record in run.records()]
    table = tmp_path / "table.csv.gz"
    write_table(table, {"space": SPACE.name, "data": run.folder.run_info()["data"]}, trainings)
    assert mutants_of_best(table, 12, 1) == mutants_of_best(run.folder.path, 12, 1)
    for of_table, of_run in zip(
        halving_options(measured_curves(table)), halving_options(measured_curves(run.folder.path)), strict=True
    ):
        assert of_table == {key: pytest.approx(value, abs=1e-5) for key, value in of_run.items()}
    by_table, by_run = (
        compare_fidelities(measured_curves(path), [measured_curves(run.folder.path)])
        for path in (table, run.folder.path)
    )
    assert len(by_table) == len(by_run) == 7  # three earlier epochs of the first, four of the second
    assert [fidelity.agreement for fidelity in by_table] == [fidelity.agreement for fidelity in by_run]
    assert rank_shifts(measured_curves(table)) == rank_shifts(measured_curves(run.folder.path))
