"""Checks before a search, and the estimate of its size."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from click.testing import CliRunner
from fake_task import FakeTask

import spinenas.search.executors.local_cpus as local_cpus
import spinenas.search.executors.ray_session as ray_session_module
import spinenas.search.planning.machine as machine_module
import spinenas.search.planning.ray_preflight as ray_preflight
from spinenas.proxy_task.config import DataConfig, TaskConfig, TrainConfig
from spinenas.proxy_task.data.findings import Finding
from spinenas.proxy_task.data.synthetic import generate_dataset
from spinenas.proxy_task.probe import Probe
from spinenas.proxy_task.task import ProxyTask
from spinenas.results.record import Evaluation, Failure, FailureKind
from spinenas.search.cli.main import main
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.controllers import ControllerConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.parts import BudgetConfig, StorageConfig
from spinenas.search.executors.data_command import this_session
from spinenas.search.executors.ray_resources import num_fitting
from spinenas.search.executors.ray_session import packed_share
from spinenas.search.planning.estimate import estimate
from spinenas.search.planning.first_training import judgement
from spinenas.search.planning.machine import Check, CheckRequest, MachineReport, check_machine, probed_genotype
from spinenas.search.planning.preflight import preflight
from spinenas.search.run.lifecycle import run_search
from spinenas.space import SCALINGS, UserError
from spinenas.space.head import HeadConfig

COST = "cost by budget.price_per_accelerator_hour"


class Probed(FakeTask):
    """A task whose probe predicts two minutes per trial."""

    def probe(self, genotype: Any) -> Probe:
        return Probe(step_seconds=0.5, detect_seconds=0.1, trial_seconds=120.0, peak_memory_bytes=3 * 2**30)

    def check_batch(self) -> None:
        """A fake task has images enough."""


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> Probed:
    task = Probed()
    monkeypatch.setattr(machine_module, "proxy_task", lambda config: task)
    return task


def configured(**executor: Any) -> SearchConfig:
    return SearchConfig(executor=ExecutorConfig(**{"kind": "serial", **executor}), budget=BudgetConfig(30))


def request(config: SearchConfig, storage: Path, **versions: str) -> CheckRequest:
    return CheckRequest(config, machine_module.versions() | versions, storage, probed_genotype(config), this_session())


def small_task(folder: Path, epochs: int) -> TaskConfig:
    """Return a task on 24 generated images, with its cache in the folder `cache`."""
    generate_dataset(folder / "data", num_train=24, num_val=4, image_size_pixels=96, seed=1)
    return TaskConfig(
        data=DataConfig(folder=str(folder / "data"), held_out_images=8, cache_folder=str(folder / "cache")),
        image_size_pixels=96,
        scaling=replace(SCALINGS["49"], filter_scale=0.0625),
        head=HeadConfig(num_convs=1, channels=8),
        train=TrainConfig(epochs=epochs, batch_size=4),
    )


def test_a_real_task_is_probed(tmp_path: Path) -> None:
    task = ProxyTask(small_task(tmp_path, epochs=4))
    probe = task.probe(probed_genotype(SearchConfig()))
    assert probe.step_seconds > 0
    assert probe.trial_seconds >= 16 * probe.step_seconds, "four epochs of four steps"
    assert probe.peak_memory_bytes


def test_a_capable_machine_has_no_problem(probed: Probed, tmp_path: Path) -> None:
    (machine,), accelerators = preflight(configured(), tmp_path / "run", print)
    assert accelerators == 1.0
    assert machine.problems == ()
    rows = [(row["check"], row["result"], row["seconds"], row["finding"]) for row in machine.rows()]
    assert rows == [
        ("versions", "ok", None, "those of the driver"),
        ("storage", "ok", None, "can be written"),
        ("data", "ok", None, "complete"),
        ("dtype", "ok", None, "float32 on cpu"),
        ("training step", "ok", 0.5, "in float32; peak memory 3.00 GiB"),
        ("trial", "predicted", 120.0, "2.0 minutes"),
    ]
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_each_problem_is_reported(probed: Probed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(genotype: Any) -> Probe:
        raise ZeroDivisionError("division by zero")

    config = configured(data_command="echo no such bucket; false")
    monkeypatch.setattr(probed, "probe", broken)
    machine = check_machine(request(config, tmp_path / "unseen" / "x", torch="1.0"), "a machine")
    words = ["torch is 2", "the driver has 1.0", "does not see", "status 1 (no such bucket)", "a training step fails"]
    assert all(word in " / ".join(machine.problems) for word in words)
    assert len(machine.problems) == 4
    assert machine.probe is None

    def unprepared(**_: Any) -> None:
        raise UserError("the data folder is empty")

    monkeypatch.setattr(probed, "prepare", unprepared)
    assert check_machine(request(configured(), tmp_path), "a machine").problems == ("the data folder is empty",)


def test_the_space_of_the_image_cache_is_a_check_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = small_task(tmp_path, epochs=1)
    asked = request(replace(configured(), task=task), tmp_path)
    found = {row["check"]: row for row in check_machine(asked, "a machine").rows()}
    assert re.fullmatch(
        rf"the image cache needs 0.000664 GB, {tmp_path / 'cache'} has [\d.e+]+ free", found["cache space"]["finding"]
    )
    again = {row["check"]: row["finding"] for row in check_machine(asked, "a machine").rows()}
    assert again["cache space"] == f"{tmp_path / 'cache'} holds the image cache (0.000664 GB)"
    assert list(again)[-2:] == ["training step", "trial"]

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    elsewhere = replace(task, data=replace(task.data, cache_folder=str(tmp_path / "full disk" / "cache")))
    full = check_machine(request(replace(configured(), task=elsewhere), tmp_path), "a machine")
    assert [row["result"] for row in full.rows() if row["check"] == "cache space"] == ["problem"]
    assert "needs 0.000664 GB" in full.problems[0]
    assert "SPINENAS_CACHE" in full.problems[0]


def test_a_mirror_is_written_and_read(probed: Probed, tmp_path: Path) -> None:
    config = replace(configured(), storage=StorageConfig((tmp_path / "mirror").as_uri()))
    assert check_machine(request(config, tmp_path / "unseen"), "a machine").problems == ()
    assert not [path for path in (tmp_path / "mirror").rglob("*") if path.is_file()]
    config = replace(configured(), storage=StorageConfig("nowhere://bucket"))
    assert "cannot be opened" in check_machine(request(config, tmp_path), "a machine").problems[0]


@pytest.mark.parametrize(
    ("executor", "budget", "expected"),
    [
        ({}, {}, {"hours": "1.00", "worker hours": "1.00"}),
        (
            {"kind": "ray", "workers": 4},
            {"price_per_accelerator_hour": 2.5},
            {"workers": "4", "minutes": "15.0", "worker hours": "1.00", COST: "2.50"},
        ),
        (
            {"kind": "ray", "workers": 4, "gpus_per_worker": 0.5},
            {"max_accelerator_hours": 0.25, "price_per_accelerator_hour": 2.0},
            {"trials": "15", "workers": "4", "minutes": "7.5", "worker minutes": "15.0", COST: "0.50"},
        ),
    ],
)
def test_the_size_of_a_search_is_estimated_from_one_machine(
    executor: dict[str, Any], budget: dict[str, Any], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(**executor)
    config = replace(config, budget=replace(config.budget, **budget))
    probe = Probed().probe(None)
    machine = MachineReport("a machine", device="cpu", probe=probe)
    accelerators = config.executor.gpus_per_worker or 1.0
    monkeypatch.setattr(
        "spinenas.search.planning.estimate.preflight", lambda config, out, note: ([machine], accelerators)
    )
    found = estimate(config, Path("run"), print)
    common = {"trials": "30", "workers": "1", "minutes for each": "2.00", "measured on": "a machine (cpu)"}
    assert found == common | expected


def test_workers_beyond_the_cpus_of_this_machine_are_said_and_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_cpus, "num_cpus_here", lambda: 2)
    monkeypatch.setattr("spinenas.search.planning.estimate.num_cpus_here", lambda: 2)
    config = configured(kind="ray", workers=2000)
    assert local_cpus.num_workers_here(config.executor) == 2
    assert local_cpus.num_workers_here(replace(config.executor, threads_per_trial=4)) == 1
    machine = MachineReport("a machine", device="cpu", probe=Probed().probe(None), room=2)
    monkeypatch.setattr("spinenas.search.planning.estimate.preflight", lambda config, out, note: ([machine], 1.0))
    found = estimate(config, Path("run"), print)
    assert found["workers"] == "2 of 2000 fit the 2 CPUs here"
    assert found["minutes"] == "30.0", "of the two workers that fit"


def test_preflight_starts_no_more_workers_than_fit_and_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    @contextmanager
    def session(config: ExecutorConfig, note: Any) -> Iterator[float]:
        asked.append(config.workers)
        yield 0.0

    node = {"NodeID": "ab" * 28, "Alive": True, "NodeManagerHostname": "here", "Resources": {"CPU": 3.0}}
    ready = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *_: "reference"))
    monkeypatch.setattr(local_cpus, "num_cpus_here", lambda: 3)
    monkeypatch.setattr(ray_preflight, "num_cpus_here", lambda: 3)
    monkeypatch.setattr(ray_preflight, "ray_session", session)
    monkeypatch.setattr(
        ray_preflight,
        "ray",
        SimpleNamespace(
            nodes=lambda: [node],
            remote=lambda _: ready,
            wait=lambda *_, **__: ([1], []),
            get=lambda _: MachineReport("here", checks=(Check("data", "complete"),)),
        ),
    )
    (machine,), _ = ray_preflight.check_cluster(request(configured(kind="ray", workers=9), tmp_path), print)
    assert asked == [3]
    assert machine.room == 3
    row = machine.rows()[-1]
    assert (row["check"], row["result"], row["finding"]) == ("workers", "warning", "3 of 9 fit the 3 CPUs here")


@pytest.mark.parametrize(("advice", "word"), [("give val other pictures", "warning"), ("", "ok")])
def test_the_row_of_the_data_is_a_warning_if_there_is_something_to_do(
    probed: Probed, tmp_path: Path, advice: str, word: str
) -> None:
    probed.findings = lambda: [Finding("boxes", 1, advice=advice)]  # type: ignore[attr-defined]
    (row,) = (row for row in check_machine(request(configured(), tmp_path), "x").rows() if row["check"] == "data")
    assert (row["result"], row["finding"]) == (word, "1 finding")


def test_the_commands_print_the_findings(probed: Probed, tmp_path: Path) -> None:
    serial = ["--set", "executor.kind=serial"]
    result = CliRunner().invoke(main, ["preflight", "quickstart", "--out", str(tmp_path / "run"), *serial])
    assert result.exit_code == 0, result.output
    assert "3.00 GiB" in result.stdout
    result = CliRunner().invoke(
        main,
        ["preflight", "quickstart", "--out", str(tmp_path / "run"), *serial, "--set", "executor.data_command=exit 1"],
    )
    assert result.exit_code == 1
    assert "executor.data_command 'exit 1' ended with status 1" in result.stderr
    assert "Traceback" not in result.stderr
    result = CliRunner().invoke(main, ["search", "quickstart", "--dry-run", "--out", str(tmp_path / "run"), *serial])
    assert result.exit_code == 0, result.output
    facts = dict(line.rsplit("  ", 1) for line in result.stdout.splitlines())
    facts = {name.strip(): value for name, value in facts.items()}
    assert facts["worker minutes"] == "24.0", "a CPU is no accelerator"
    assert COST not in facts, "a CPU without a price has no cost"
    assert list(tmp_path.iterdir()) == []


def test_hours_on_an_accelerator_are_accelerator_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = MachineReport("a machine", device="cuda", probe=Probed().probe(None), room=3)
    monkeypatch.setattr("spinenas.search.planning.estimate.preflight", lambda config, out, note: ([machine], 1.0))
    config = configured(kind="ray", workers=4, address="auto")
    found = estimate(config, Path("run"), print)
    assert found["accelerator hours"] == "1.00"
    assert "worker hours" not in found
    assert found["workers"] == "3 of 4 fit this cluster"
    assert found["minutes"] == "20.0", "of three workers"
    assert found[COST] == "no price given"


def test_a_dry_run_refuses_a_folder_or_a_mirror_that_holds_a_run(
    probed: Probed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(configured(), storage=StorageConfig((tmp_path / "mirror").as_uri()), budget=BudgetConfig(2))
    run_search(config, out=tmp_path / "run", task=Probed())
    with pytest.raises(UserError, match="already holds a run"):
        estimate(config, tmp_path / "run", print)
    with pytest.raises(UserError, match="already holds a run; resume it with --or-resume, or give another storage"):
        estimate(config, tmp_path / "other", print)
    assert estimate(config, tmp_path / "run", print, or_resume=True)["trials"] == "2"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (DataConfig(folder="/nowhere"), "which does not exist"),
        (DataConfig(folder=""), "no data set is named"),
    ],
)
def test_what_this_machine_lacks_is_said_before_a_worker_is_waited_for(
    data: DataConfig, words: str, probed: Probed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waiting(*_: Any) -> Any:
        raise AssertionError("a worker was waited for")

    monkeypatch.setattr("spinenas.search.planning.ray_preflight.check_cluster", waiting)
    config = configured(kind="ray", address="127.0.0.1:1")
    with pytest.raises(UserError, match=words):
        preflight(replace(config, task=replace(config.task, data=data)), tmp_path, print)
    with pytest.raises(UserError, match="cannot be opened"):
        preflight(replace(config, storage=StorageConfig("nowhere://bucket")), tmp_path, print)


def test_a_batch_larger_than_the_training_set_is_refused_by_both_commands(tmp_path: Path) -> None:
    generate_dataset(tmp_path / "data", num_train=24, num_val=4, image_size_pixels=96, seed=1)
    given = ["quickstart", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    given += ["--set", f"task.data.cache_folder={tmp_path / 'cache'}", "--set", "task.train.batch_size=64"]
    for command in (["preflight", *given], ["search", *given, "--dry-run"]):
        result = CliRunner().invoke(main, [*command, "--set", "executor.kind=serial"])
        assert result.exit_code == 1
        assert "batch" in result.stderr
        assert "task.train.batch_size" in result.stderr


def test_preflight_judges_a_task_by_one_training(probed: Probed, tmp_path: Path) -> None:
    given = ["preflight", "quickstart", "--out", str(tmp_path / "run"), "--set", "executor.kind=serial"]
    result = CliRunner().invoke(main, given)
    assert "this machine: one training reached AP 0." in result.stderr
    assert "the loss fell (1 to 0.5)" in result.stderr
    assert re.search(r"one training +ok +[\d.e-]+ +reached AP 0\.", result.stdout)
    probed.scale = 0.0
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 0
    assert (
        "WARNING: one training learnt nothing that can be measured (AP 0.0000), although the loss fell" in result.stderr
    )
    assert "task.train.epochs" in result.stderr
    assert re.search(r"one training +warning +[\d.e-]+ +learnt nothing \(AP 0\.0000\)", result.stdout)
    result = CliRunner().invoke(main, [*given, "--no-train"])
    assert "one training" not in result.stderr
    (machine,), _ = preflight(configured(), tmp_path / "run", print, longest_training_seconds=100.0)
    assert machine.notes == ("one training takes 2 minutes and was not tried; add --train to see whether it learns",)


@pytest.mark.parametrize(
    ("objective", "losses", "words"),
    [
        (0.2, [1.0, 0.5], "one training reached AP 0.2000 and the loss fell (1 to 0.5)"),
        (0.2, [0.5], "one training reached AP 0.2000"),
        (0.2, [0.5, 0.6], "a lower task.train.learning_rate may train better"),
        (0.0, [0.5, 0.6], "the loss did not fall (0.5 to 0.6); lower task.train.learning_rate"),
        (0.0, [0.5], "a search would have nothing to rank: train longer"),
    ],
)
def test_one_training_is_judged_by_its_ap_and_its_losses(objective: float, losses: list[float], words: str) -> None:
    assert words in judgement(Evaluation(objective), losses)


def test_a_training_that_fails_is_said() -> None:
    assert judgement(Failure(FailureKind.DIVERGED, "the loss is nan"), []) == (
        "WARNING: one training failed (diverged): the loss is nan"
    )


def test_a_step_is_timed_in_both_number_formats_and_the_faster_one_advised(
    probed: Probed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def seconds_in_format(genotype: Any, dtype: str) -> float:
        asked.append(dtype)
        return 0.1

    probed.dtype = "bfloat16"
    monkeypatch.setattr(probed, "seconds_in_format", seconds_in_format, raising=False)
    (machine,), _ = preflight(configured(), tmp_path / "run", print)
    assert asked == ["float32"]
    steps = {row["finding"].split()[1].strip(";,"): row["seconds"] for row in machine.rows() if "step" in row["check"]}
    assert steps == {"float32": 0.1, "bfloat16": 0.5}
    assert machine.notes == (
        "a training step takes 5.0 times as long in bfloat16 as in float32; set task.train.dtype=float32",
    )


@pytest.mark.parametrize(
    ("request_", "machines", "expected"),
    [
        ({"CPU": 2.0}, [{"CPU": 5.0}, {"CPU": 1.0}, {"CPU": 2.0}], 3),
        ({"CPU": 1.0, "GPU": 0.33}, [{"CPU": 16.0, "GPU": 1.0}], 3),
        ({"CPU": 1.0, "GPU": 1.0}, [{"CPU": 16.0}], 0),
    ],
)
def test_workers_that_fit_are_counted_machine_by_machine(
    request_: dict[str, float], machines: list[dict[str, float]], expected: int
) -> None:
    assert num_fitting(request_, machines) == expected


@pytest.fixture
def two_kinds() -> Iterator[None]:
    """Two machines of one kind and one of another, with a head that runs nothing."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for num_cpus in (1, 1, 2):
        cluster.add_node(num_cpus=num_cpus)
    ray.init(address=cluster.address, log_to_driver=False)
    yield
    ray.shutdown()
    cluster.shutdown()


def test_one_machine_of_each_kind_is_tried(two_kinds: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import spinenas.search.planning.ray_preflight as ray_preflight

    def stand_in(request: Any, name: str, gpus: float) -> Any:
        import os

        from spinenas.search.planning.machine import MachineReport

        return MachineReport(name, () if "2 CPU" in name else (f"process {os.getpid()} is not content",))

    monkeypatch.setattr(ray_preflight, "_check_worker", stand_in)
    monkeypatch.setattr(machine_module, "proxy_task", lambda config: Probed())
    said: list[str] = []
    machines, accelerators = preflight(configured(kind="ray", workers=9, address="auto"), tmp_path, said.append)
    assert any("4 of 9 workers fit this cluster" in text for text in said)
    assert sorted(machine.room or 0 for machine in machines) == [2, 2]
    assert accelerators == 1.0
    assert sorted(machine.name.partition("(")[2] for machine in machines) == ["1 CPU)", "2 CPU)"]
    assert [len(machine.problems) for machine in machines].count(1) == 1
    assert sum(text.startswith("checking ") for text in said) == 2
    with pytest.raises(UserError, match="no machine of the cluster has 9 CPU"):
        preflight(configured(kind="ray", workers=1, cpus_per_worker=9.0, address="auto"), tmp_path, said.append)


@pytest.mark.parametrize(("trial", "gpu", "share"), [(4.0, 80.0, 0.05), (30.0, 80.0, 0.38), (80.0, 80.0, 1.0)])
def test_trials_are_packed_by_memory(trial: float, gpu: float, share: float) -> None:
    assert packed_share(trial, gpu) == share
    assert share * gpu >= trial


@pytest.mark.parametrize(("num_workers", "share"), [(1, 1.0), (8, 1.0), (16, 0.5), (24, 0.33)])
def test_a_worker_reserves_its_share_of_the_gpus_and_at_most_one(
    num_workers: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 64.0, "GPU": 8.0})
    assert ray_session_module._gpus_per_worker(ExecutorConfig(workers=num_workers), print) == share


def test_the_smallest_gpu_counts_and_one_that_is_too_small_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"Alive": True, "NodeID": str(n), "Resources": {"GPU": 1.0} if n else {}} for n in range(3)]
    sizes = iter([24.0, 80.0])
    remote = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: next(sizes)))
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "remote", lambda function: remote)
    monkeypatch.setattr(ray, "get", lambda values, timeout: values)
    monkeypatch.setattr(ray_session_module, "NodeAffinitySchedulingStrategy", lambda node_id, soft: node_id)
    assert ray_session_module._gpu_memory_gib(10.0) == 24.0
    with pytest.raises(UserError, match=r"gpu_memory_gib is 30, and the cluster has a GPU with 24.0 GiB"):
        packed_share(30.0, 24.0)
    monkeypatch.setattr(ray, "nodes", lambda: nodes[:1])
    with pytest.raises(UserError, match="no GPU now"):
        ray_session_module._gpu_memory_gib(10.0)


def test_the_size_of_a_search_that_pauses_trainings_is_in_epochs(
    probed: Probed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(
        configured(),
        controller=ControllerConfig("freeze-thaw"),
        budget=BudgetConfig(epochs=62),
        task=TaskConfig(train=TrainConfig(epochs=5)),
    )
    found = estimate(config, tmp_path / "run", print)
    assert "trainings pause after epochs 1 and 3 of 5" in capsys.readouterr().out
    assert found["epochs"] == "62"
    assert found["whole-training equivalents"] == "12.4"
    assert found["minutes for a whole training"] == "2.00"
    assert found["minutes"] == f"{12.4 * 2:.1f}"
    limited = estimate(
        replace(config, budget=replace(config.budget, max_accelerator_hours=0.1)), tmp_path / "run", print
    )
    assert limited["epochs"] == "15"
    assert "ends earlier if it has used 0.1 accelerator-hours" in capsys.readouterr().out
