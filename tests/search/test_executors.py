"""Executors with real processes: the same results everywhere, and nothing lost with a worker."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import fake_task
import pytest
import ray
from fake_task import FakeTask, FakeValTask
from journal_lines import json_events
from ray.exceptions import OutOfMemoryError, RayError, RaySystemError
from shared_fixtures import REPOSITORY

from spinenas.proxy_task.config import EvalConfig, TaskConfig, TrainConfig
from spinenas.results.record import Evaluation, Failure, FailureKind, Status
from spinenas.results.storage.events import EpochDone, Event, Finished
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.parts import BudgetConfig, HalvingConfig
from spinenas.search.executors.base import Job, WorkerEvent
from spinenas.search.executors.ray_actors import RayExecutor
from spinenas.search.executors.ray_session import OBJECT_STORE_BYTES
from spinenas.search.executors.ray_tune import _EventCallback
from spinenas.search.monitoring.base import Display
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.search.run.run import Run
from spinenas.search.studies.validation import validate
from spinenas.space import PUBLISHED, UserError

SEED = 7


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    """One Ray for all tests here. Workers receive the fake task by value, because they cannot import this folder."""
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=OBJECT_STORE_BYTES,
    )
    ray.cloudpickle.register_pickle_by_value(fake_task)
    yield
    ray.cloudpickle.unregister_pickle_by_value(fake_task)
    ray.shutdown()


def configured(kind: str, num_trials: int = 6) -> SearchConfig:
    executor = ExecutorConfig(kind=kind, workers=2, ordered=True)  # type: ignore[arg-type]
    return SearchConfig(budget=BudgetConfig(num_trials), executor=executor, seed=SEED)


def outcome(run: Run) -> list[object]:
    return [(record.genotype, record.seed, record.evaluation, record.status) for record in run.records()]


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    return outcome(run_search(configured("serial"), out=tmp_path_factory.mktemp("serial") / "run", task=FakeTask()))


@pytest.mark.parametrize("kind", ["ray", "tune"])
def test_workers_give_the_results_of_a_serial_run_even_if_one_is_killed(
    kind: str, serial: list[object], tmp_path: Path
) -> None:
    folder = tmp_path / "a run" / "with spaces"
    task = FakeTask(kill_worker=frozenset({(3, 0)}), epoch_seconds=0.02)
    run = run_search(configured(kind), out=folder, task=task)
    assert outcome(run) == serial
    record = run.records()[3]
    assert record.attempt >= 1, "its first worker died"
    events = json_events(run.folder.journal_path)
    reasons = [event["reason"] for event in events if event["event"] == "requeued" and event["number"] == 3]
    assert reasons
    assert "died" in reasons[0]
    assert "unexpectedly" in reasons[0], "in Ray's words"
    assert sum(event["event"] == "epoch" for event in events) >= 12, "the driver receives each epoch"


@pytest.mark.parametrize("kind", ["ray", "tune"])
def test_trials_pause_and_continue_in_any_worker_with_the_results_of_a_serial_run(kind: str, tmp_path: Path) -> None:
    def halved(kind: str) -> SearchConfig:
        task = TaskConfig(train=TrainConfig(epochs=3), eval=EvalConfig(every_epochs=1))  # like the fake task
        halving = HalvingConfig((1,), reduction=2.0, min_results=2)
        return replace(configured(kind), task=task, halving=halving, seed=5)

    task = FakeTask(num_epochs=3)
    expected = outcome(run_search(halved("serial"), out=tmp_path / "serial", task=task))
    assert {status for *_, status in expected} == {Status.COMPLETE, Status.PRUNED}
    task = FakeTask(num_epochs=3, kill_worker=frozenset({(0, 1)}), epoch_seconds=0.02)
    run = run_search(halved(kind), out=tmp_path / "run", task=task)
    assert outcome(run) == expected
    assert run.records()[0].attempt == 2, "it was promoted once and lost its worker once"


def test_a_validation_by_workers_equals_a_serial_one_even_if_one_is_killed(tmp_path: Path) -> None:
    run = run_search(configured("serial"), out=tmp_path / "run", task=FakeTask())
    serial = validate(run, seeds=2, out=tmp_path / "serial", task=FakeValTask())
    by_ray = validate(
        run,
        seeds=2,
        out=tmp_path / "ray",
        config=configured("ray"),
        task=FakeValTask(kill_worker=frozenset({(3, 0)}), epoch_seconds=0.02),
    )
    assert by_ray == serial
    assert Run.open(tmp_path / "ray").records()[3].attempt >= 1, "its first worker died"


def test_a_trial_that_always_kills_its_worker_fails_alone(tmp_path: Path) -> None:
    task = FakeTask(kill_worker=frozenset((1, attempt) for attempt in range(4)))
    records = run_search(configured("ray", num_trials=4), out=tmp_path / "run", task=task).records()
    assert records[1].failure is not None
    assert records[1].failure.kind is FailureKind.WORKER_LOST
    assert [record.status for record in records].count(Status.COMPLETE) == 3


def test_workers_that_the_cluster_cannot_hold_are_refused_at_once(tmp_path: Path) -> None:
    config = SearchConfig(executor=ExecutorConfig(kind="ray", workers=2, gpus_per_worker=64.0))
    with pytest.raises(UserError, match="set fewer"):
        run_search(config, out=tmp_path / "run", task=FakeTask())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OutOfMemoryError("the node was low on memory"), FailureKind.OUT_OF_MEMORY),
        (RaySystemError("something in Ray"), FailureKind.WORKER_LOST),
    ],
)
def test_any_error_of_ray_becomes_a_failure_and_the_worker_is_replaced(
    error: RayError, kind: FailureKind, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def raise_error(reference: object) -> None:
        raise error

    with RayExecutor(FakeTask(), ExecutorConfig(workers=1, gpus_per_worker=0), note=print) as executor:
        first = executor._slots[0].actor
        executor.submit(Job(4, 1, PUBLISHED["spinenet-49"].genotype, 0, None, tmp_path / "000004"))
        events: list[WorkerEvent] = []
        with monkeypatch.context() as patch:
            patch.setattr(ray, "get", raise_error)
            executor.wait(events.append, None)
        (event,) = events
        assert isinstance(event, Finished)
        assert isinstance(event.result, Failure)
        assert (event.number, event.attempt, event.result.kind) == (4, 1, kind)
        assert str(error) in event.result.message
        assert executor._slots[0].actor is not first
        while not executor.num_free:
            executor.wait(events.append, None)
        executor.submit(Job(5, 0, PUBLISHED["spinenet-49"].genotype, 0, None, tmp_path / "000005"))
        while not isinstance(events[-1], Finished) or events[-1].number == 4:
            executor.wait(events.append, None)
        assert isinstance(events[-1].result, Evaluation)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1 worker(s) were killed due to the node running low on memory.", FailureKind.OUT_OF_MEMORY),
        ("The actor died unexpectedly before finishing this task.\n\tpid: 9", FailureKind.WORKER_LOST),
        ("The actor 03 is unavailable: RpcError: RPC error: Socket closed rpc_code: 14.", FailureKind.PREEMPTED),
        ("The actor died unexpectedly.\nThe actor is dead because its node has died.", FailureKind.PREEMPTED),
        ("", FailureKind.WORKER_LOST),
    ],
)
def test_an_error_text_of_tune_distinguishes_memory_machine_and_process(
    text: str, kind: FailureKind, tmp_path: Path
) -> None:
    event = told_of_error(text, tmp_path)
    assert isinstance(event, Finished)
    assert (event.number, event.attempt) == (4, 1)
    assert isinstance(event.result, Failure)
    assert event.result.kind is kind


def test_a_worker_of_tune_that_cannot_start_ends_the_search_and_fails_no_trial(tmp_path: Path) -> None:
    text = "The actor died because of an error raised in its creation task\nModuleNotFoundError: No module named 'x'"
    with pytest.raises(UserError, match=r"No module named 'x'.*install spinenas"):
        raise told_of_error(text, tmp_path)  # type: ignore[misc]


def told_of_error(text: str, folder: Path) -> WorkerEvent | UserError:
    """Return the events that the driver receives for a Tune trial that ended with this error text."""
    error_file = folder / "error.txt"
    error_file.write_text(f"Failure # 1 (occurred at some time)\n{text}\n")
    told: list[WorkerEvent | UserError] = []
    job = Job(4, 1, PUBLISHED["spinenet-49"].genotype, 0, None, Path("000004"))
    trial = SimpleNamespace(config={"job": job}, error_file=str(error_file))
    _EventCallback(told.append).on_trial_error(0, [], trial)
    (event,) = told
    return event


class Interrupting(Display):
    """A display that interrupts the search at its first epoch."""

    def show(self, event: Event) -> None:
        if isinstance(event, EpochDone):
            raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["ray", "tune"])
def test_an_interrupted_search_leaves_no_worker_in_a_ray_that_keeps_running(
    kind: str, serial: list[object], tmp_path: Path
) -> None:
    task = FakeTask(num_epochs=4, epoch_seconds=0.5)
    with pytest.raises(KeyboardInterrupt):
        run_search(configured(kind), out=tmp_path / "run", task=task, display=Interrupting())
    # Its workers would have all CPUs, and those of the resumed search none.
    assert outcome(resume(tmp_path / "run", task=FakeTask())) == serial


def test_without_an_address_a_new_ray_starts_whatever_the_environment_names() -> None:
    code = (
        "import ray\n"
        "from spinenas.search.config.config import ExecutorConfig\n"
        "from spinenas.search.executors.ray_session import ray_session\n"
        "with ray_session(ExecutorConfig(workers=3), print): print(ray.cluster_resources()['CPU'])"
    )
    environment = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1"}  # no cluster answers there
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert done.stdout.strip().splitlines()[-1:] == ["3.0"], done.stderr


DRIVER = """
import sys
sys.path.insert(0, sys.argv[2])
import fake_task
from ray import cloudpickle
cloudpickle.register_pickle_by_value(fake_task)
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.parts import BudgetConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.executors.ray_session import OBJECT_STORE_BYTES
from spinenas.search.run.lifecycle import run_search
executor = ExecutorConfig(kind="ray", workers=2, ordered=True)
config = SearchConfig(budget=BudgetConfig(6), executor=executor, seed=7)
run_search(config, out=sys.argv[1], task=fake_task.FakeTask(epoch_seconds=0.5))
"""


def test_a_killed_driver_takes_its_workers_along_and_its_run_can_be_finished(
    serial: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(out), str(REPOSITORY / "tests")], start_new_session=True
    )
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and b'"told"' not in _content(out / "journal.jsonl"):
            time.sleep(0.05)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        while time.monotonic() < deadline and _workers_in(driver.pid):
            time.sleep(0.2)
        assert _workers_in(driver.pid) == []
    finally:
        for pid in _session_members(driver.pid):
            os.kill(pid, signal.SIGKILL)
    before = json_events(out / "journal.jsonl")
    finished = [event["number"] for event in before if event["event"] == "told"]
    assert 1 <= len(finished) < 6
    assert outcome(resume(out, task=FakeTask())) == serial
    after = [event["number"] for event in json_events(out / "journal.jsonl") if event["event"] == "told"]
    assert sorted(after) == list(range(6)), "each result is recorded once"


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _workers_in(session: int) -> list[str]:
    """Return Ray's servers and our workers. Ray's two agents end by themselves after a minute."""
    names = []
    for pid in _session_members(session):
        with contextlib.suppress(OSError):  # the process may have ended just now
            names.append(Path(f"/proc/{pid}/cmdline").read_text())
    return [name for name in names if "Agent" not in name]


def _session_members(session: int) -> list[int]:
    """Processes of that session that are not zombies, from /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of_session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(of_session) == session and state != "Z":
            found.append(int(path.parent.name))
    return found
