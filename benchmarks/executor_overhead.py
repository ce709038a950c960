"""Print the time that each executor adds to a trial.

    python benchmarks/executor_overhead.py [--trials 40] [--seconds 0.5] [--workers 2]

The task sleeps and reports five epochs, so that workers share only the driver. The overhead of a trial is the time from
one result of a worker to its next, minus the sleep. It includes the proposal, the journal (each event is synced before
it is acted on) and the communication. The script also prints the time to start Ray, and the ratio of the measured to
the ideal time for the trials in the middle, when all workers are busy.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from spinenas.results.record import Evaluation, Failure, Fidelity, Report
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.parts import BudgetConfig
from spinenas.search.run.lifecycle import run_search
from spinenas.space import Genotype, Scaling

NUM_EPOCHS = 5


class SleepingTask:
    """Sleeps for a given time instead of training."""

    key, device, dtype = "sleep", "cpu", "float32"
    fingerprint: dict[str, Any] = {}  # noqa: RUF012 (nothing changes it)
    fidelity = Fidelity(NUM_EPOCHS, 96, 1, 1, Scaling("none", 0.25, 64, 0.25, 1))

    def __init__(self, seconds: float):
        self._seconds = seconds

    def prepare(self) -> None:
        """There is no data."""

    def evaluate(
        self,
        genotype: Genotype,
        *,
        seed: int,
        fidelity: Fidelity | None,
        attempt: int,
        folder: Path,
        report: Report,
        until: int | None,
    ) -> Evaluation | Failure:
        began = time.perf_counter()
        for epoch in range(1, NUM_EPOCHS + 1):
            time.sleep(self._seconds / NUM_EPOCHS)
            report(epoch, {"loss": 1.0})
        return Evaluation(objective=seed % 1000 / 1000, train_seconds=time.perf_counter() - began)


def measure(kind: str, num_trials: int, seconds: float, workers: int) -> tuple[list[float], float, float]:
    """Return the overhead of each trial but a worker's first and the time to the first start, both in seconds.

    The third figure is the time of the trials in the middle, relative to the ideal time.
    """
    config = SearchConfig(
        budget=BudgetConfig(num_trials),
        executor=ExecutorConfig(kind=kind, workers=workers),  # type: ignore[arg-type]
    )
    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        records = run_search(config, out=Path(folder) / "run", task=SleepingTask(seconds)).records()
    finished: dict[int, list[tuple[float, float]]] = {}
    for record in records:
        if not (record.finished_at and record.evaluation and record.evaluation.train_seconds):
            raise SystemExit(f"trial {record.number} of {kind} has no result: {record.failure}")
        # Workers of Tune are named by trial. Each result frees one of the busy workers.
        lane = 0 if kind == "serial" else int(str(record.worker).rpartition("-")[2]) if kind == "ray" else -1
        finished.setdefault(lane, []).append((_seconds(record.finished_at), record.evaluation.train_seconds))
    overheads = []
    for lane, results in finished.items():
        results.sort()
        step = workers if lane == -1 else 1
        for (before, _), (after, own) in zip(results, results[step:], strict=False):
            overheads.append(after - before - own)
    start_seconds = min(_seconds(record.started_at) for record in records if record.started_at) - began
    ends = sorted(_seconds(record.finished_at) for record in records if record.finished_at)
    # Between these two results all workers are busy. Only whole rounds count, because workers may end together.
    first, rounds = 2 * workers, (num_trials - 3 * workers - 1) // workers
    return overheads, start_seconds, (ends[first + rounds * workers] - ends[first]) / (rounds * seconds)


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def main() -> None:
    """Measure each executor once and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--executors", nargs="+", default=["serial", "ray", "tune"], metavar="KIND")
    options = parser.parse_args()
    if options.trials <= 4 * options.workers:
        parser.error("give more than four trials for each worker: the first and last ones are left out")
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, Ray {version('ray')}")
    print(f"{options.trials} trials of {options.seconds} s, {NUM_EPOCHS} epoch reports each, {options.workers} workers")
    print("executor  overhead per trial: median  mean  max    start-up  time over ideal")
    for kind in options.executors:
        workers = 1 if kind == "serial" else options.workers
        overheads, start_seconds, ratio = measure(kind, options.trials, options.seconds, workers)
        print(
            f"{kind:8}  {statistics.median(overheads):25.3f} s {statistics.fmean(overheads):.3f} s "
            f"{max(overheads):.3f} s  {start_seconds:.1f} s  {ratio:.3f}"
        )


if __name__ == "__main__":
    main()
