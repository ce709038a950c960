"""Print the throughput of a search with many short trials, relative to the ideal, and the driver's memory growth.

    python benchmarks/search_scale.py [--trials 2000] [--seconds 1] [--workers 16] [--tune-trials 320]

Workers sleep, so that sixteen of them fit on two cores. The script measures the driver: proposals, the journal (each
event is synced before it is acted on) and the communication. Counting starts when all workers have reported once, or,
because Tune names a new worker for each trial, after as many trials as workers. The ideal time is the number of counted
trials x seconds / workers. The `tune` executor is measured with fewer trials for comparison.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import executor_overhead
from ray import cloudpickle

from spinenas.results.storage.events import Event, Finished, Started
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.parts import BudgetConfig
from spinenas.search.run.lifecycle import run_search

SETTLED_AFTER = 0.1
"""Share of the trials after which memory is first measured; caches fill before."""


@dataclass
class Watch:
    """A display that records times and the memory of this process."""

    num_trials: int
    workers: int
    began: float | None = None
    ended: float = 0.0
    seen: set[str] = field(default_factory=set)
    num_told: int = 0
    num_counted: int = 0
    memory_kb: list[int] = field(default_factory=list)

    def begin(self, progress: object) -> AbstractContextManager[object]:
        return nullcontext()

    def show(self, event: Event) -> None:
        if isinstance(event, Started):
            self.seen.add(event.worker)
            if len(self.seen) == self.workers and self.began is None:
                self.began = time.perf_counter()
        if isinstance(event, Finished):
            self.num_told += 1
            self.num_counted += self.began is not None
            self.ended = time.perf_counter()
            if self.num_told >= SETTLED_AFTER * self.num_trials:
                self.memory_kb.append(_resident_kb())

    def note(self, text: str) -> None:
        print(text)


def _resident_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def measure(kind: str, num_trials: int, seconds: float, workers: int) -> Watch:
    """Search, and return the recorded figures."""
    config = SearchConfig(
        budget=BudgetConfig(num_trials),
        executor=ExecutorConfig(kind=kind, workers=workers, gpus_per_worker=0.0),  # type: ignore[arg-type]
    )
    watch = Watch(num_trials, workers)
    task = executor_overhead.SleepingTask(seconds)
    with tempfile.TemporaryDirectory() as folder:
        run_search(config, out=Path(folder) / "run", task=task, display=watch)
    return watch


def main() -> None:
    """Measure each executor once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--tune-trials", type=int, default=320)
    options = parser.parse_args()
    cloudpickle.register_pickle_by_value(executor_overhead)  # type: ignore[no-untyped-call]
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, Ray {version('ray')}")
    print(f"trials of {options.seconds} s, {executor_overhead.NUM_EPOCHS} reports each, {options.workers} workers")
    print("executor  counted  seconds    ideal   ratio   driver memory per trial")
    for kind, num_trials in (("ray", options.trials), ("tune", options.tune_trials)):
        if not num_trials:
            continue
        watch = measure(kind, num_trials, options.seconds, options.workers)
        ideal = watch.num_counted * options.seconds / options.workers
        took = watch.ended - (watch.began or 0.0)
        growth = (watch.memory_kb[-1] - watch.memory_kb[0]) / max(1, len(watch.memory_kb) - 1)
        print(f"{kind:8}  {watch.num_counted:6}  {took:8.1f} {ideal:8.1f}  {took / ideal:6.3f}   {growth:.1f} kB")


if __name__ == "__main__":
    main()
