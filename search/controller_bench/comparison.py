"""Compares controllers on landscapes: runs cells on all cores, keeps their outcomes in a file, and makes tables.

The unit of every test is the landscape: its seeds are averaged first.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from itertools import product
from pathlib import Path
from typing import Any

from spinenas.controller.former_names import current_name, current_options
from spinenas.controller.registry import CONTROLLERS
from spinenas.results.storage.atomic_write import write_text_atomically
from spinenas.search.controller_bench.landscapes import FAMILIES
from spinenas.search.controller_bench.simulated_search import BY_MADDS, ROWS, TABLE, Cell, checkpoints, run_cell
from spinenas.space.errors import UserError, nearest

COMPARED = ("random", BY_MADDS, "local", "evolution", "predictor-guided", "reinforce", "ppo")
NOISES = (0.15, 0.35, 0.6)
REFERENCE = "reinforce"
"""The reference controller: others are measured by when they reach its value at the end of the budget."""
MAX_SEEDS = 1000
"""Limit of the number of seeds per landscape."""
GOAL_SHARE = 0.35
"""Share of the budget by which others should reach that value."""


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
) -> list[Cell]:
    """Return the cells of a comparison. Raises UserError.

    Landscapes alternate between the families and between NOISES. Each has its own seeds, since landscapes that start
    with the same random networks would not be independent. With `rows`, searches are restricted to the networks of the
    table, and all landscapes are the same one with different seeds.
    """
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
        noise = 0.0 if rows else NOISES[number // len(families) % len(NOISES)]
        learnt_from = table if family in (TABLE, ROWS) else None
        found.append(
            Cell(controller, family, number, number * MAX_SEEDS + seed, workers, noise, budget, table=learnt_from)
        )
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


def summary(outcomes: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return a row for each controller, best first by median at the end of the budget.

    Args:
        outcomes: returned by `run_cell`, all with the same budget.
        kind: "replicated" for the winner after replicates of the leaders, "chosen" for the best single result.

    Each row has:

    - the median over landscapes of the true value at each checkpoint, with quartiles at the last;
    - "reached at": the first checkpoint at which the median reaches that of REFERENCE at the end;
    - "ahead at N", for the last checkpoint N within GOAL_SHARE of the budget: the number of landscapes on which the
      value at N is above that of REFERENCE at the end;
    - "p at N": one-sided p-value of Wilcoxon's signed rank test for the same. Gains are relative to the value of
      REFERENCE, so that families with larger values do not count for more.
    """
    points = [str(point) for point in checkpoints(outcomes[0]["budget"])]
    values = _values(outcomes, kind, points)
    rows = []
    for name, by_point in values.items():
        own = [outcome for outcome in outcomes if outcome["controller"] == name]
        medians = {point: statistics.median(by_point[point].values()) for point in points}
        last = list(by_point[points[-1]].values())
        low, _, high = statistics.quantiles(last, n=4, method="inclusive") if len(last) > 1 else last * 3
        row: dict[str, Any] = {"controller": name, **medians, "lower quartile": low, "upper quartile": high}
        row |= _against(values.get(REFERENCE), by_point, points)
        row["duplicates"] = sum(outcome["duplicates"] for outcome in own)
        row["ms per ask"] = statistics.median(outcome["ask_milliseconds"] for outcome in own)
        row["ms p99"] = max(outcome["ask_milliseconds_p99"] for outcome in own)
        row["ms per tell"] = statistics.median(outcome["tell_milliseconds"] for outcome in own)
        rows.append(row)
    return sorted(rows, key=lambda row: -row[points[-1]])


def lead(outcomes: Sequence[dict[str, Any]], kind: str, name: str) -> list[dict[str, Any]]:
    """Return a row for each other controller: how far controller `name` is ahead of it after equally many trainings.

    Each checkpoint has the number of landscapes on which it is ahead, and the p-value, as in `summary`. The controller
    must be among those of the outcomes.
    """
    points = [str(point) for point in checkpoints(outcomes[0]["budget"])]
    values = _values(outcomes, kind, points)
    rows = []
    for other in values:
        if other != name:
            ahead = {point: _ahead(values[name][point], values[other][point]) for point in points}
            words = {point: count if p is None else f"{count}, p {p:.1g}" for point, (count, p) in ahead.items()}
            rows.append({"over": other, **words})
    return rows


def by_family(
    outcomes: Sequence[dict[str, Any]], rows_of: Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Return the rows of each family of landscapes, with the family's name."""
    return [
        {"family": family, **row}
        for family in dict.fromkeys(outcome["family"] for outcome in outcomes)
        for row in rows_of([outcome for outcome in outcomes if outcome["family"] == family])
    ]


def _values(
    outcomes: Sequence[dict[str, Any]], kind: str, points: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Mean values by controller, checkpoint and landscape."""
    found = {}
    for name in dict.fromkeys(outcome["controller"] for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome["controller"] == name]
        found[name] = {point: _by_landscape(own, kind, point) for point in points}
    return found


def _against(
    target: dict[str, dict[str, float]] | None, own: dict[str, dict[str, float]], points: Sequence[str]
) -> dict[str, Any]:
    at = [points[0], *(point for point in points if int(point) <= GOAL_SHARE * int(points[-1]))][-1]
    ahead, p = f"ahead at {at}", f"p at {at}"
    if target is None or target is own:
        return {"reached at": None, ahead: None, p: None}
    goal = target[points[-1]]
    median = statistics.median(goal.values())
    reached = next((point for point in points if statistics.median(own[point].values()) >= median), None)
    count, probability = _ahead(own[at], goal)
    return {"reached at": reached, ahead: count, p: probability}


def _ahead(own: dict[str, float], other: dict[str, float]) -> tuple[str, float | None]:
    """Return the number of landscapes on which one is above the other, and the p-value; None if all are equal."""
    # The divisor is at least 1, one standard deviation: relative gains over smaller values mean nothing.
    gains = [(own[landscape] - other[landscape]) / max(other[landscape], 1.0) for landscape in other]
    count = f"{sum(gain > 0 for gain in gains)}/{len(gains)}"
    if not any(gains):
        return count, None
    from scipy import stats

    return count, float(stats.wilcoxon(gains, alternative="greater").pvalue)


def of_synthetic_families(outcomes: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Leave out landscapes learnt from a table, unless there are no others: they are all alike."""
    return [outcome for outcome in outcomes if outcome["family"] != TABLE] or outcomes


def _by_landscape(outcomes: Iterable[dict[str, Any]], kind: str, point: str) -> dict[str, float]:
    """Return the mean over seeds for each landscape; a search without a result counts as a random network, 0."""
    found: dict[str, list[float]] = {}
    for outcome in outcomes:
        value = outcome[kind][point]
        found.setdefault(f"{outcome['family']}-{outcome['landscape']}", []).append(0.0 if value is None else value)
    return {landscape: statistics.fmean(each) for landscape, each in found.items()}


def _name(outcome: dict[str, Any]) -> str:
    """Return the identity of a cell as text."""
    fields = ("controller", "family", "landscape", "seed", "workers", "noise", "budget", "space", "table", "options")
    return json.dumps([outcome[name] for name in (*fields, "protocol")], sort_keys=True)


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
