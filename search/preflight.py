"""Trying what a search needs before it starts, on each kind of machine; and what it would take."""

from __future__ import annotations

import contextlib
import tempfile
import traceback
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinenas.results.mirror import Store
from spinenas.search.config import SearchConfig
from spinenas.search.data_command import SESSION, run_once_per_machine
from spinenas.search.executor import Note
from spinenas.search.loop import proxy_task, versions
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.published import SPINENET_49
from spinenas.space.search_space import space_by_name

if TYPE_CHECKING:
    from spinenas.proxy_task.task import Probe


@dataclass(frozen=True, slots=True)
class Errand:
    """What a machine is asked to try.

    Attributes:
        config: of the search.
        versions: of the driver's packages, which a worker's must equal.
        storage: a folder that the driver has made where the run will be, which a worker must see and write.
        genotype: what is trained for some steps.
        session: of the driver, for the data command.
    """

    config: SearchConfig
    versions: dict[str, str]
    storage: Path
    genotype: Genotype
    session: str


@dataclass(frozen=True, slots=True)
class Machine:
    """What was found on one machine.

    Attributes:
        name: its host, and what it has.
        problems: what a search could not run with, a sentence each.
        device: where trials would run there.
        probe: what a trial takes; None if it could not be tried.
    """

    name: str
    problems: list[str] = field(default_factory=list)
    device: str | None = None
    probe: Probe | None = None

    def row(self) -> dict[str, Any]:
        """For a table."""
        probe = self.probe
        return {
            "machine": self.name,
            "device": self.device,
            "step_seconds": probe and probe.step_seconds,
            "trial_minutes": probe and probe.trial_seconds / 60,
            "peak_memory": probe and probe.peak_memory_bytes,
            "problems": len(self.problems),
        }


def preflight(config: SearchConfig, out: Path, note: Note) -> list[Machine]:
    """Try everything on one machine of each kind that could hold a worker. Raises UserError.

    Args:
        config: of the search.
        out: where the run will be.
        note: told what is being tried.
    """
    if config.executor.data_command is not None:
        run_once_per_machine(config.executor.data_command)
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    try:
        storage = tempfile.TemporaryDirectory(prefix=".spinenas-preflight-", dir=place)
    except OSError as error:
        raise UserError(f"{place} cannot be written: {error.strerror}; choose another --out") from error
    with storage:
        errand = Errand(config, versions(), Path(storage.name), probe_genotype(config), SESSION)
        if config.executor.kind == "serial":
            return [examine(errand, "this machine")]
        from spinenas.search.ray_preflight import examine_cluster

        return examine_cluster(errand, note)


def probe_genotype(config: SearchConfig) -> Genotype:
    """SpineNet-49 where the space has it, else the space's first sample: what is trained for some steps."""
    from spinenas.space.random_streams import generator

    space = space_by_name(config.space.name)
    with contextlib.suppress(UserError):
        space.check(SPINENET_49)
        return SPINENET_49
    return space.sample(generator(0, "preflight"))


def examine(errand: Errand, name: str) -> Machine:
    """Try everything on this machine."""
    problems = []
    theirs = versions()
    for package, version in errand.versions.items():
        if theirs[package] != version:
            problems.append(f"{package} is {theirs[package]}, the driver has {version}")
    if errand.config.storage.mirror is not None:
        problems += _tried(lambda: _try_mirror(errand.config.storage.mirror or ""))
    else:
        problems += _tried(lambda: _try_storage(errand.storage))
    if errand.config.executor.data_command is not None:
        command = errand.config.executor.data_command
        problems += _tried(lambda: run_once_per_machine(command, errand.session))
    machine = Machine(name, problems)
    try:
        task = proxy_task(errand.config)
        machine = replace(machine, device=task.device)
        task.prepare()
        return replace(machine, probe=task.probe(errand.genotype))  # type: ignore[attr-defined]
    except UserError as error:
        problems.append(str(error))
    except Exception as error:
        problems.append(f"a training step fails: {error or type(error).__name__}")
        traceback.print_exc()
    return machine


def _tried(attempt: Any) -> list[str]:
    try:
        attempt()
    except UserError as error:
        return [str(error)]
    return []


def _try_mirror(uri: str) -> None:
    name = f"preflight-{uuid.uuid4().hex}"
    store = Store(uri)
    store.write(name, b"spinenas")
    read = store.read(name)
    store.remove(name)
    if read != b"spinenas":
        raise UserError(f"{uri} does not give back what was written there; choose another storage.mirror")


def _try_storage(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(
            f"it does not see {folder.parent}, so that trials could not go on after a lost worker; "
            "put --out on shared storage or give a --mirror"
        )
    try:
        (folder / uuid.uuid4().hex).write_bytes(b"spinenas")
    except OSError as error:
        raise UserError(f"it cannot write {folder.parent}: {error.strerror}; choose another --out") from error
