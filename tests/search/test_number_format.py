"""The number format "auto": chosen once by the machine's capability, kept by the run, and said."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_task import FakeTask, FakeValTask

import spinenas.proxy_task.task as task_module
import spinenas.proxy_task.training.device as device_module
from spinenas.proxy_task.task import ProxyTask
from spinenas.proxy_task.training.device import bfloat16_support, choose_dtype
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.loading import stored_config
from spinenas.search.config.parts import BudgetConfig
from spinenas.search.config.presets import PRESETS, preset
from spinenas.search.executors.base import Job, Remark
from spinenas.search.executors.worker import run_job
from spinenas.search.monitoring.base import Display
from spinenas.search.run.components import with_dtype
from spinenas.search.run.lifecycle import resume, run_search
from spinenas.search.run.or_resume import search_or_resume
from spinenas.search.studies.replay import replay
from spinenas.space.published import SPINENET_49

CPU = torch.device("cpu")


class Said(Display):
    """Keeps the notes of a run."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def on_machine(monkeypatch: pytest.MonkeyPatch, support: str | None) -> None:
    """Let this machine have the given bfloat16 instructions, or none."""
    for module in (device_module, task_module):
        monkeypatch.setattr(module, "bfloat16_support", lambda device: support)


def configured(dtype: Any = "auto", **executor: Any) -> SearchConfig:
    config = replace(
        preset("digits"), budget=BudgetConfig(4), executor=ExecutorConfig(**{"kind": "serial", **executor})
    )
    return replace(config, task=replace(config.task, train=replace(config.task.train, dtype=dtype)))


def dtype_of(path: Path) -> str:
    from spinenas.search.run.run import Run

    return stored_config(Run.open(path).folder.config()).task.train.dtype


def test_auto_is_bfloat16_only_where_the_device_has_it() -> None:
    assert choose_dtype("auto", CPU, lambda device: "AMX") == "bfloat16"
    assert choose_dtype("auto", CPU, lambda device: None) == "float32"
    assert choose_dtype("bfloat16", CPU, lambda device: None) == "bfloat16", "what the user chose stays"
    assert choose_dtype("float32", CPU, lambda device: "AMX") == "float32"


@pytest.mark.parametrize(
    ("amx", "avx512", "limit", "expected"),
    [
        (True, True, None, "AMX"),
        (False, True, None, "AVX512-BF16"),
        (False, False, None, None),
        (True, True, "AVX2", None),
        (True, True, "avx512_core_amx", "AMX"),
    ],
)
def test_a_cpu_needs_instructions_for_bfloat16(
    amx: bool, avx512: bool, limit: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    if limit is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert bfloat16_support(CPU) == expected


@pytest.mark.parametrize(
    ("kind", "supported"), [("cuda", True), ("cuda", False), ("xpu", True), ("other", True), ("mps", None)]
)
def test_an_accelerator_is_asked_whether_it_has_bfloat16(
    kind: str, supported: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, bool]] = []

    def is_bf16_supported(**options: bool) -> bool:
        if kind == "other" and options:
            raise TypeError("unexpected keyword argument")
        asked.append(options)
        return bool(supported)

    module = SimpleNamespace(get_device_name=lambda device: "a device")
    if supported is not None:
        module.is_bf16_supported = is_bf16_supported
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    assert bfloat16_support(SimpleNamespace(type=kind)) == ("a device" if supported else None)
    assert asked == ([] if supported is None else [{} if kind == "other" else {"including_emulation": False}])


def test_a_task_with_auto_is_the_task_of_the_format_it_becomes_and_stays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = configured().task
    monkeypatch.setattr(ProxyTask, "fingerprint", {"data": 1})
    keys = {name: ProxyTask(configured(name).task).key for name in ("float32", "bfloat16")}
    on_machine(monkeypatch, None)
    slow = ProxyTask(auto)
    assert (slow.dtype, slow.key) == ("float32", keys["float32"])
    sent = pickle.dumps(slow)
    on_machine(monkeypatch, "AMX")
    assert (ProxyTask(auto).dtype, ProxyTask(auto).key) == ("bfloat16", keys["bfloat16"])
    assert pickle.loads(sent).dtype == "float32", "another machine trains the run's format"


def test_the_presets_of_slow_trainings_choose_by_the_machine_and_the_quickstart_stays() -> None:
    assert {name: config.task.train.dtype for name, config in PRESETS.items()} == {
        "quickstart": "float32",
        "digits": "auto",
        "coco-small": "auto",
        "spinenet49-proxy": "auto",
    }


def test_a_run_keeps_the_format_of_the_machine_that_began_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, None)
    said = Said()
    run = run_search(configured(), out=tmp_path / "run", task=FakeTask(), display=said)
    assert any(note.startswith("task.train.dtype is auto: float32, as ") for note in said.notes)
    assert dtype_of(tmp_path / "run") == run.folder.run_info()["dtype"] == "float32"
    on_machine(monkeypatch, "AMX")
    resume(tmp_path / "run", num_trials=5, task=FakeTask())
    longer = replace(configured(), budget=BudgetConfig(6))
    assert len(search_or_resume(longer, out=tmp_path / "run", task=FakeTask()).records()) == 6
    assert dtype_of(tmp_path / "run") == "float32"


def test_the_command_of_a_run_in_bfloat16_resumes_it_on_any_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_search(configured("bfloat16"), out=tmp_path / "run", task=FakeTask())
    on_machine(monkeypatch, None)
    longer = replace(configured(), budget=BudgetConfig(5))
    assert len(search_or_resume(longer, out=tmp_path / "run", task=FakeTask()).records()) == 5
    assert dtype_of(tmp_path / "run") == "bfloat16"


def test_a_replay_continues_in_its_format_on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    formats: list[str] = []

    def task(config: SearchConfig) -> FakeValTask:
        formats.append(config.task.train.dtype)
        return FakeValTask(key=f"task in {config.task.train.dtype}")

    monkeypatch.setattr("spinenas.search.studies.replay.proxy_task", task)
    for support in ("AMX", None):
        on_machine(monkeypatch, support)
        replay(SPINENET_49, configured(), name="spinenet-49", out=tmp_path / "run", display=Said())
        (tmp_path / "run" / "replay.json").unlink()
    assert formats == ["bfloat16", "bfloat16"]


def test_workers_with_accelerators_that_this_machine_lacks_train_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, None)
    monkeypatch.setattr(device_module, "choose_device", lambda: CPU)
    said: list[str] = []
    config = with_dtype(configured(kind="ray", gpus_per_worker=1.0, address="auto"), note=said.append)
    assert config.task.train.dtype == "bfloat16"
    assert "the workers have accelerators" in said[0]
    config = with_dtype(configured(kind="ray", address="auto"), note=said.append)
    assert config.task.train.dtype == "float32"
    assert "workers of the cluster may differ" in said[1]
    assert with_dtype(configured("bfloat16"), note=said.append).task.train.dtype == "bfloat16"
    assert len(said) == 2, "nothing is said of a format that the user chose"


def test_a_worker_without_the_instructions_says_once_that_it_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(monkeypatch, None)
    remark = ProxyTask(configured("bfloat16").task).remark
    assert remark is not None
    assert "has no instructions for bfloat16" in remark
    assert ProxyTask(configured("float32").task).remark is None
    task = FakeTask()
    task.remark = remark  # type: ignore[attr-defined]
    events: list[Any] = []
    for number in (0, 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        run_job(task, Job(number, 0, SPINENET_49, 0, None, folder), "worker-3", events.append)
    assert [event.text for event in events if isinstance(event, Remark)] == [f"worker-3: {remark}"]
    on_machine(monkeypatch, "AMX")
    assert ProxyTask(configured("bfloat16").task).remark is None
