"""Trying what a search needs before it starts, on each kind of machine; and what it would take."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from spinenas.search.config.config import SearchConfig
from spinenas.search.executors.base import Note
from spinenas.search.executors.data_command import run_once_per_machine, this_session
from spinenas.search.planning.machine import Errand, Machine, examine, probe_genotype
from spinenas.search.run.identity import versions
from spinenas.space.errors import UserError

if TYPE_CHECKING:
    pass


def preflight(config: SearchConfig, out: Path, note: Note) -> tuple[list[Machine], float]:
    """Try everything on one machine of each kind that could hold a worker; say how many accelerators a worker has.

    Raises UserError.

    Args:
        config: of the search.
        out: where the run will be.
        note: told what is being tried.
    """
    if config.executor.data_command is not None:
        run_once_per_machine(config.executor.data_command, this_session())
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    try:
        storage = tempfile.TemporaryDirectory(prefix=".spinenas-preflight-", dir=place)
    except OSError as error:
        raise UserError(f"{place} cannot be written: {error.strerror}; choose another --out") from error
    with storage:
        errand = Errand(config, versions(), Path(storage.name), probe_genotype(config), this_session())
        if config.executor.kind == "serial":
            return [examine(errand, "this machine")], 1.0
        from spinenas.search.planning.ray_preflight import examine_cluster

        return examine_cluster(errand, note)
