"""A warm start: earlier results are known, never proposed again, and copied to the run's own journal."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_task import FakeTask
from searches import cut, fake, paused

from spinenas.controller import EvolutionOptions
from spinenas.results.record import Status
from spinenas.results.storage.events import Observed
from spinenas.results.storage.journal import read_events
from spinenas.results.storage.run_state import fold
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.parts import BudgetConfig
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.search.run.or_resume import search_or_resume
from spinenas.search.run.run import Run
from spinenas.search.run.warm_start import known_results
from spinenas.space import SearchSpace, UserError

EVOLUTION = ControllerConfig("evolution", evolution=EvolutionOptions(population_size=4, tournament_size=2))


pytestmark = pytest.mark.usefixtures("no_fsync")


def configured(num_trials: int = 6, share: float = 0.0, **parts: Any) -> SearchConfig:
    budget = BudgetConfig(num_trials, replicate_share=share)
    return SearchConfig(budget=budget, executor=ExecutorConfig(kind="serial"), controller=EVOLUTION, **parts)


@pytest.fixture
def earlier(tmp_path: Path) -> Run:
    config = configured(10, share=0.2)
    return run_search(config, out=tmp_path / "earlier", task=FakeTask(fail={2: "diverged"}))


def keys(run: Run) -> list[str]:
    return [record.network_key for record in run.records()]


def test_known_networks_inform_the_controller_and_are_not_proposed_again(tmp_path: Path, earlier: Run) -> None:
    same_seed = configured(10)  # without a warm start it would propose the same networks as the earlier run
    run = run_search(same_seed, out=tmp_path / "run", task=FakeTask(), warm_start=[earlier.folder.path])
    known = {record.network_key for record in earlier.records() if record.evaluation is not None}
    assert not known & set(keys(run))
    assert len(run.records()) == 10
    first = run.records()[0]
    assert first.origin.startswith("mutation:")  # the population is there from the beginning


def test_several_trainings_of_a_network_count_by_their_mean(earlier: Run) -> None:
    state = earlier.state()
    known = known_results([earlier.folder.path], task_key=state.run["task_key"], space=SearchSpace.spinenet49())
    replicated = [observation for observation in known if len(observation.sources) > 1]
    assert replicated
    for observation in replicated:
        numbers = [int(source.rpartition(" ")[2]) for source in observation.sources]
        objectives = [state.trials[number].evaluation.objective for number in numbers]  # type: ignore[union-attr]
        assert observation.evaluation.objective == pytest.approx(sum(objectives) / len(objectives))
    assert all(source.rpartition(" ")[2] != "2" for observation in known for source in observation.sources)


def test_a_resumed_run_does_not_need_the_earlier_run(tmp_path: Path, earlier: Run) -> None:
    warm = [earlier.folder.path]
    whole = run_search(configured(), out=tmp_path / "whole", task=FakeTask(), warm_start=warm)
    with pytest.raises(KeyboardInterrupt):
        run_search(configured(), out=tmp_path / "cut", task=FakeTask(interrupt_at=3), warm_start=warm)
    shutil.rmtree(earlier.folder.path)
    assert keys(resume(tmp_path / "cut", task=FakeTask())) == keys(whole)
    again = search_or_resume(configured(), out=tmp_path / "cut", task=FakeTask(), warm_start=warm)
    assert keys(again) == keys(whole)


def test_a_search_with_another_warm_start_is_another_search(tmp_path: Path, earlier: Run) -> None:
    warm, out = [earlier.folder.path], tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        run_search(configured(), out=out, task=FakeTask(interrupt_at=3), warm_start=warm)
    before = (out / "journal.jsonl").read_bytes()
    for other in ([], [*warm, tmp_path / "more"]):
        with pytest.raises(UserError, match=r"holds another run: its warm start is \['.*earlier'\], not \["):
            search_or_resume(configured(), out=out, task=FakeTask(), warm_start=other)
    assert (out / "journal.jsonl").read_bytes() == before


def test_a_run_that_did_not_record_its_warm_start_resumes(tmp_path: Path, earlier: Run) -> None:
    warm, out = [earlier.folder.path], tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        run_search(configured(), out=out, task=FakeTask(interrupt_at=3), warm_start=warm)
    info = json.loads((out / "run.json").read_text())
    assert info.pop("warm_start") == [str(earlier.folder.path)]
    (out / "run.json").write_text(json.dumps(info))
    assert len(search_or_resume(configured(), out=out, task=FakeTask(), warm_start=warm).records()) == 6


def test_observed_results_are_read_back_from_the_journal(tmp_path: Path, earlier: Run) -> None:
    warm = [earlier.folder.path]
    run = run_search(configured(), out=tmp_path / "run", task=FakeTask(), warm_start=warm)
    known = known_results(warm, task_key="fake-task", space=SearchSpace.spinenet49())
    observed = fold(read_events(run.folder.journal_path)).observed
    assert [replace(each, at="") for each in observed] == known
    assert len(known) > 5


def test_results_of_another_task_are_refused_before_anything_is_written(tmp_path: Path, earlier: Run) -> None:
    with pytest.raises(UserError, match="earlier has another task"):
        run_search(configured(), out=tmp_path / "run", task=FakeTask(key="other"), warm_start=[earlier.folder.path])
    assert not (tmp_path / "run").exists()


def test_genotypes_of_another_space_are_left_out(earlier: Run) -> None:
    assert known_results([earlier.folder.path], task_key="fake-task", space=SearchSpace.r0_sp53()) == []


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        run_search(configured(), out=tmp_path / "run", task=FakeTask(), warm_start=[tmp_path / "nothing"])


def test_an_observation_after_a_trial_was_asked_is_refused(tmp_path: Path, earlier: Run) -> None:
    run = run_search(configured(), out=tmp_path / "run", task=FakeTask(), warm_start=[earlier.folder.path])
    events = list(read_events(run.folder.journal_path))
    observed = next(event for event in events if isinstance(event, Observed))
    with pytest.raises(UserError, match="after a trial was asked"):
        fold([*events, observed])


def test_results_of_several_runs_are_combined(tmp_path: Path, earlier: Run) -> None:
    other = run_search(replace(configured(), seed=7), out=tmp_path / "other", task=FakeTask())
    both = known_results([earlier.folder.path, other.folder.path], task_key="fake-task", space=SearchSpace.spinenet49())
    known = {record.network_key for run in (earlier, other) for record in run.records() if record.evaluation}
    assert {observation.evaluation.network_key for observation in both} <= known | {None}
    assert len(both) == len(known)


def test_paused_trainings_are_handed_over_as_what_they_are(tmp_path: Path, cached_features: None) -> None:
    earlier = run_search(paused(), out=tmp_path / "earlier", task=fake(5))
    folder, records = earlier.folder.path, earlier.records()
    space = SearchSpace.spinenet49()
    whole = known_results([folder], task_key="fake-task", space=space)
    assert len(whole) == len({record.network_key for record in records if record.status is Status.COMPLETE})
    known = known_results([folder], task_key="fake-task", space=space, incomplete=True)
    assert len(known) == len({record.network_key for record in records}) > len(whole)
    assert {1, None} <= {observation.evaluation.stopped_after for observation in known}
    for observation in known:
        evaluations = [records[int(source.rpartition(" ")[2])].evaluation for source in observation.sources]
        curves = [dict(evaluation.by_epoch) for evaluation in evaluations if evaluation is not None]
        assert len(curves) == len(evaluations)
        mean = {epoch: sum(curve[epoch] for curve in curves) / len(curves) for epoch in curves[0]}
        assert dict(observation.evaluation.by_epoch) == pytest.approx(mean)
        assert observation.evaluation.objective == pytest.approx(list(mean.values())[-1])


def test_only_a_controller_that_pauses_trainings_begins_with_incomplete_ones(
    tmp_path: Path, cached_features: None
) -> None:
    earlier = run_search(paused(), out=tmp_path / "earlier", task=fake(5))
    warm = [earlier.folder.path]
    stopped = {}
    for name, config in (("pausing", replace(paused(), seed=6)), ("whole", configured(seed=6))):
        run = run_search(config, out=tmp_path / name, task=fake(5), warm_start=warm)
        observed = fold(read_events(run.folder.journal_path)).observed
        stopped[name] = {observation.evaluation.stopped_after for observation in observed}
        known = {observation.evaluation.network_key for observation in observed}
        assert not known & {record.network_key for record in run.records() if not record.replicate}
    assert {1, None} <= stopped["pausing"]
    assert stopped["whole"] == {None}


def test_trainings_of_an_unfinished_run_count_as_of_their_pauses(tmp_path: Path, cached_features: None) -> None:
    whole = run_search(paused(), out=tmp_path / "whole", task=fake(5))
    folder = cut(whole, 5, tmp_path / "cut")
    (known,) = known_results([folder], task_key="fake-task", space=SearchSpace.spinenet49(), incomplete=True)
    assert known.evaluation.stopped_after == 1
    assert known_results([folder], task_key="fake-task", space=SearchSpace.spinenet49()) == []
