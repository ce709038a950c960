"""Compares controllers on landscapes: runs cells on all cores, and keeps their outcomes in a file."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from spinenas.controller.former_names import current_name, current_options
from spinenas.controller.registry import CONTROLLERS
from spinenas.results.storage.atomic_write import write_text_atomically
from spinenas.search.controller_bench.cell import BY_MADDS, ROWS, TABLE, Cell, epoch_budgets
from spinenas.search.controller_bench.landscapes import FAMILIES
from spinenas.search.controller_bench.simulated_search import run_cell
from spinenas.space.errors import UserError, nearest

COMPARED = ("random", BY_MADDS, "local", "evolution", "predictor-guided", "freeze-thaw", "reinforce", "ppo")
NOISES = (0.15, 0.35, 0.6)
MAX_SEEDS = 1000
"""Limit of the number of seeds per landscape."""


def cells(
    controllers: Sequence[str],
    *,
    num_landscapes: int,
    first_landscape: int,
    num_seeds: int,
    workers: int,
    budget: int,
    table: str | None = None,
    rows: bool = False,
    noise: float | None = None,
    crossing: bool = False,
    budgets: Sequence[int] | None = None,
) -> list[Cell]:
    """Return the cells of a comparison. Raises UserError.

    Landscapes alternate between the families and between NOISES. Each has its own seeds, since landscapes that start
    with the same random networks would not be independent. With `rows`, searches are restricted to the networks of the
    table, and all landscapes are the same one with different seeds. With `noise`, all landscapes have this noise.

    A controller that counts epochs has one cell for each of `budgets`, in whole trainings; None for `epoch_budgets`.
    """
    if rows and (crossing or noise is not None):
        raise UserError("the rows of a table have their own noise and curves; leave out the noise and the crossing")
    if num_seeds > MAX_SEEDS:
        raise UserError(f"{num_seeds} seeds per landscape are too many; the limit is {MAX_SEEDS} at most")
    controllers = [current_name(name) for name in controllers]
    for name in controllers:
        if name != BY_MADDS and (name not in CONTROLLERS or name == "plan"):
            known = {*CONTROLLERS, BY_MADDS} - {"plan"}
            raise UserError(f"controller {name!r} cannot be compared{nearest(name, known)}")
    families = [ROWS] if rows else [*FAMILIES, *([TABLE] if table else [])]
    numbers = range(first_landscape, first_landscape + num_landscapes)
    found = []
    for number, seed, controller in product(numbers, range(num_seeds), controllers):
        family = families[number % len(families)]
        by_landscape = NOISES[number // len(families) % len(NOISES)] if noise is None else noise
        of_landscape = Cell(
            controller,
            family,
            number,
            number * MAX_SEEDS + seed,
            workers,
            0.0 if rows else by_landscape,
            budget,
            table=table if family in (TABLE, ROWS) else None,
            crossing=crossing,
        )
        if of_landscape.counts_epochs:
            found += [replace(of_landscape, budget=each) for each in budgets or epoch_budgets(budget)]
        else:
            found.append(of_landscape)
    return found


def run_cells(
    wanted: Sequence[Cell], path: Path, *, processes: int, note: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Return the outcomes of cells in order. Outcomes in the file are reused, and new ones are added to it.

    A cell that fails is noted and left out of the file, and the others continue. Raises UserError at the end if any
    failed, if a process is killed, or if the file does not hold outcomes.
    """
    known = _read(path)
    missing = [cell for cell in wanted if _name(cell.identity()) not in known]
    note(f"{len(wanted) - len(missing)} of {len(wanted)} searches are in {path}")
    if missing:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # for the processes started below
        context = multiprocessing.get_context("spawn")
        failures, others = [], set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(min(processes, len(missing)), mp_context=context)
        try:
            running = {pool.submit(run_cell, cell): cell for cell in missing}
            with path.open("a") as file:
                for number, done in enumerate(as_completed(running), start=1):
                    cell = running[done]
                    try:
                        outcome = done.result()
                    except BrokenProcessPool as error:
                        raise UserError(
                            "a search's process was killed, perhaps for lack of memory; repeat the command with fewer "
                            "--processes to continue"
                        ) from error
                    except Exception as error:
                        failures.append(
                            f"{cell.controller} on {cell.family}-{cell.landscape}, seed {cell.seed}: {error!r}"
                        )
                        note(failures[-1])
                        continue
                    known[_name(outcome)] = outcome
                    file.write(json.dumps(outcome, allow_nan=False) + "\n")
                    file.flush()
                    note(f"{number} of {len(missing)}: {outcome['controller']} on {outcome['family']}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:  # their outcomes would be lost anyway
                process.terminate()
            raise
        pool.shutdown()
        if failures:
            raise UserError(f"{len(failures)} of {len(missing)} searches failed, the first one: {failures[0]}")
    return [known[_name(cell.identity())] for cell in wanted]


def _name(outcome: dict[str, Any]) -> str:
    """Return the identity of a cell as text."""
    fields = ("controller", "family", "landscape", "seed", "workers", "noise", "budget", "space", "table", "options")
    named = [outcome[name] for name in (*fields, "protocol")]
    return json.dumps([*named, "crossing"] if outcome.get("crossing", False) else named, sort_keys=True)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Return the outcomes of a file by identity. A partial last line that a killed comparison left is removed."""
    if not path.exists():
        return {}
    known = {}
    text = path.read_text()
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            if line:
                outcome = _with_current_names(json.loads(line))
                known[_name(outcome)] = outcome
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                raise UserError(f"line {number} of {path} is not the outcome of a search; name another file") from error
            lines.pop()
    whole_lines = "".join(f"{line}\n" for line in lines if line)
    if whole_lines != text:
        write_text_atomically(path, whole_lines)
    return known


def _with_current_names(outcome: dict[str, Any]) -> dict[str, Any]:
    options = current_options(outcome["options"])
    return {**outcome, "controller": current_name(outcome["controller"]), "options": options}
