"""Checks that one machine has everything a search needs, and measures a few training steps there."""

from __future__ import annotations

import contextlib
import traceback
import uuid
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinenas.results.storage.object_store import Store
from spinenas.search.config.config import SearchConfig
from spinenas.search.executors.data_command import run_once_per_machine
from spinenas.search.executors.storage_variables import StorageVariables, storage_variables
from spinenas.search.run.components import proxy_task
from spinenas.search.run.identity import versions
from spinenas.space.errors import UserError, first_line
from spinenas.space.genotype import Genotype
from spinenas.space.published import SPINENET_49
from spinenas.space.search_space import space_by_name

if TYPE_CHECKING:
    from spinenas.proxy_task.probe import Probe


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What to check on a machine.

    Attributes:
        config: configuration of the search.
        versions: package versions of the driver; the machine must have the same.
        storage: a folder that the driver made beside the future run; the machine must be able to write to it.
        genotype: the genotype to train for a few steps.
        session: identifies the driver, so that the data command runs once per session.
        variables: of the driver, for object stores.
    """

    config: SearchConfig
    versions: dict[str, str]
    storage: Path
    genotype: Genotype
    session: str
    variables: StorageVariables = field(default_factory=storage_variables)


@dataclass(frozen=True, slots=True)
class MachineReport:
    """Result of the checks on one machine.

    Attributes:
        name: host name and resources.
        problems: one sentence for each problem that would stop a search.
        device: device type that trials would run on.
        probe: measured cost of a trial; None if the measurement failed.
        traceback: of an unexpected exception in the measurement, else empty.
    """

    name: str
    problems: tuple[str, ...] = ()
    device: str | None = None
    probe: Probe | None = None
    traceback: str = ""

    def row(self) -> dict[str, Any]:
        """Return a table row."""
        probe = self.probe
        return {
            "machine": self.name,
            "device": self.device,
            "step_seconds": probe and probe.step_seconds,
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
    config, found = request.config, versions()
    problems = [
        f"{package} is {found[package]}, the driver has {version}"
        for package, version in request.versions.items()
        # Code that was sent to a worker has no version there; it equals the driver's.
        if found[package] != version and not (package == "spinenas" and config.executor.ship_code)
    ]
    mirror, command = config.storage.mirror, config.executor.data_command
    checks = [partial(_check_storage, request.storage) if mirror is None else partial(_check_mirror, mirror)]
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
        return MachineReport(name, tuple(problems), task.device, task.probe(request.genotype))  # type: ignore[attr-defined]
    except UserError as error:
        return MachineReport(name, (*problems, str(error)))
    except Exception as error:
        said = f"a training step fails: {first_line(error)}"
        return MachineReport(name, (*problems, said), traceback=traceback.format_exc())


def _check_mirror(uri: str) -> None:
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
    try:
        (folder / uuid.uuid4().hex).write_bytes(b"spinenas")
    except OSError as error:
        raise UserError(f"it cannot write {folder.parent}: {error.strerror}; choose another --out") from error
