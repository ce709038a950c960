"""Validation: fresh trainings of the winner and of others, a single use of val, and cautious sentences."""

from __future__ import annotations

import io
import json
import math
import pickle
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_task import FakeValTask, matches_of

from spinenas.controller import PlanOptions
from spinenas.proxy_task.config import DataConfig, EvalConfig, LossConfig, TaskConfig, TrainConfig
from spinenas.proxy_task.data.synthetic import generate_dataset
from spinenas.proxy_task.task import ProxyTask
from spinenas.results.record import Evaluation, Failure, Stage
from spinenas.results.stats.bootstrap import Difference
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.parts import BudgetConfig, SpaceConfig
from spinenas.search.monitoring.display import PlainDisplay
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.search.run.run import Run
from spinenas.search.run.val_task import WithVal
from spinenas.search.studies.noise import random_architectures
from spinenas.search.studies.study import run_study
from spinenas.search.studies.validation import contenders, sentence, validate
from spinenas.space.errors import UserError
from spinenas.space.graph import dead_blocks, network_key
from spinenas.space.head import HeadConfig
from spinenas.space.published import SPINENET_49
from spinenas.space.scaling import Scaling
from spinenas.space.search_space import SearchSpace

CONFIG = SearchConfig(budget=BudgetConfig(8), executor=ExecutorConfig(kind="serial"), seed=3)


class Untouchable:
    """A task that must not be used."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was used")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, no_fsync: None) -> None:
    monkeypatch.setattr("spinenas.search.studies.validation.RESAMPLES", 100)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    task = FakeValTask()
    run = run_search(CONFIG, out=tmp_path / "run", task=task)
    assert task.num_val_looks == 0, "a search never reads val"
    return run


def validation_of(run: Run) -> Run:
    return Run.open(run.folder.path / "validation")


def test_the_winner_is_retrained_with_spinenet_49_and_a_random_control(run: Run) -> None:
    document = validate(run, seeds=3, task=FakeValTask())
    winner = run.winner()
    assert winner is not None
    rows = document["architectures"]
    assert [row["architecture"] for row in rows] == ["winner", "SpineNet-49", "random control"]
    assert rows[0]["network_key"] == winner.network_key
    assert rows[0]["origin"] == f"trial {winner.number}"
    assert rows[1]["text"] == SPINENET_49.text
    records = validation_of(run).records()
    assert [record.network_key for record in records] == [row["network_key"] for row in rows] * 3
    assert [record.replicate for record in records] == [0] * 3 + [1] * 3 + [2] * 3
    assert {record.stage for record in records} == {Stage.VALIDATE}
    control = records[2].genotype
    assert control is not None
    assert not dead_blocks(control)
    assert len({row["network_key"] for row in rows}) == 3
    assert not {record.seed for record in records} & {record.seed for record in run.records()}, "seeds are fresh"


def test_all_figures_follow_from_the_trainings_and_are_kept(run: Run) -> None:
    document = validate(run, seeds=3, task=FakeValTask())
    records = validation_of(run).records()
    for index, row in enumerate(document["architectures"]):
        rewards = [record.evaluation.objective for record in records[index::3] if record.evaluation]
        assert row["reward_APs"] == rewards
        assert (row["reward_AP"], row["sd"]) == (statistics.fmean(rewards), statistics.stdev(rewards))
        assert row["n"] == 3
        assert row["val_APs"] == [matches_of(reward).average_precision() for reward in rewards]
        assert row["val_AP"] == pytest.approx(statistics.fmean(row["val_APs"]))
        assert row["lower"] < row["val_AP"] < row["upper"]
    pairs = [(pair["first"], pair["second"]) for pair in document["comparisons"]]
    winner, control = "the winner", "the random control"
    assert pairs == [(winner, "SpineNet-49"), (winner, control), ("SpineNet-49", control)]
    for pair in document["comparisons"]:
        assert 0 <= pair["share_above"] <= 1
        assert pair["lower"] <= pair["value"] <= pair["upper"]
    assert (document["seeds"], document["num_val_images"], document["resamples"]) == (3, 40, 100)
    assert json.loads((run.folder.path / "validation" / "validation.json").read_text()) == document


def test_a_validation_fails_if_its_matches_give_another_ap_than_the_evaluators(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeValTask, "val_metrics", lambda self, folder: {"AP": 0.25})
    with pytest.raises(UserError, match=r"0\.25 by COCO"):
        validate(run, seeds=2, task=FakeValTask())


def test_val_is_used_once(run: Run) -> None:
    document = validate(run, seeds=2, task=FakeValTask())
    assert validate(run, seeds=2, task=Untouchable()) == document  # type: ignore[arg-type]


@pytest.mark.parametrize("at", [0, 4, 5])
def test_a_stopped_validation_is_resumed(run: Run, at: int, tmp_path: Path) -> None:
    whole = validate(run, seeds=2, out=tmp_path / "whole", task=FakeValTask())
    with pytest.raises(KeyboardInterrupt):
        validate(run, seeds=2, task=FakeValTask(interrupt_at=at))
    assert not (run.folder.path / "validation" / "validation.json").exists()
    assert validate(run, seeds=2, task=FakeValTask()) == whole
    tried = [len(list((validation_of(run).folder.path / f"trials/{n:06d}").glob("attempt-*"))) for n in range(6)]
    assert tried == [2 if number == at else 1 for number in range(6)]


def test_a_validation_is_resumed_like_any_run_and_keeps_its_detections(run: Run, tmp_path: Path) -> None:
    whole = validate(run, seeds=2, out=tmp_path / "whole", task=FakeValTask())
    with pytest.raises(KeyboardInterrupt):
        validate(run, seeds=2, task=FakeValTask(interrupt_at=3))
    resume(run.folder.path / "validation", task=FakeValTask())
    with pytest.raises(UserError, match="the data changed"):
        validate(run, seeds=2, task=FakeValTask(val_name="another"))
    assert validate(run, seeds=2, task=FakeValTask(interrupt_at=0)) == whole, "no training was left"


def test_a_validation_is_not_resumed_on_other_val_images(run: Run) -> None:
    with pytest.raises(KeyboardInterrupt):
        validate(run, seeds=2, task=FakeValTask(interrupt_at=3))
    with pytest.raises(
        UserError, match="the data changed: the val annotations were edited since the run began; restore"
    ):
        validate(run, seeds=2, task=FakeValTask(val_name="another"))


def test_another_winner_is_not_validated_in_the_same_folder(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    validate(run, seeds=2, task=FakeValTask())
    other = next(record for record in run.records() if record.network_key != run.winner().network_key)  # type: ignore[union-attr]
    monkeypatch.setattr(Run, "winner", lambda self: other)
    with pytest.raises(UserError, match=f"the winner is now trial {other.number}, .*: val is for one winner"):
        validate(run, seeds=2, task=FakeValTask())


@pytest.mark.parametrize("is_complete", [True, False])
def test_another_number_of_seeds_does_not_use_val_again(run: Run, is_complete: bool) -> None:
    if is_complete:
        validate(run, seeds=2, task=FakeValTask())
    else:
        with pytest.raises(KeyboardInterrupt):
            validate(run, seeds=2, task=FakeValTask(interrupt_at=3))
    with pytest.raises(UserError, match="holds a validation with 2 seeds, not 3, and val is used once"):
        validate(run, seeds=3, task=FakeValTask())


def test_only_a_search_with_a_result_on_the_same_data_is_validated(run: Run, tmp_path: Path) -> None:
    task = FakeValTask()
    study = run_study(
        CONFIG, random_architectures(SearchSpace.spinenet49(), 2, 0), 2, out=tmp_path / "study", task=task
    )
    with pytest.raises(UserError, match="study is no search and has no winner"):
        validate(study, task=task)
    validate(run, seeds=2, task=task)
    with pytest.raises(UserError, match="validation is no search and has no winner"):
        validate(validation_of(run), task=task)
    with pytest.raises(UserError, match="study holds another run; give another --out"):
        validate(run, out=study.folder.path, task=task)
    nothing = run_search(CONFIG, out=tmp_path / "none", task=FakeValTask(fail=dict.fromkeys(range(8), "diverged")))
    with pytest.raises(UserError, match="has nothing to validate; no trial is complete yet"):
        validate(nothing, task=task)
    for changed, what in ((FakeValTask(key="other"), "task"), (FakeValTask(fingerprint={"train": "x"}), "data")):
        with pytest.raises(UserError, match=f"the {what} changed since the search"):
            validate(run, out=tmp_path / "new", task=changed)


def test_trainings_without_a_result_are_left_out(run: Run, tmp_path: Path) -> None:
    document = validate(run, seeds=2, task=FakeValTask(fail={3: "diverged", 2: "diverged", 5: "diverged"}))
    assert [row["n"] for row in document["architectures"]] == [1, 2, 0]
    assert document["architectures"][2]["val_AP"] is None
    (pair,) = document["comparisons"]
    assert (pair["first"], pair["second"]) == ("the winner", "SpineNet-49")
    with pytest.raises(UserError, match="has no result for the winner; the last failure: diverged"):
        validate(run, seeds=2, out=tmp_path / "a", task=FakeValTask(fail={0: "diverged", 3: "diverged"}))
    with pytest.raises(UserError, match="results for two seeds, so that the spread is unknown"):
        validate(run, seeds=2, out=tmp_path / "b", task=FakeValTask(fail={0: "diverged", 1: "diverged", 5: "diverged"}))


def test_in_a_space_without_spinenet_49_the_winner_is_compared_with_the_control_alone(tmp_path: Path) -> None:
    run = run_search(replace(CONFIG, space=SpaceConfig("tiny")), out=tmp_path / "run", task=FakeValTask())
    names = [row["architecture"] for row in validate(run, seeds=2, task=FakeValTask())["architectures"]]
    assert names == ["winner", "random control"]


def test_no_network_is_compared_with_itself(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    record = run.winner()
    assert record is not None
    control = contenders(run, CONFIG)[-1].architecture
    for winner, names in ((control, ["SpineNet-49"]), (SPINENET_49, [])):
        key = network_key(winner)
        monkeypatch.setattr(Run, "winner", lambda self, w=winner, k=key: replace(record, genotype=w, network_key=k))
        chosen = contenders(run, CONFIG)
        assert [contender.name for contender in chosen] == ["the winner", *names, "the random control"]
        assert len({network_key(contender.architecture) for contender in chosen}) == len(chosen)


def test_a_search_whose_unused_plan_says_validate_does_not_see_val(tmp_path: Path) -> None:
    controller = replace(CONFIG.controller, plan=PlanOptions(stage="validate"))
    task = FakeValTask()
    run_search(replace(CONFIG, controller=controller), out=tmp_path / "run", task=task)
    assert task.num_val_looks == 0


def test_a_plan_has_one_of_three_stages() -> None:
    with pytest.raises(UserError, match=r"controller\.plan\.stage is 'val'; it is search, validate or full"):
        PlanOptions(architectures=("r50-fpn",), stage="val")


def test_a_worker_without_access_to_the_folder_reports_it_before_training(tmp_path: Path) -> None:
    result = WithVal(FakeValTask(), keep_weights=False).evaluate(
        SPINENET_49, seed=0, fidelity=None, attempt=0, folder=tmp_path / "elsewhere", report=lambda epoch, figures: True
    )
    assert isinstance(result, Failure)
    assert "this machine does not see" in result.message


def test_a_task_that_measures_on_val_reaches_workers() -> None:
    task = pickle.loads(pickle.dumps(WithVal(FakeValTask(val_name="mine"), keep_weights=False)))
    assert task.fingerprint["val_annotations"] == "mine"
    assert task.fingerprint["train"] == "abc"
    assert task.key == "fake-task"


def difference(value: float, lower: float, upper: float) -> Difference:
    return Difference("the winner", "SpineNet-49", value, lower, upper, 0.5)


def test_a_comparison_is_one_sentence_and_claims_a_difference_only_if_the_interval_excludes_0() -> None:
    above = "the winner is 0.0120 AP above SpineNet-49 on val (95 %: 0.0040 to 0.0200)"
    assert sentence(difference(0.012, 0.004, 0.02)) == above
    assert sentence(difference(-0.012, -0.02, -0.004)) == above.replace("above", "below")
    for lower, upper in ((-0.001, 0.02), (0.0, 0.02), (-0.02, 0.0)):
        words = sentence(difference(0.01, lower, upper))
        assert words.startswith("no significant difference between the winner and SpineNet-49 on val: +0.0100 AP")


def test_a_real_task_is_validated_from_end_to_end(tmp_path: Path) -> None:
    generate_dataset(tmp_path, num_train=24, num_val=6, image_size_pixels=96, seed=1)
    task_config = TaskConfig(
        image_size_pixels=96,
        scaling=Scaling("test", 0.125, 8, 1.0, 1),
        data=DataConfig(folder=str(tmp_path), cache_folder=str(tmp_path / "cache")),
        head=HeadConfig(num_convs=1, channels=8, anchor_scale=2.0, num_scales=1),
        loss=LossConfig(box_weight=10.0, mask_zero_targets=False),
        train=TrainConfig(epochs=4, batch_size=4, optimizer="adamw", learning_rate=1e-2, warmup_steps=0.1),
        eval=EvalConfig(pre_nms_top=100, plus_one_decoding=False, score_threshold=0.0),
    )
    config = replace(CONFIG, space=SpaceConfig("tiny"), budget=BudgetConfig(1), task=task_config)
    run = run_search(config, out=tmp_path / "run")
    document = validate(run, seeds=2)
    assert document["num_val_images"] == 6
    assert [row["n"] for row in document["architectures"]] == [2, 2]
    records = validation_of(run).records()
    assert records[0].genotype is not None
    task = ProxyTask(task_config)
    evaluation = task.evaluate_with_val(records[0].genotype, seed=records[0].seed, folder=tmp_path)
    assert isinstance(evaluation, Evaluation)
    assert records[0].evaluation is not None
    assert evaluation.objective == records[0].evaluation.objective
    ap = task.val_metrics(tmp_path)["AP"]
    assert ap is not None
    assert ap > 0, "otherwise the next line shows nothing"
    assert math.isclose(document["architectures"][0]["val_APs"][0], ap, abs_tol=1e-12)
    assert validate(run, seeds=2, task=Untouchable()) == document  # type: ignore[arg-type]


def test_the_lines_of_a_validation_name_its_architectures(run: Run) -> None:
    stream = io.StringIO()
    validate(run, seeds=2, task=FakeValTask(), display=PlainDisplay(stream))
    for name in ("winner", "SpineNet-49", "random control"):
        assert stream.getvalue().count(f"({name}) started on") == 2
