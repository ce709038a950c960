"""Controllers in a user's Tune experiment: each result is told once, and restoring loses nothing."""

from __future__ import annotations

import copy
import json
import math
import pickle
import runpy
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import ray
from ray import tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.search import ConcurrencyLimiter, Searcher
from shared_fixtures import REPOSITORY

from spinenas.controller import Controller, Proposal, ReplicateLeaders, SpaceExhausted, make_controller
from spinenas.results.record import Evaluation, Failure, FailureKind, Stage
from spinenas.search.executors.ray_session import OBJECT_STORE_BYTES
from spinenas.search.ray_searcher import ControllerSearcher
from spinenas.space import Genotype, SearchSpace, UserError

TINY = SearchSpace.tiny()


def evolution(seed: int = 0) -> Controller:
    return make_controller("evolution", SearchSpace.spinenet49(), seed=seed, population_size=4, tournament_size=2)


def quality(genotype: str) -> float:
    """Return an objective that differs between any two genotypes."""
    return int(Genotype.from_text(genotype).key, 16) / 16**16


class Recorder:
    """A controller that records what it is told."""

    def __init__(self) -> None:
        self._controller = make_controller("random", TINY)
        self.told: list[tuple[int, Evaluation | Failure]] = []
        self.state = "has one"

    def ask(self) -> Proposal | None:
        if self.state == "exhausted":
            raise SpaceExhausted("there is nothing else")
        return None if self.state == "awaits results" else self._controller.ask()

    def tell(self, number: int, result: Evaluation | Failure) -> bool:
        self.told.append((number, result))
        return self._controller.tell(number, result)

    def observe(self, genotype: Genotype, evaluation: Evaluation) -> None:
        raise AssertionError("nothing is observed here")

    def replay_ask(self, proposal: Proposal) -> None:
        self._controller.replay_ask(proposal)


def test_a_controller_that_pauses_trainings_is_refused() -> None:
    with pytest.raises(UserError, match="pauses and continues trainings, which Ray Tune's searchers cannot; give anot"):
        ControllerSearcher(make_controller("freeze-thaw", SearchSpace.spinenet49()), metric="AP")


def test_it_suggests_the_proposals_of_its_controller() -> None:
    searcher, alone = ControllerSearcher(evolution(), metric="AP"), evolution()
    for index in range(12):
        proposal = alone.ask()
        assert proposal is not None
        config = searcher.suggest(f"trial-{index}")
        assert config == {"genotype": proposal.genotype.text, "number": index, "replicate": 0}
        objective = quality(config["genotype"])
        searcher.on_trial_complete(f"trial-{index}", {"AP": objective, "done": True})
        alone.tell(index, Evaluation(objective=objective))


def test_replicates_of_the_leaders_have_their_number() -> None:
    searcher = ControllerSearcher(ReplicateLeaders(evolution(), num_trials=8, share=0.25), metric="AP")
    configs = []
    for index in range(8):
        configs.append(searcher.suggest(f"trial-{index}"))
        searcher.on_trial_complete(f"trial-{index}", {"AP": quality(configs[-1]["genotype"])})
    assert [config["replicate"] for config in configs] == [0] * 6 + [1, 1]


@pytest.mark.parametrize(
    ("result", "error", "kind"),
    [
        ({"AP": math.nan}, False, FailureKind.DIVERGED),
        ({"AP": -math.inf}, False, FailureKind.DIVERGED),
        ({"loss": 1.0}, False, FailureKind.BUG),
        ({"AP": None}, False, FailureKind.BUG),
        ({"AP": "high"}, False, FailureKind.BUG),
        ({}, False, FailureKind.BUG),
        (None, False, FailureKind.BUG),
        (None, True, FailureKind.BUG),
        ({"AP": 0.5}, True, FailureKind.BUG),
    ],
)
def test_a_trial_without_a_number_at_its_end_has_failed(
    result: dict[str, Any] | None, error: bool, kind: FailureKind
) -> None:
    controller = Recorder()
    searcher = ControllerSearcher(controller, metric="AP")
    searcher.suggest("a")
    searcher.on_trial_complete("a", result, error)
    ((number, failure),) = controller.told
    assert number == 0
    assert isinstance(failure, Failure)
    assert failure.kind is kind


@pytest.mark.parametrize(("mode", "objective"), [("max", 0.25), ("min", -0.25)])
def test_higher_is_better_for_the_controller(mode: Any, objective: float) -> None:
    controller = Recorder()
    searcher = ControllerSearcher(controller, metric="val/figure", mode=mode)
    searcher.suggest("a")
    searcher.on_trial_complete("a", {"val/figure": 0.25})
    assert controller.told == [(0, Evaluation(objective=objective))]


def test_each_result_is_told_once_and_unknown_trials_are_ignored() -> None:
    controller = Recorder()
    searcher = ControllerSearcher(controller, metric="AP")
    for trial_id in "ab":
        searcher.suggest(trial_id)
    searcher.on_trial_complete("b", {"AP": 0.5})
    searcher.on_trial_complete("b", error=True)  # Tune says so when a trial cannot be saved after its end
    searcher.on_trial_complete("of another experiment", {"AP": 0.9})
    assert controller.told == [(1, Evaluation(objective=0.5))]


def test_it_is_finished_after_num_samples_and_when_the_space_is_exhausted_but_not_while_there_is_nothing_now() -> None:
    limited = ControllerSearcher(evolution(), metric="AP", num_samples=2)
    assert [limited.suggest(trial_id) == Searcher.FINISHED for trial_id in "abc"] == [False, False, True]
    controller = Recorder()
    searcher = ControllerSearcher(controller, metric="AP")
    controller.state = "awaits results"
    assert searcher.suggest("a") is None
    controller.state = "has one"
    assert searcher.suggest("b")["number"] == 0
    controller.state = "exhausted"
    assert searcher.suggest("c") == Searcher.FINISHED


@pytest.mark.parametrize("batch", [False, True])
def test_the_concurrency_limiter_works_with_it(batch: bool) -> None:
    controller = Recorder()
    limiter = ConcurrencyLimiter(ControllerSearcher(controller, metric="AP"), max_concurrent=2, batch=batch)
    assert [limiter.suggest(trial_id) is None for trial_id in "abc"] == [False, False, True]
    limiter.on_trial_complete("a", {"AP": 0.1})
    assert controller.told == [(0, Evaluation(objective=0.1))], "results count as they arrive, also in a batch"
    assert [limiter.suggest(trial_id) is None for trial_id in "de"] == [False, True]


def test_open_trials_of_one_experiment_do_not_count_in_another(tmp_path: Path) -> None:
    searcher = ControllerSearcher(evolution(), metric="AP")
    for trial_id in "ab":
        searcher.suggest(trial_id)
    searcher.save_to_dir(str(tmp_path))
    later = ControllerSearcher(evolution(), metric="AP")
    later.restore_from_dir(str(tmp_path))
    limiter = ConcurrencyLimiter(later, max_concurrent=1)
    assert [limiter.suggest(trial_id) is None for trial_id in "cd"] == [False, True]


def eventful(searcher: ControllerSearcher, steps: Iterator[int]) -> list[str]:
    """Drive a searcher with up to three trials in flight, results out of order and some failures.

    Open trials are taken from the searcher, so that a restored searcher continues like the saved one.
    """
    genotypes = []
    for step in steps:
        trial_id = f"trial-{step}"
        config = searcher.suggest(trial_id)
        genotypes.append(config["genotype"])
        if len(searcher._open) == 3:
            ended = sorted(searcher._open)[step % 3]
            if step % 4 == 0:
                searcher.on_trial_complete(ended, error=True)
            else:
                searcher.on_trial_complete(ended, {"AP": quality(config["genotype"])})
    return genotypes


@pytest.mark.parametrize("saved_after", [0, 1, 2, 9, 17])
@pytest.mark.parametrize("replicated", [False, True])
def test_a_restored_searcher_continues_with_the_same_proposals(
    saved_after: int, replicated: bool, tmp_path: Path
) -> None:
    def controller() -> Controller:
        return ReplicateLeaders(evolution(3), num_trials=25, share=0.2) if replicated else evolution(3)

    whole = eventful(ControllerSearcher(controller(), metric="AP"), iter(range(25)))
    searcher = ControllerSearcher(controller(), metric="AP")
    before = eventful(searcher, iter(range(saved_after)))
    searcher.save(str(tmp_path / "state"))
    eventful(searcher, iter(range(saved_after, 20)))  # results after the save are not in the file
    restored = ControllerSearcher(controller(), metric="AP", num_samples=25)
    restored.restore(str(tmp_path / "state"))
    assert before + eventful(restored, iter(range(saved_after, 25))) == whole
    assert restored.suggest("one more") == Searcher.FINISHED, "num_samples counts those before the save"


def test_restoring_replaces_the_state(tmp_path: Path) -> None:
    """Tune unpickles a searcher and restores it, whatever state it was pickled in."""
    searcher = ControllerSearcher(evolution(), metric="AP")
    eventful(searcher, iter(range(7)))
    searcher.save(str(tmp_path / "state"))
    ahead = ray.cloudpickle.loads(ray.cloudpickle.dumps(searcher))
    assert eventful(ahead, iter(range(7, 12))) == eventful(searcher, iter(range(7, 12)))
    again = copy.deepcopy(ahead)
    again.restore(str(tmp_path / "state"))
    ahead.restore(str(tmp_path / "state"))
    assert eventful(ahead, iter(range(7, 12))) == eventful(again, iter(range(7, 12)))


@pytest.mark.parametrize("name", ["random", "evolution"])
def test_any_of_our_controllers_can_be_pickled_with_it(name: str, tmp_path: Path) -> None:
    searcher = ControllerSearcher(make_controller(name, TINY, seed=5), metric="AP")
    eventful(searcher, iter(range(6)))
    copied = ray.cloudpickle.loads(ray.cloudpickle.dumps(searcher))
    assert eventful(copied, iter(range(6, 9))) == eventful(searcher, iter(range(6, 9)))


def test_the_saved_state_is_json_of_proposals_and_results(tmp_path: Path) -> None:
    searcher = ControllerSearcher(evolution(), metric="loss", mode="min")
    for trial_id in "abc":
        searcher.suggest(trial_id)
    searcher.on_trial_complete("b", {"loss": 0.5})
    searcher.on_trial_complete("a", error=True)
    searcher.save(str(tmp_path / "state"))
    events = json.loads((tmp_path / "state").read_text())["events"]
    assert [event["trial_id"] for event in events] == ["a", "b", "c", "b", "a"]
    assert Proposal.from_json(events[1]["asked"]).number == 1
    assert events[3]["objective"] == -0.5
    assert events[4]["failure"]["kind"] == "bug"


class Trap:
    """Represents the code that loading a pickle may execute."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was loaded",)


SAVED = {"format": "spinenas-searcher/1", "metric": "AP", "mode": "max", "events": []}


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Trap()),
        b"",
        b"[]",
        json.dumps(SAVED | {"mode": "min"}).encode(),
        json.dumps(SAVED | {"metric": "mAP"}).encode(),
        json.dumps(SAVED | {"format": "spinenas-searcher/2"}).encode(),
        json.dumps(SAVED | {"events": [{"trial_id": "a", "objective": 1.0}]}).encode(),
        json.dumps(SAVED | {"events": [{"trial_id": "a", "asked": {}}]}).encode(),
        None,
    ],
)
def test_a_file_that_is_not_its_own_is_refused_and_changes_nothing(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "state"
    if content is not None:
        path.write_bytes(content)
    searcher, untouched = (ControllerSearcher(evolution(), metric="AP") for _ in range(2))
    for one in (searcher, untouched):
        eventful(one, iter(range(5)))
    with pytest.raises(UserError, match="state"):
        searcher.restore(str(path))
    assert eventful(searcher, iter(range(5, 9))) == eventful(untouched, iter(range(5, 9)))


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(UserError, match="'max' or 'min'"):
        ControllerSearcher(evolution(), metric="AP", mode="best")  # type: ignore[arg-type]


def test_a_proposal_survives_json() -> None:
    controller = ReplicateLeaders(evolution(), num_trials=8, share=0.5)
    proposals = []
    for number in range(8):
        proposal = controller.ask()
        assert proposal is not None
        proposals.append(proposal)
        controller.tell(number, Evaluation(objective=0.1))
    assert {proposal.stage for proposal in proposals} == {Stage.SEARCH, Stage.RERANK}
    assert [Proposal.from_json(json.loads(json.dumps(proposal.to_json()))) for proposal in proposals] == proposals


@pytest.fixture(scope="module")
def small_ray() -> Iterator[None]:
    """One Ray. Workers receive the definitions of this file by value, because they cannot import this folder."""
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=OBJECT_STORE_BYTES,
    )
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    ray.shutdown()


class TwoSteps(tune.Trainable):
    """Reports twice, with the objective in the second report only; some trials fail or end early."""

    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._config, self._num_steps = new_config, 0
        return True

    def step(self) -> dict[str, Any]:
        self._num_steps += 1
        if self._num_steps == 1:
            return {"loss": 1.0}
        how = self._config["ends"].get(self._config["number"], "well")
        if how == "error":
            raise ZeroDivisionError("in a user's code")
        objective = {"well": quality(self._config["genotype"]), "nan": math.nan}
        return {"loss": 0.5, "done": True} | ({"AP": objective[how]} if how in objective else {})


class Crash(tune.Callback):
    """Ends the experiment once, when this many trials are complete and another one runs."""

    def __init__(self, after: int, marker: Path):
        self._after, self._marker = after, marker

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        states = [trial.status for trial in trials]
        if states.count("TERMINATED") >= self._after and "RUNNING" in states and not self._marker.exists():
            self._marker.touch()
            raise RuntimeError("the machine of the experiment was lost")


ENDS = {1: "error", 3: "nan", 4: "without"}


def experiment(folder: Path, *callbacks: tune.Callback, workers: int) -> tune.Tuner:
    return tune.Tuner(
        TwoSteps,
        param_space={"ends": ENDS},
        tune_config=tune.TuneConfig(
            search_alg=ControllerSearcher(evolution(), metric="AP"),
            num_samples=10,
            max_concurrent_trials=workers,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="experiment",
            storage_path=str(folder),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=list(callbacks),
            verbose=0,
        ),
    )


def proposed(results: tune.ResultGrid) -> list[str]:
    configs = [result.config for result in results]
    assert all(config is not None for config in configs)
    by_number = {config["number"]: config["genotype"] for config in configs if config is not None}
    assert sorted(by_number) == list(range(10))
    return [by_number[number] for number in range(10)]


def by_hand() -> list[str]:
    """Return the proposals that an experiment with one worker must make."""
    controller, genotypes = evolution(), []
    for number in range(10):
        proposal = controller.ask()
        assert proposal is not None
        genotypes.append(proposal.genotype.text)
        controller.tell(
            number,
            Failure(FailureKind.BUG, "") if number in ENDS else Evaluation(objective=quality(proposal.genotype.text)),
        )
    return genotypes


def test_a_controller_leads_an_experiment_whose_trials_fail_or_end_early(small_ray: None, tmp_path: Path) -> None:
    results = experiment(tmp_path, workers=1).fit()
    assert proposed(results) == by_hand()
    assert results.num_errors == 1, "a report without the metric, or with NaN, is no error of the experiment"


def crashed_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Interrupt an experiment of one worker after six trials with a complete snapshot; return the searcher's file."""
    checkpoint = TuneController.checkpoint
    monkeypatch.setattr(TuneController, "checkpoint", lambda self, **_: checkpoint(self, force=True, wait=True))
    with pytest.raises(Exception, match="lost"):
        experiment(tmp_path, Crash(6, tmp_path / "crashed"), workers=1).fit()
    return next((tmp_path / "experiment").glob("searcher-state-*"))


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Fail instead of waiting forever."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_restored_experiment_continues_with_the_same_proposals(
    small_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = crashed_experiment(tmp_path, monkeypatch)
    saved = json.loads(state.read_text())["events"]
    assert 3 <= sum("asked" in event for event in saved) < 10, "the trial was running"
    restored: list[ControllerSearcher] = []
    restore = ControllerSearcher.restore

    def remember(searcher: ControllerSearcher, path: str) -> None:
        restore(searcher, path)
        restored.append(searcher)

    monkeypatch.setattr(ControllerSearcher, "restore", remember)
    tuner = tune.Tuner.restore(str(tmp_path / "experiment"), trainable=TwoSteps, param_space={"ends": ENDS})
    genotypes = proposed(tuner.fit())
    # On a busy machine the snapshot is older, and the trials that ran then may end in another order.
    events = restored[-1]._events
    assert events[: len(saved)] == saved
    controller, numbers, asked = evolution(), {}, []
    for event in events:
        if "asked" in event:
            proposal = controller.ask()
            assert proposal is not None
            assert event["asked"] == proposal.to_json()
            numbers[event["trial_id"]] = proposal.number
            asked.append(proposal.genotype.text)
        elif "failure" in event:
            controller.tell(numbers[event["trial_id"]], Failure.from_json(event["failure"]))
        else:
            controller.tell(numbers[event["trial_id"]], Evaluation(objective=event["objective"]))
    assert asked == genotypes


@pytest.mark.parametrize("tune_knows_it", [False, True])
def test_an_experiment_restored_from_files_of_different_moments_finishes(
    tune_knows_it: bool, small_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash while Tune copies files leaves this: Tune knows the end of an open trial, or not even its start."""
    searcher_file = crashed_experiment(tmp_path, monkeypatch)
    saved = json.loads(searcher_file.read_text())
    *_, end, begin = saved["events"]
    assert "objective" in end
    assert "asked" in begin
    if tune_knows_it:
        saved["events"].remove(end)
        searcher_file.write_text(json.dumps(saved))
    else:
        end = {"trial_id": begin["trial_id"], "failure": ANY}
        tune_file = next((tmp_path / "experiment").glob("experiment_state-*"))
        state = json.loads(tune_file.read_text())
        assert json.loads(state["trial_data"].pop()[0])["trial_id"] == begin["trial_id"]
        tune_file.write_text(json.dumps(state))
    with at_most(120):
        tune.Tuner.restore(str(tmp_path / "experiment"), trainable=TwoSteps, param_space={"ends": ENDS}).fit()
    events = json.loads(max((tmp_path / "experiment").glob("searcher-state-*")).read_text())["events"]
    assert end in events
    assert len(events) == 20, "ten trials were proposed, and all results were told"


def test_the_example_experiment_finds_a_cheap_backbone_and_can_be_repeated(
    small_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        runpy.run_path(str(REPOSITORY / "examples" / "own_tune_experiment.py"), run_name="__main__")
    first, again = [line for line in capsys.readouterr().out.splitlines() if "multiply-adds:" in line]
    assert first == again
    assert float(first.split()[0]) < 40
