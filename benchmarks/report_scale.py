"""Print time and size of the report of a long run, and the time until a browser has painted it.

    python benchmarks/report_scale.py [--trials 20000] [--commands 10000] [--chromium chromium]

The run is generated: edits of earlier networks with rising results, some failures, and replicates of leaders. Each
command is timed as a separate process, including its start. `--commands` is the number of trials of the run for
`leaderboard` and `show`.
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
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

from spinenas.controller.base import Proposal
from spinenas.results.record import COCO_METRICS, Evaluation, Failure, FailureKind, Stage
from spinenas.results.storage.events import Asked, EpochDone, Event, Finished, RunStarted, Started
from spinenas.results.storage.journal import SCHEMA
from spinenas.results.storage.journal_lines import encode
from spinenas.results.storage.run_folder import RunFolder
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.parts import BudgetConfig
from spinenas.space import SCALINGS, SearchSpace
from spinenas.space.cost import retinanet_cost
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key
from spinenas.space.mutate import random_edit
from spinenas.space.random_streams import generator

NUM_EPOCHS = 5
NUM_LEADERS = 20

PAINT = """
<script>
new PerformanceObserver(function (list) {
  list.getEntries().forEach(function (entry) {
    if (entry.name === "first-contentful-paint") fetch("/painted/" + entry.startTime);
  });
}).observe({type: "paint", buffered: true});
</script>
"""


def events_of(num_trials: int) -> Iterator[Event]:
    """Yield the events of a search with this many trials, except the first event."""
    space = SearchSpace.spinenet49()
    rng = generator(0, "report-scale")
    clock = datetime(2026, 1, 1, tzinfo=UTC)
    genotypes: list[Genotype] = []
    for number in range(num_trials):
        replicate = number - (num_trials - NUM_LEADERS) if num_trials > 4 * NUM_LEADERS else -1
        parent = None
        if replicate >= 0:
            parent = replicate // 2
            genotype, origin = genotypes[parent], "replicate"
        elif number < 64:
            genotype, origin = space.sample(rng), "random:alive"
        else:
            parent = int(rng.integers(max(0, number - 64), number))
            genotype, origin = (
                random_edit(space, genotypes[parent], rng)[1],
                "mutation:" + ("swap", "kind", "level")[number % 3],
            )
        genotypes.append(genotype)
        proposal = Proposal(
            number,
            genotype,
            replicate=1 + replicate % 2 if replicate >= 0 else 0,
            stage=Stage.RERANK if replicate >= 0 else Stage.SEARCH,
            parent=parent,
            origin=origin,
        )
        key = network_key(genotype)
        at = clock.isoformat(timespec="milliseconds")
        yield Asked(proposal.to_json(), key, number, "t", number, at=at)
        yield Started(number, 0, "w", "cuda", "bfloat16", 1, at=at)
        for epoch in range(1, NUM_EPOCHS + 1):
            yield EpochDone(number, 0, epoch, {"loss": 0.5, "learning_rate": 0.01}, at=at)
        clock += timedelta(seconds=60)
        at = clock.isoformat(timespec="milliseconds")
        if number % 50 == 7 and replicate < 0:
            failure = Failure(FailureKind.DIVERGED, "the loss is not finite")
            yield Finished(number, 0, failure, at=at)
            continue
        cost = retinanet_cost(genotype, SCALINGS["49"], 512)
        objective = 0.2 + 0.1 * number / num_trials + 0.03 * float(rng.standard_normal())
        evaluation = Evaluation(
            objective,
            metrics=dict.fromkeys(COCO_METRICS, 0.25),
            params=cost.params,
            madds=cost.madds,
            network_key=key,
            train_seconds=55.0,
            eval_seconds=5.0,
            peak_memory_bytes=2**33,
        )
        yield Finished(number, 0, evaluation, at=at)


def generated_run(path: Path, num_trials: int) -> None:
    """Write a run with this many trials."""
    config = SearchConfig(budget=BudgetConfig(num_trials=num_trials)).resolved()

    def begin(folder: Path) -> None:
        first = RunStarted(SCHEMA, {}, at="2026-01-01T00:00:00.000+00:00")
        with open(folder / "journal.jsonl", "wb") as file:
            file.write(encode(first.to_json(), 1))
            for event in events_of(num_trials):
                file.write(encode(event.to_json(), 1))

    about = {"kind": "search", "versions": {}, "platform": "generated", "device": "cuda", "data": {}}
    RunFolder.create(path, "", config.to_json(), about, begin=begin)


def seconds_of(*words: str) -> tuple[float, float]:
    """Return the wall-clock and processor seconds of a command; load affects the latter less."""
    code = "from spinenas.search.cli.main import main; main()"
    before, began = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)
    took, after = time.perf_counter() - began, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return took, used


def painted_after(chromium: str, page: Path) -> float:
    """Return milliseconds until a page has painted its first content, measured by a script in a copy of the page."""
    text = page.read_text()
    start, end = text.index('<meta http-equiv="Content-Security-Policy"'), text.index('<meta name="viewport"')
    copy = (text[:start] + PAINT + text[end:] + '<img src="/until-painted">').encode()
    painted: Queue[float] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/painted/"):
                painted.put(float(self.path.rsplit("/", 1)[1]))
            elif self.path == "/until-painted":
                time.sleep(10)  # the browser exits when the page is complete
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(copy if self.path == "/" else b"")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --window-size=1400,1000 --dump-dom"
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, tempfile.TemporaryDirectory() as profile:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        command = [chromium, *flags.split(), f"--user-data-dir={profile}", address]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
            found = painted.get(timeout=120)
            browser.wait()
        server.shutdown()
    return found


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--commands", type=int, default=10_000)
    parser.add_argument("--chromium", help="command of a browser; without it, no painting is measured")
    parser.add_argument("--repeats", type=int, default=5, help="how often each command is timed")
    options = parser.parse_args()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, load {load}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        run = folder / "long"
        generated_run(run, options.trials)
        print(f"{options.trials} trials, journal of {(run / 'journal.jsonl').stat().st_size / 1e6:.1f} MB")
        took, used = seconds_of("report", str(run))
        page = run / "report.html"
        print(f"report: {took:.1f} s, {used:.1f} s of them on a processor; {page.stat().st_size / 1e6:.2f} MB")
        if options.chromium:
            painted = [painted_after(options.chromium, page) for _ in range(options.repeats)]
            middle = statistics.median(painted)
            print(f"first paint: {middle:.0f} ms ({min(painted):.0f} to {max(painted):.0f}; {options.repeats} times)")
        run = folder / "commands"
        generated_run(run, options.commands)
        for words in (("leaderboard", str(run)), ("show", str(run), "7"), ("show", str(run), "best")):
            taken, used_by_each = zip(*(seconds_of(*words) for _ in range(options.repeats)), strict=True)
            said = " ".join(word for word in words if word != str(run))
            wall, processor = statistics.median(taken), statistics.median(used_by_each)
            print(
                f"{said}, {options.commands} trials: {wall:.2f} s, {processor:.2f} s of them on a processor (medians)"
            )


if __name__ == "__main__":
    main()
