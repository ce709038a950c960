"""Tries, on one machine, everything that a search needs there."""

from __future__ import annotations

import contextlib
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinenas.results.storage.object_store import Store
from spinenas.search.config.config import SearchConfig
from spinenas.search.executors.data_command import run_once_per_machine
from spinenas.search.run.components import proxy_task
from spinenas.search.run.identity import versions
from spinenas.space.errors import UserError, first_line
from spinenas.space.genotype import Genotype
from spinenas.space.published import SPINENET_49
from spinenas.space.search_space import space_by_name

if TYPE_CHECKING:
    from spinenas.proxy_task.probe import Probe


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
        traceback: of what went wrong in it, if it was nothing that a sentence explains.
    """

    name: str
    problems: tuple[str, ...] = ()
    device: str | None = None
    probe: Probe | None = None
    traceback: str = ""

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
    config, found = errand.config, versions()
    problems = [
        f"{package} is {found[package]}, the driver has {version}"
        for package, version in errand.versions.items()
        # Code that is sent to a worker has no version there, and is the driver's.
        if found[package] != version and not (package == "spinenas" and config.executor.ship_code)
    ]
    attempts: list[Callable[[], None]] = []
    if config.storage.mirror is None:
        attempts.append(lambda: _try_storage(errand.storage))
    else:
        attempts.append(lambda: _try_mirror(config.storage.mirror or ""))
    if config.executor.data_command is not None:
        attempts.append(lambda: run_once_per_machine(config.executor.data_command or "", errand.session))
    for attempt in attempts:
        try:
            attempt()
        except UserError as error:
            problems.append(str(error))
    try:
        task = proxy_task(config)
        task.prepare()
        return Machine(name, tuple(problems), task.device, task.probe(errand.genotype))  # type: ignore[attr-defined]
    except UserError as error:
        return Machine(name, (*problems, str(error)))
    except Exception as error:
        said = f"a training step fails: {first_line(error)}"
        return Machine(name, (*problems, said), traceback=traceback.format_exc())


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
