"""Clusters of several machines, each a real raylet here: changing workers, impossible requests and tokens."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_task
import pytest
import ray
from fake_task import FakeTask
from journal_lines import json_events
from ray.cluster_utils import Cluster
from shared_fixtures import REPOSITORY

import spinenas.search.executors.ray_actors as ray_actors
import spinenas.search.executors.ray_address as ray_address
import spinenas.search.executors.ray_resources as ray_resources
from spinenas.results.record import Failure, FailureKind, Status
from spinenas.results.storage.events import Event, Finished, Started
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.parts import BudgetConfig
from spinenas.search.executors.base import Job, WorkerEvent
from spinenas.search.executors.ray_actors import RayExecutor
from spinenas.search.executors.ray_address import asks_for_token, check_answers, listens, watched_head
from spinenas.search.executors.ray_resources import explain_waiting, fits_any
from spinenas.search.executors.ray_session import _staged_code
from spinenas.search.monitoring.base import Display
from spinenas.search.run.lifecycle import run_search
from spinenas.space import PUBLISHED, UserError


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that runs no trial, and one machine that runs one."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.add_node(num_cpus=1)
    ray.init(address=made.address, log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(fake_task)
    yield made
    ray.cloudpickle.unregister_pickle_by_value(fake_task)
    ray.shutdown()
    made.shutdown()


def configured(**executor: Any) -> ExecutorConfig:
    options = {"kind": "ray", "workers": 2, "gpus_per_worker": 0.0, "address": "auto", **executor}
    return ExecutorConfig(**options)


class ComesAndGoes(Display):
    """A display that adds a machine after the first result, and removes it once a trial runs there."""

    def __init__(self, cluster: Cluster):
        self._cluster = cluster
        self._added: Any = None
        self._workers: list[str] = []
        self.removed = False

    def show(self, event: Event) -> None:
        if isinstance(event, Finished) and self._added is None:
            self._added = self._cluster.add_node(num_cpus=1)
        elif isinstance(event, Started) and event.worker not in self._workers:
            self._workers.append(event.worker)
            if len(self._workers) == 2:
                self._cluster.remove_node(self._added, allow_graceful=True)
                self.removed = True


def test_a_search_uses_workers_that_are_added_and_survives_removed_ones(cluster: Cluster, tmp_path: Path) -> None:
    display = ComesAndGoes(cluster)
    config = SearchConfig(budget=BudgetConfig(30), executor=configured(), seed=3)
    run = run_search(config, out=tmp_path / "run", task=FakeTask(epoch_seconds=0.12), display=display)
    assert display.removed
    assert {record.status for record in run.records()} == {Status.COMPLETE}
    events = json_events(run.folder.journal_path)
    assert {event["worker"] for event in events if event["event"] == "started"} == {"worker-0", "worker-1"}
    reasons = [event["reason"] for event in events if event["event"] == "requeued"]
    assert reasons
    host = re.escape(socket.gethostname())
    lost = rf"the machine of worker-\d, {host}, was lost; this never counts against the trial"
    assert all(re.fullmatch(lost, reason) for reason in reasons), reasons


def test_a_worker_that_no_machine_can_hold_is_explained_while_the_search_waits(cluster: Cluster) -> None:
    class Explained(Exception):
        pass

    def note(text: str) -> None:
        said.append(text)
        raise Explained

    said: list[str] = []
    with pytest.raises(Explained), RayExecutor(FakeTask(), configured(gpus_per_worker=3.0), note):
        pass
    assert "no machine of the cluster has 1 CPU and 3 GPU" in said[0]
    assert "the most that any has is 1 CPU" in said[0]


def test_a_trial_over_its_time_limit_is_ended(cluster: Cluster, tmp_path: Path) -> None:
    events: list[WorkerEvent] = []
    config = configured(workers=1, trial_minutes=0.5 / 60)
    with RayExecutor(FakeTask(num_epochs=1, epoch_seconds=60), config, print) as executor:
        executor.submit(Job(0, 0, PUBLISHED["spinenet-49"].genotype, 0, None, tmp_path / "000000"))
        while not events or not isinstance(events[-1], Finished):
            executor.wait(events.append, None)
        result = events[-1].result
        assert getattr(result, "kind", None) is FailureKind.TIMEOUT
        while not executor.num_free:  # another worker takes its place
            executor.wait(events.append, None)


def test_a_silent_worker_causes_one_warning(cluster: Cluster, tmp_path: Path) -> None:
    said: list[str] = []
    config = configured(workers=1, stall_minutes=0.5 / 60)
    with RayExecutor(FakeTask(num_epochs=1, epoch_seconds=60), config, said.append) as executor:
        executor.submit(Job(7, 0, PUBLISHED["spinenet-49"].genotype, 0, None, tmp_path / "000000"))
        while not any("has reported nothing" in text for text in said):
            executor.wait(lambda event: None, 0.5)
        for _ in range(2):
            executor.wait(lambda event: None, 0.5)
        executor.cancel(7)
    (text,) = [text for text in said if "has reported nothing" in text]
    assert text == (
        f"worker-0 on {socket.gethostname()} has reported nothing for 0.00833333 min; trial 7 is after epoch 0; "
        "set executor.trial_minutes to end trials that hang"
    )


def test_an_address_where_nothing_listens_is_refused_before_ray_tries_it() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but not listening
        port = unused.getsockname()[1]
        with pytest.raises(UserError, match=rf"no Ray cluster answers at 'here:{port}' \(Connection refused\)"):
            check_answers(f"127.0.0.1:{port}", f"'here:{port}'")
        assert not listens(f"127.0.0.1:{port}")
        unused.listen()
        assert listens(f"127.0.0.1:{port}")
        check_answers(f"ray://127.0.0.1:{port}", "the server of Ray's client only has to listen")


def test_a_program_that_is_no_ray_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spinenas.search.executors.ray_address.ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(UserError, match="something listens there, but it does not answer like Ray"):
            check_answers(f"127.0.0.1:{port}", f"'127.0.0.1:{port}'")


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "localhost", "", "127.0.0.1:abc", "127.0.0.1:99999", "http://head:8265"]
)
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(UserError, match=r"is not HOST:PORT, such as 127\.0\.0\.1:6379; give that, or 'auto'"):
        check_answers(address, repr(address))


def test_auto_takes_a_running_cluster_and_never_the_ray_of_another_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raylet(folder: str, address: str) -> SimpleNamespace:
        return SimpleNamespace(info={"cmdline": ["/x/raylet", f"--temp_dir={folder}", f"--gcs-address={address}"]})

    def found(*processes: SimpleNamespace) -> str:
        monkeypatch.setattr(ray_address.psutil, "process_iter", lambda names: iter([other, *processes]))
        return ray_address.found_address("auto", said.append)

    said: list[str] = []
    other = SimpleNamespace(info={"cmdline": None})  # of another user
    private = raylet("/tmp/spinenas-ray-0", "10.0.0.1:1")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(UserError, match="no Ray cluster runs on this machine; the Ray that runs here belongs to anoth"):
        found(private)
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.1:9")
    assert found(private, raylet("/tmp/ray", "10.0.0.1:2")) == "10.0.0.1:2", "not the stale one of Ray's file"
    assert said == []
    assert found(raylet("/tmp/ray", "10.0.0.1:9"), raylet("/tmp/ray", "10.0.0.1:2")) == "10.0.0.1:9"
    assert said == [
        "several Ray clusters run on this machine, and 'auto' takes 10.0.0.1:9; give the address of another one"
    ]
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:3")
    assert found(private) == "10.0.0.1:3"
    assert ray_address.found_address("10.0.0.1:4", said.append) == "10.0.0.1:4"


def test_a_machine_that_is_killed_under_a_trial_is_lost_and_not_the_trials_fault(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Only the raylet is killed: for some seconds Ray still takes the machine for alive."""
    events: list[WorkerEvent] = []
    (tmp_path / "000000").mkdir()
    node = cluster.add_node(num_cpus=2)
    config = configured(workers=1, cpus_per_worker=2.0)  # which only the new machine can hold
    with RayExecutor(FakeTask(num_epochs=1, epoch_seconds=300), config, print) as executor:
        executor.submit(Job(0, 0, PUBLISHED["spinenet-49"].genotype, 0, None, tmp_path / "000000"))
        while not any(isinstance(event, Started) for event in events):
            executor.wait(events.append, None)
        node.kill_raylet()
        while not any(isinstance(event, Finished) for event in events):
            executor.wait(events.append, None)
    cluster.remove_node(node, allow_graceful=False)
    (failure,) = [event.result for event in events if isinstance(event, Finished)]
    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.PREEMPTED


def test_a_worker_killed_for_its_memory_is_distinguished_from_one_that_died(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = FakeTask(kill_worker=frozenset({(0, 0)}))
    kinds = []
    for kills in (0, 1):
        monkeypatch.setattr(RayExecutor, "_was_out_of_memory", lambda self, node_id, kills=kills: bool(kills))
        events: list[WorkerEvent] = []
        (tmp_path / f"{kills}" / "000000").mkdir(parents=True)
        with RayExecutor(task, configured(workers=1), print) as executor:
            executor.submit(Job(0, 0, PUBLISHED["spinenet-49"].genotype, 0, None, tmp_path / f"{kills}" / "000000"))
            while not events or not isinstance(events[-1], Finished):
                executor.wait(events.append, None)
        kinds.append(getattr(events[-1].result, "kind", None))
    assert kinds == [FailureKind.WORKER_LOST, FailureKind.OUT_OF_MEMORY]


def test_processes_killed_for_memory_are_counted_on_the_workers_machine(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RayExecutor(FakeTask(), configured(workers=1), print) as executor:
        node_id = executor._slots[0].node_id
        assert node_id is not None
        assert not executor._was_out_of_memory(node_id)
        executor._oom_kills[node_id] -= 1
        assert executor._was_out_of_memory(node_id)
        assert not executor._was_out_of_memory(node_id)
        assert not executor._was_out_of_memory("e" * 56)  # no such machine


def test_a_worker_that_cannot_start_anywhere_ends_the_search_with_its_reason(cluster: Cluster) -> None:
    class Unloadable(FakeTask):
        def __reduce__(self) -> Any:
            return _fail, ()

    with (
        pytest.raises(UserError, match=r"no Ray worker can start: .*no such data; install"),
        RayExecutor(Unloadable(), configured(), print),
    ):
        pass


def _fail() -> None:
    raise FileNotFoundError("no such data")


ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def test_the_data_command_runs_once_per_machine_and_its_failure_is_reported(cluster: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with RayExecutor(FakeTask(), configured(workers=1, data_command=f"echo fetched >> {log}"), print):
        pass
    with RayExecutor(FakeTask(), configured(workers=1, data_command=f"echo fetched >> {log}"), print):
        assert log.read_text() == "fetched\n"
    config = configured(workers=1, data_command="echo no such bucket; exit 3")
    with pytest.raises(UserError, match=r"status 3 .no such bucket"), RayExecutor(FakeTask(), config, print):
        pass


@pytest.mark.parametrize(
    ("request_", "verdict", "words"),
    [
        ({"CPU": 1.0}, None, "they are starting or the machines that have it are in use; waiting"),
        ({"GPU": 2.0}, None, "a search waits until a machine with more is added; or request less"),
        ({"GPU": 2.0}, True, "waiting for the autoscaler"),
        (
            {"CPU": 0.5, "TPU": 8.0},
            False,
            "no worker can ever run: each needs 0.5 CPU and 8 TPU",
        ),
    ],
)
def test_missing_workers_are_explained(
    request_: dict[str, float],
    verdict: bool | None,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0}}, {"Alive": False, "Resources": {"GPU": 8.0}}]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray_resources, "autoscaler_can_hold", lambda request: verdict)
    if verdict is False:
        with pytest.raises(UserError, match=words):
            explain_waiting(request_)
    else:
        assert words in explain_waiting(request_)


def test_the_newer_autoscaler_reports_requests_that_it_cannot_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = ray_resources.GetClusterStatusReply()
    client = SimpleNamespace(get_cluster_status=lambda timeout_s: reply.SerializeToString())
    monkeypatch.setattr(ray_resources, "is_autoscaler_v2", lambda fetch_from_server: True)
    monkeypatch.setattr(ray_resources, "GcsClient", lambda address: client)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="here"))
    assert ray_resources.autoscaler_can_hold({"GPU": 4.0}) is None, "the autoscaler has reported nothing"
    reply.autoscaling_state.autoscaler_state_version = 1
    reply.autoscaling_state.infeasible_resource_requests.add(resources_bundle={"CPU": 1.0, "GPU": 4.0})
    assert ray_resources.autoscaler_can_hold({"CPU": 1.0, "GPU": 4.0}) is False
    assert ray_resources.autoscaler_can_hold({"CPU": 1.0, "GPU": 1.0}) is True


def test_machine_types_of_the_older_autoscaler_are_read_from_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "cluster.yaml"
    config.write_text(
        "max_workers: 2\navailable_node_types:\n  head: {resources: {CPU: 0}, max_workers: 0}\n"
        "  spot: {resources: {CPU: 4, GPU: 1}}\n"
    )
    monitor = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", f"--autoscaling-config={config}"])
    try:
        monkeypatch.setattr(ray_resources, "is_autoscaler_v2", lambda fetch_from_server: False)
        monkeypatch.setattr(ray_resources, "_internal_kv_get", lambda key: f'{{"monitor_pid": {monitor.pid}}}')
        while not Path(f"/proc/{monitor.pid}/cmdline").read_bytes():
            time.sleep(0.01)
        assert ray_resources.autoscaler_can_hold({"GPU": 1.0}) is True
        assert ray_resources.autoscaler_can_hold({"GPU": 2.0}) is False
        config.write_text("nothing of the kind")
        assert ray_resources.autoscaler_can_hold({"GPU": 1.0}) is None
        monkeypatch.setattr(ray_resources, "_internal_kv_get", lambda key: None)
        assert ray_resources.autoscaler_can_hold({"GPU": 1.0}) is None
    finally:
        monitor.kill()
        monitor.wait()


def test_a_request_must_fit_on_a_single_machine() -> None:
    machines = [{"CPU": 4.0}, {"CPU": 1.0, "GPU": 1.0}]
    assert fits_any({"CPU": 4.0}, machines)
    assert not fits_any({"CPU": 4.0, "GPU": 1.0}, machines)


SEARCH = """
import sys
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.executors.ray_session import ray_session
from spinenas.space import UserError
try:
    with ray_session(ExecutorConfig(address=sys.argv[1], ship_code=False), print):
        print("connected")
except UserError as error:
    print(error)
"""


def test_a_client_without_the_token_is_refused(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef" * 4)
    wrong = tmp_path / "wrong"
    wrong.write_text("fedcba9876543210" * 4)
    bare = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    bare |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_gcs_server_port_wait_time_s": "2", "HOME": str(tmp_path)}
    right = bare | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    with _head(right) as (address, _):
        assert asks_for_token(address) is True

        def said(environment: dict[str, str]) -> str:
            command = [sys.executable, "-c", SEARCH, address]
            return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300).stdout

        assert said(right).endswith("connected\n")
        assert "needs a token, and this process sends none; set RAY_AUTH_MODE=token" in said(bare)
        assert "rejects the token of this process; copy" in said(right | {"RAY_AUTH_TOKEN_PATH": str(wrong)})
        assert "cannot be read here" in said(right | {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")})


DYING = """
import os, signal, sys
import spinenas.search.executors.ray_session as ray_session
from spinenas.search.config.executor import ExecutorConfig
from spinenas.space import UserError
real = ray_session.check_answers
def answers_and_ends(*words):
    real(*words)
    os.killpg(int(sys.argv[2]), signal.SIGKILL)
ray_session.check_answers = answers_and_ends
try:
    with ray_session.ray_session(ExecutorConfig(address=sys.argv[1], ship_code=False), print):
        print("connected")
except UserError as error:
    print(error)
"""


def test_a_cluster_that_ends_while_a_search_connects_is_reported(tmp_path: Path) -> None:
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "HOME": str(tmp_path)}
    with _head(environment) as (address, pid):
        command = [sys.executable, "-c", DYING, address, str(pid)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"the Ray cluster at '{address}' ended while the search connected to it" in done.stdout


WAITS = """
import sys
from spinenas.search.executors.ray_address import check_answers
from spinenas.search.executors.stop_signals import Terminated, stopped_by_sigterm
try:
    with stopped_by_sigterm():
        print("waits", flush=True)
        check_answers(sys.argv[1], "there")
except Terminated:
    print("stopped")
"""


def test_sigterm_ends_the_wait_for_an_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        waiting = subprocess.Popen([sys.executable, "-c", WAITS, address], stdout=subprocess.PIPE, text=True)
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "waits\n"
        silent.accept()[0].close()  # the probe is at work
        waiting.send_signal(signal.SIGTERM)
        assert waiting.communicate(timeout=60)[0] == "stopped\n"


def test_a_cluster_without_tokens_causes_a_warning(tmp_path: Path) -> None:
    """Tokens are disabled explicitly, because Ray enables them where it finds one."""
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "HOME": str(tmp_path)}
    with _head(environment) as (address, _):
        assert asks_for_token(address) is False
        command = [sys.executable, "-c", SEARCH, address]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert "WARNING" in done.stdout
    assert "takes commands from everyone who can reach it" in done.stdout


def test_a_lost_head_is_said_once_before_ray_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_address, "HEAD_CHECK_SECONDS", 0.01)
    monkeypatch.setattr(ray_address, "HEAD_SECONDS", 0.05)
    said: list[str] = []
    is_told = threading.Event()

    def note(text: str) -> None:
        said.append(text)
        is_told.set()

    head = socket.create_server(("127.0.0.1", 0))
    with watched_head(f"127.0.0.1:{head.getsockname()[1]}", note):
        assert not is_told.wait(0.3)
        head.close()
        assert is_told.wait(60)
        time.sleep(0.2)
    (text,) = said
    assert "the head of Ray at 127.0.0.1" in text
    assert "never counts against a trial; continue with `spinenas resume`" in text


@contextlib.contextmanager
def _head(environment: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Start a separate Ray head on its own port; yield its address and its process group."""
    import socket
    import tempfile

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", f"--port={port}"]
        command += ["--node-ip-address=127.0.0.1", "--include-dashboard=false", f"--temp-dir={folder}", "--num-cpus=1"]
        head = subprocess.Popen(
            command,
            env=environment,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert head.stdout is not None
            for line in head.stdout:
                if "Ray runtime started" in line:
                    break
            yield f"127.0.0.1:{port}", head.pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(head.pid, signal.SIGKILL)
            head.wait()


def test_checks_are_made_often_enough_to_explain_in_time() -> None:
    assert ray_actors.EXPLAIN_SECONDS + 2 * ray_actors.CHECK_SECONDS < 10


IMPORT_EVERYTHING = """
import importlib, pathlib, sys

root = pathlib.Path(sys.argv[1])
for path in sorted(root.rglob("*.py")):
    parts = path.relative_to(root.parent).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    if not name.endswith("__main__"):
        module = importlib.import_module(name)
        assert pathlib.Path(module.__file__) == path, f"{name} comes from {module.__file__}"
        print(name)
"""


def test_every_module_can_be_imported_from_the_code_that_is_sent_to_workers(tmp_path: Path) -> None:
    installed = {
        ".".join(["spinenas", *path.relative_to(REPOSITORY).with_suffix("").parts]).removesuffix(".__init__")
        for folder in ("space", "results", "controller", "proxy_task", "search")
        for path in (REPOSITORY / folder).rglob("*.py")
        if path.name != "__main__.py"
    }
    with contextlib.ExitStack() as stack:
        staged = _staged_code(stack)
        environment = os.environ | {"PYTHONPATH": str(staged.parent)}  # like a Ray worker
        command = [sys.executable, "-c", IMPORT_EVERYTHING, str(staged)]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert set(done.stdout.split()) == installed
    assert not staged.exists()


def test_a_worker_that_cannot_start_does_not_end_a_search_that_has_another(cluster: Cluster, tmp_path: Path) -> None:
    """The second worker fails at each start; the first one runs all trials."""

    class Once(FakeTask):
        def __reduce__(self) -> Any:
            return _only_once, (str(tmp_path / "marker"),)

    node = cluster.add_node(num_cpus=1)
    said: list[str] = []
    events: list[WorkerEvent] = []
    (tmp_path / "000000").mkdir()
    try:
        with RayExecutor(Once(), configured(), said.append) as executor:
            executor.submit(Job(0, 0, PUBLISHED["spinenet-49"].genotype, 0, None, tmp_path / "000000"))
            while not any("FileExistsError" in text for text in said) or not any(
                isinstance(event, Finished) for event in events
            ):
                executor.wait(events.append, 5)
    finally:
        cluster.remove_node(node)
    assert any(
        re.search(r"worker-\d cannot start and will be tried again: .*FileExistsError", text) for text in said
    ), said


def _only_once(marker: str) -> FakeTask:
    Path(marker).mkdir()
    return FakeTask(epoch_seconds=2.0)


class Sees(FakeTask):
    """Writes down what its worker sees of the storage's variables."""

    def evaluate(self, genotype: Any, *, folder: Path, **named: Any) -> Any:
        (folder / "seen").write_text(os.environ.get("AWS_ENDPOINT_URL", "nothing"))
        return super().evaluate(genotype, folder=folder, **named)


def test_variables_of_object_stores_reach_workers_on_other_machines(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machines of the cluster were started before the variable was set."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.example:9000")
    (tmp_path / "000000").mkdir()
    events: list[WorkerEvent] = []
    with RayExecutor(Sees(), configured(workers=1), print) as executor:
        executor.submit(Job(0, 0, PUBLISHED["spinenet-49"].genotype, 0, None, tmp_path / "000000"))
        while not events or not isinstance(events[-1], Finished):
            executor.wait(events.append, None)
    assert (tmp_path / "000000" / "seen").read_text() == "http://store.example:9000"
