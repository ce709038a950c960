"""Checks that one machine has everything a search needs, and measures a few training steps there."""

from __future__ import annotations

import contextlib
import traceback
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spinenas.proxy_task.config import BUILT_IN
from spinenas.proxy_task.data.layout import find_split
from spinenas.results.storage.object_store import Store
from spinenas.search.config.config import SearchConfig
from spinenas.search.executors.base import Task
from spinenas.search.executors.data_command import run_once_per_machine
from spinenas.search.executors.storage_variables import StorageVariables, storage_variables
from spinenas.search.planning.first_training import first_training
from spinenas.search.run.components import data_findings, proxy_task
from spinenas.search.run.identity import versions
from spinenas.space.errors import UserError, explained_os_errors, first_line
from spinenas.space.genotype import Genotype
from spinenas.space.published import SPINENET_49
from spinenas.space.search_space import space_by_name

if TYPE_CHECKING:
    from spinenas.proxy_task.probe import Probe


FORMATS: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")

SLOW_STEP_SECONDS = 20.0
"""If a step takes longer, the other number format is not tried, which may take several times as long."""

MUCH_FASTER = 1.3
"""A number format this many times as fast as the chosen one is recommended."""


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What to check on a machine.

    Attributes:
        config: configuration of the search.
        versions: package versions of the driver; the machine must have the same.
        storage: a folder that the driver made beside the future run; the machine must be able to write to it.
        genotype: the genotype to train for a few steps.
        session: identifies the driver, so that the data command runs once per session.
        longest_training_seconds: train once, and judge the task by it, if that is predicted to take at most this long.
        variables: of the driver, for object stores.
    """

    config: SearchConfig
    versions: dict[str, str]
    storage: Path
    genotype: Genotype
    session: str
    longest_training_seconds: float = 0.0
    variables: StorageVariables = field(default_factory=storage_variables)


@dataclass(frozen=True, slots=True)
class MachineReport:
    """Result of the checks on one machine.

    Attributes:
        name: host name and resources.
        problems: one sentence for each problem that would stop a search.
        device: device type that trials would run on.
        dtype: number format that trials would train in.
        probe: measured cost of a trial; None if the measurement failed.
        step_seconds: time of a training step by number format, for those that were measured.
        notes: one sentence for each finding that would not stop a search.
        room: number of workers that all machines of this kind hold together; None without a cluster.
        findings: one sentence for each thing that was found in the data.
        traceback: of an unexpected exception in the measurement, else empty.
    """

    name: str
    problems: tuple[str, ...] = ()
    device: str | None = None
    dtype: str | None = None
    probe: Probe | None = None
    step_seconds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    room: int | None = None
    findings: tuple[str, ...] = ()
    traceback: str = ""

    def row(self) -> dict[str, Any]:
        """Return a table row."""
        probe = self.probe
        return {
            "machine": self.name,
            "device": self.device,
            "dtype": self.dtype,
            "step_seconds": probe and probe.step_seconds,
            **{f"{name}_step": self.step_seconds.get(name) for name in FORMATS},
            "trial_minutes": probe and probe.trial_seconds / 60,
            "peak_memory": probe and probe.peak_memory_bytes,
            "problems": len(self.problems),
        }


def probed_genotype(config: SearchConfig) -> Genotype:
    """Return the genotype to measure: SpineNet-49 if the space contains it, else a sample of the space."""
    from spinenas.space.random_streams import generator

    space = space_by_name(config.space.name)
    with contextlib.suppress(UserError):
        space.check(SPINENET_49)
        return SPINENET_49
    return space.sample(generator(0, "preflight"))


def check_machine(request: CheckRequest, name: str) -> MachineReport:
    """Check this machine."""
    config, installed = request.config, versions()
    problems = [
        f"{package} is {installed[package]}, the driver has {version}"
        for package, version in request.versions.items()
        # Code that was sent to a worker has no version there; it equals the driver's.
        if installed[package] != version and not (package == "spinenas" and config.executor.ship_code)
    ]
    mirror, command = config.storage.mirror, config.executor.data_command
    checks = [partial(_check_storage, request.storage) if mirror is None else partial(check_mirror, mirror)]
    if command is not None:
        checks.append(partial(run_once_per_machine, command, request.session))
    for check in checks:
        try:
            check()
        except UserError as error:
            problems.append(str(error))
    try:
        task = proxy_task(config)
        task.prepare()
        findings = tuple(finding["sentence"] for finding in data_findings(task))
        found: Probe = task.probe(request.genotype)  # type: ignore[attr-defined]
        seconds = _seconds_by_format(task, request.genotype, found)
        notes = [*_format_advice(task, seconds)]
        if found.trial_seconds <= request.longest_training_seconds:
            notes.append(first_training(task, request.genotype))
        elif request.longest_training_seconds:
            notes.append(
                f"one training takes {found.trial_seconds / 60:.0f} minutes and was not tried; add --train to see "
                "whether it learns"
            )
        return MachineReport(
            name, tuple(problems), task.device, task.dtype, found, seconds, tuple(notes), findings=findings
        )
    except UserError as error:
        return MachineReport(name, (*problems, str(error)))
    except Exception as error:
        said = f"a training step fails: {first_line(error)}"
        return MachineReport(name, (*problems, said), traceback=traceback.format_exc())


def check_here(config: SearchConfig) -> None:
    """Check on this machine, the quickest first, what a search needs of it: data, mirror, and images for a batch.

    Raises UserError.
    """
    data = config.task.data
    if data.folder != BUILT_IN or data.train_annotations is not None:
        find_split(data, "train")
    if config.storage.mirror is not None:
        check_mirror(config.storage.mirror)
    proxy_task(config).check_batch()  # type: ignore[attr-defined]


def _seconds_by_format(task: Task, genotype: Genotype, probe: Probe) -> dict[str, float]:
    """Return the time of a training step in each number format; that of the other one only if it can be measured."""
    seconds = {task.dtype: probe.step_seconds}
    measure = getattr(task, "seconds_in_format", None)
    if measure is not None and probe.step_seconds < SLOW_STEP_SECONDS:
        for name in FORMATS:
            if name not in seconds:
                with contextlib.suppress(RuntimeError):  # a device without this format
                    seconds[name] = measure(genotype, name)
    return seconds


def _format_advice(task: Task, seconds: Mapping[str, float]) -> list[str]:
    fastest = min(seconds, key=seconds.__getitem__)
    ratio = seconds[task.dtype] / seconds[fastest]
    if ratio < MUCH_FASTER:
        return []
    return [
        f"a training step takes {ratio:.1f} times as long in {task.dtype} as in {fastest}; set "
        f"task.train.dtype={fastest}"
    ]


def check_mirror(uri: str) -> None:
    name = f"preflight-{uuid.uuid4().hex}"
    store = Store(uri)
    store.check()
    store.write(name, b"spinenas")
    read = store.read(name)
    store.remove(name)
    if read != b"spinenas":
        raise UserError(f"{uri} does not return what was written there; choose another storage.mirror")


def _check_storage(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(
            f"it does not see {folder.parent}, so that trials could not resume after a lost worker; "
            "put --out on shared storage or give a --mirror"
        )
    with explained_os_errors(f"it cannot write {folder.parent}", "choose another --out"):
        (folder / uuid.uuid4().hex).write_bytes(b"spinenas")
