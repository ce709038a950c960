"""Preflight: checks what a search needs, on each kind of machine, before it starts."""

from __future__ import annotations

import tempfile
from pathlib import Path

from spinenas.search.config.config import SearchConfig
from spinenas.search.executors.base import Note
from spinenas.search.executors.data_command import run_once_per_machine, this_session
from spinenas.search.planning.machine import CheckRequest, MachineReport, check_here, check_machine, probed_genotype
from spinenas.search.run.components import with_dtype
from spinenas.search.run.identity import versions
from spinenas.space.errors import explained_os_errors


def preflight(
    config: SearchConfig, out: Path, note: Note, *, longest_training_seconds: float = 0.0
) -> tuple[list[MachineReport], float]:
    """Check this machine, and then one machine of each kind that could hold a worker.

    Args:
        config: configuration of the search.
        out: folder of the future run.
        note: receives a line about each machine that is checked.
        longest_training_seconds: train once, on the first machine, if that is predicted to take at most this long.

    Returns:
        The reports, and the number of accelerators of each worker.

    Raises UserError.
    """
    run_once_per_machine(config.executor.data_command, this_session())
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    with explained_os_errors(f"{place} cannot be written", "choose another --out"):
        storage = tempfile.TemporaryDirectory(prefix=".spinenas-preflight-", dir=place)
    with storage:
        check_here(config)  # before a worker is waited for
        config = with_dtype(config, note=note)
        request = CheckRequest(
            config, versions(), Path(storage.name), probed_genotype(config), this_session(), longest_training_seconds
        )
        if config.executor.kind == "serial":
            return [check_machine(request, "this machine")], 1.0
        from spinenas.search.planning.ray_preflight import check_cluster

        return check_cluster(request, note)
