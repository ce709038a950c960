"""Print the time and memory to open a long journal, and the number of durable events per second.

    python benchmarks/journal_scale.py [--trials 20000] [--events 1000]

Each opening is a separate process that reads the journal and folds it into the state of the run. It is compared with
straightforward code: `json.loads` of every line, without checksums and without state.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from spinenas.controller import make_controller
from spinenas.results.record import COCO_METRICS, Evaluation
from spinenas.results.storage.events import Asked, EpochDone, Event, Finished, RunStarted, Started
from spinenas.results.storage.journal import SCHEMA, Journal
from spinenas.results.storage.journal_lines import encode
from spinenas.space import SearchSpace
from spinenas.space.graph import network_key

NUM_EPOCHS = 5

OPEN = """
import resource, sys, time
from pathlib import Path
from spinenas.results.storage.journal import read_events
from spinenas.results.storage.run_state import fold
path = Path(sys.argv[1])
began = time.perf_counter()
state = fold(read_events(path, epochs=False))
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(state.trials))
"""

PEER = """
import json, resource, sys, time
began = time.perf_counter()
events = [json.loads(line) for line in open(sys.argv[1], "rb")]
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(events))
"""


def events_of(num_trials: int) -> Iterator[Event]:
    """Yield the events of a search with this many trials."""
    at = "2026-01-01T00:00:00.000+00:00"
    controller = make_controller("random", SearchSpace.spinenet49(), seed=0)
    yield RunStarted(SCHEMA, {}, at=at)
    for number in range(num_trials):
        proposal = controller.ask()
        assert proposal is not None, "random search always has one"
        key = network_key(proposal.genotype)
        yield Asked(proposal.to_json(), key, 2**62 + number, "0123456789abcdef", number, at=at)
        yield Started(number, 0, "worker-0", "cuda", "bfloat16", at=at)
        for epoch in range(1, NUM_EPOCHS + 1):
            losses = {name: 0.123456789012 for name in ("loss", "class_loss", "box_loss", "learning_rate")}
            yield EpochDone(number, 0, epoch, losses, at=at)
        evaluation = Evaluation(
            0.123456789012,
            metrics=dict.fromkeys(COCO_METRICS, 0.123456789012),
            params=28_543_383,
            madds=85_280_000_000,
            network_key=key,
            train_seconds=1234.5678,
            eval_seconds=12.345678,
            peak_memory_bytes=2**33,
        )
        yield Finished(number, 0, evaluation, at=at)


def opened(program: str, path: Path, times: int) -> tuple[float, float]:
    """Run a program on the journal several times; return median seconds and largest megabytes."""
    seconds, megabytes = [], []
    for _ in range(times):
        done = subprocess.run([sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True)
        took, kilobytes, _ = done.stdout.split()
        seconds.append(float(took))
        megabytes.append(float(kilobytes) / 1000)
    return statistics.median(seconds), max(megabytes)


def durable_events_per_second(folder: Path, count: int) -> float:
    """Append events of a typical size, each synced before the next."""
    with Journal.create(folder / "journal.jsonl") as journal:
        began = time.perf_counter()
        for event in list(events_of(count // 8))[:count]:
            journal.append(event)
        return count / (time.perf_counter() - began)


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--openings", type=int, default=7)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        path = folder / "long.jsonl"
        with open(path, "wb") as file:
            num_lines = sum(1 for event in events_of(options.trials) if file.write(encode(event.to_json(), 1)))
        print(f"{options.trials} trials: {num_lines} lines, {path.stat().st_size / 1e6:.1f} MB")
        ours, ours_mb = opened(OPEN, path, options.openings)
        peers, peers_mb = opened(PEER, path, options.openings)
        print(f"opened in {ours:.2f} s with {ours_mb:.0f} MB (median of {options.openings}, largest)")
        print(f"json.loads of each line: {peers:.2f} s with {peers_mb:.0f} MB; ratio {peers / ours:.2f}")
        print(f"durable events: {durable_events_per_second(folder, options.events):.0f} a second")


if __name__ == "__main__":
    main()
