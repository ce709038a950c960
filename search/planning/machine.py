"""Checks that one machine has everything a search needs, and measures a few training steps there."""

from __future__ import annotations

import contextlib
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spinenas.proxy_task.config import BUILT_IN
from spinenas.proxy_task.data.annotation_files.layout import find_split
from spinenas.proxy_task.task import ProxyTask
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
class Check:
    """One check of a machine.

    Attributes:
        name: what was checked.
        finding: what was found; the problem if it did not pass.
        passed: whether a search can run.
        seconds: what was measured or predicted, if it is a time.
        word: result of a check that passed: "ok", "warning" or "predicted".
    """

    name: str
    finding: str
    passed: bool = True
    seconds: float | None = None
    word: Literal["ok", "warning", "predicted"] = "ok"


@dataclass(frozen=True, slots=True)
class MachineReport:
    """Result of the checks on one machine.

    Attributes:
        name: host name and resources.
        problems: one sentence for each problem that would stop a search.
        device: device type that trials would run on.
        dtype: number format that trials would train in.
        probe: measured cost of a trial; None if the measurement failed.
        notes: one sentence for each finding that would not stop a search.
        room: number of workers that all machines of this kind hold together; None without a cluster.
        findings: one sentence for each thing that was found in the data.
        traceback: of an unexpected exception in the measurement, else empty.
        checks: in the order of the table; empty if the machine could not be checked.
    """

    name: str
    problems: tuple[str, ...] = ()
    device: str | None = None
    dtype: str | None = None
    probe: Probe | None = None
    notes: tuple[str, ...] = ()
    room: int | None = None
    findings: tuple[str, ...] = ()
    traceback: str = ""
    checks: tuple[Check, ...] = ()

    def rows(self) -> list[dict[str, Any]]:
        """Return a table row for each check."""
        checks = self.checks or tuple(Check("worker", problem, passed=False) for problem in self.problems)
        return [
            {
                "machine": self.name,
                "check": check.name,
                "result": check.word if check.passed else "problem",
                "seconds": check.seconds,
                "finding": check.finding,
            }
            for check in checks
        ]


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
    config = request.config
    mirror, command = config.storage.mirror, config.executor.data_command
    checks = [_check_versions(request)]
    if mirror is None:
        checks.append(_tried("storage", partial(_check_storage, request.storage)))
    else:
        checks.append(_tried("mirror", partial(check_mirror, mirror)))
    if command is not None:
        checks.append(_tried("data command", partial(run_once_per_machine, command, request.session)))
    report = MachineReport(name)
    trying = "data"
    try:
        task = proxy_task(config)
        if isinstance(task, ProxyTask):
            task.check_batch()
            trying = "cache space"
            checks.append(Check(trying, task.cache_space()))
            trying = "data"
        task.prepare()
        found_in_data = data_findings(task)
        findings = tuple(finding["sentence"] for finding in found_in_data)
        checks.append(_data_check(found_in_data))
        trying = "training step"
        found: Probe = task.probe(request.genotype)  # type: ignore[attr-defined]
        seconds = _seconds_by_format(task, request.genotype, found)
        checks.append(Check("dtype", f"{task.dtype} on {task.device}"))
        peak = found.peak_memory_bytes
        memory = "" if peak is None else f"; peak memory {peak / 2**30:.2f} GiB"
        for each in sorted(seconds, key=lambda each: each != task.dtype):
            said = f"in {each}" + (memory if each == task.dtype else ", for comparison")
            checks.append(Check("training step", said, seconds=seconds[each]))
        is_long = found.trial_seconds >= 60
        time = f"{found.trial_seconds / 60:.1f} minutes" if is_long else f"{found.trial_seconds:.1f} seconds"
        checks.append(Check("trial", time, seconds=found.trial_seconds, word="predicted"))
        trying = "one training"
        notes = [*_format_advice(task, seconds)]
        if found.trial_seconds <= request.longest_training_seconds:
            first = first_training(task, request.genotype)
            notes.append(first.sentence)
            word: Literal["ok", "warning"] = "ok" if first.has_learnt else "warning"
            checks.append(Check(trying, first.finding, seconds=first.seconds, word=word))
        elif request.longest_training_seconds:
            notes.append(
                f"one training takes {found.trial_seconds / 60:.0f} minutes and was not tried; add --train to see "
                "whether it learns"
            )
        report = replace(
            report, device=task.device, dtype=task.dtype, probe=found, notes=tuple(notes), findings=findings
        )
    except UserError as error:
        checks.append(Check(trying, str(error), passed=False))
    except Exception as error:
        checks.append(Check(trying, f"a training step fails: {first_line(error)}", passed=False))
        report = replace(report, traceback=traceback.format_exc())
    problems = tuple(check.finding for check in checks if not check.passed)
    return replace(report, problems=problems, checks=tuple(checks))


def _data_check(findings: Sequence[Mapping[str, Any]]) -> Check:
    """Return the row of the data; a warning if there is something to do about a finding."""
    words = f"{len(findings)} finding{'s' if len(findings) > 1 else ''}" if findings else "complete"
    return Check("data", words, word="warning" if any(finding["advice"] for finding in findings) else "ok")


def _check_versions(request: CheckRequest) -> Check:
    installed = versions()
    differing = [
        f"{package} is {installed[package]}, the driver has {version}"
        for package, version in request.versions.items()
        # Code that was sent to a worker has no version there; it equals the driver's.
        if installed[package] != version and not (package == "spinenas" and request.config.executor.ship_code)
    ]
    return Check("versions", "; ".join(differing) or "those of the driver", passed=not differing)


def _tried(name: str, check: Callable[[], None]) -> Check:
    try:
        check()
    except UserError as error:
        return Check(name, str(error), passed=False)
    return Check(name, "can be written" if name != "data command" else "succeeded")


def check_here(config: SearchConfig) -> None:
    """Check on this machine, the quickest first, what a search needs of it: data, mirror, and images for a batch.

    Raises UserError.
    """
    data = config.task.data
    if data.folder != BUILT_IN or data.train_annotations is not None:
        find_split(data, "train")
    if config.storage.mirror is not None:
        check_mirror(config.storage.mirror)
    task = proxy_task(config)
    if isinstance(task, ProxyTask):
        task.check_batch()


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
