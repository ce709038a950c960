"""Runs a search on a real Ray cluster whose machines are killed repeatedly: `python tests/real_cluster.py`.

There are three machines, each a raylet with a private scratch folder that is lost with it. Every 20 s all processes of
one machine are killed by SIGKILL, and a new machine is added. In the middle the head, the driver and the folder of the
run are lost as well, and a new head continues from the mirror. The script shows that every trial finishes, that no
reported epoch is repeated, and that an interrupted trial has the figures of an uninterrupted one.

It takes some minutes on two cores. Its last lines are quoted in docs/cluster.md.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
NUM_MACHINES = 3
CONFIG = """
preset = "quickstart"
[task]
image_size_pixels = 96
[task.data]
held_out_images = 24
[task.train]
epochs = 5
"""


class Processes:
    """A simulated machine: processes that share a scratch folder and end together."""

    def __init__(self, name: str, command: list[str], place: Path):
        self.name, self.scratch = name, place / name
        self.scratch.mkdir()
        environment = os.environ | {"TMPDIR": str(self.scratch), "RAY_USAGE_STATS_ENABLED": "0"}
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(place / "token")}
        self._log = open(place / f"{name}.log", "w")  # noqa: SIM115
        self._process = subprocess.Popen(
            command, env=environment, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )

    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill all processes without warning and delete the disk, like a power failure."""
        for pid in self._members():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()
        self._log.close()
        shutil.rmtree(self.scratch)

    def _members(self) -> list[int]:
        """Return the processes of the session, from /proc."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                of_session = int(path.read_text().rpartition(")")[2].split()[3])
            except OSError:
                continue
            if of_session == self._process.pid:
                found.append(int(path.parent.name))
        return found


class Cluster:
    """A head with the driver of a search, and machines that run its trials."""

    def __init__(self, place: Path, number: int, search: list[str]):
        self._place, self._number, self._num_added = place, number, 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        port = self.address.rpartition(":")[2]
        self.ray = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short, as sockets lie in it
        options = ["--head", f"--port={port}", "--include-dashboard=false", "--num-cpus=0", f"--temp-dir={self.ray}"]
        self.head = Processes(f"head-{number}", self._start(*options), place)
        self._wait_for_head()
        self.machines = [self.add() for _ in range(NUM_MACHINES)]
        out = self.head.scratch / "run"
        command = [str(BIN / "spinenas"), "search", *search, "--out", str(out), "--address", self.address]
        self.driver = Processes(f"driver-{number}", command, place)

    def _start(self, *options: str) -> list[str]:
        return [str(BIN / "ray"), "start", "--block", "--node-ip-address=127.0.0.1", *options]

    def _wait_for_head(self) -> None:
        port = int(self.address.rpartition(":")[2])
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    time.sleep(2)
                    return
            time.sleep(0.2)
        raise SystemExit("no Ray head came up")

    def add(self) -> Processes:
        self._num_added += 1
        name = f"machine-{self._number}-{self._num_added}"
        return Processes(name, self._start(f"--address={self.address}", "--num-cpus=1"), self._place)

    def replace_machine(self, index: int) -> None:
        self.machines[index].kill()
        self.machines[index] = self.add()

    def kill(self) -> None:
        for each in (self.head, self.driver, *self.machines):
            each.kill()
        shutil.rmtree(self.ray, ignore_errors=True)


def journal_of(mirror: str) -> list[dict[str, Any]]:
    from spinenas.results.storage.mirror import Mirror

    return [json.loads(line) for line in Mirror(mirror).journal().splitlines()]


def num_told(mirror: str) -> int:
    return sum(event["event"] == "told" for event in journal_of(mirror))


def run(place: Path, num_trials: int, kill_every: float) -> tuple[list[dict[str, Any]], int, float]:
    """Search until all trials are told; return the journal, the machines killed, and the seconds taken."""
    from spinenas.proxy_task.data.synthetic import generate_dataset

    generate_dataset(place / "data", num_train=120, num_val=8, image_size_pixels=96, seed=0)
    (place / "search.toml").write_text(CONFIG)
    (place / "token").write_text(secrets.token_hex(32))
    mirror = (place / "storage").as_uri()
    search = [str(place / "search.toml"), "--data", str(place / "data"), "--mirror", mirror, "--or-resume"]
    search += ["--trials", str(num_trials), "--workers", str(NUM_MACHINES), "--seed", "0"]
    began = time.monotonic()
    num_killed, head_is_killed = 0, False
    cluster = Cluster(place, 1, search)
    next_kill = time.monotonic() + kill_every
    try:
        while cluster.driver.is_running():
            time.sleep(1)
            told = num_told(mirror)
            if not head_is_killed and told >= num_trials // 2:
                print(f"{told} trials told: head, driver and the run's folder are killed", flush=True)
                cluster.kill()
                cluster = Cluster(place, 2, search)
                head_is_killed, next_kill = True, time.monotonic() + kill_every
            elif time.monotonic() > next_kill and told:
                cluster.replace_machine(num_killed % NUM_MACHINES)
                num_killed, next_kill = num_killed + 1, time.monotonic() + kill_every
                print(f"{told} trials told, {num_killed} machines killed", flush=True)
        print((place / f"driver-{2 if head_is_killed else 1}.log").read_text()[-1500:])
    finally:
        cluster.kill()
    return journal_of(mirror), num_killed, time.monotonic() - began


def epochs_done_again(events: list[dict[str, Any]]) -> int:
    """Return the epochs that were reported more than once."""
    counts = Counter((event["number"], event["epoch"]) for event in events if event["event"] == "epoch")
    return sum(count - 1 for count in counts.values())


def interrupted_trials_with_other_figures(place: Path, events: list[dict[str, Any]]) -> tuple[int, int]:
    """Count the trials with several attempts, and those whose result differs from an uninterrupted trial."""
    from spinenas.proxy_task.task import ProxyTask
    from spinenas.search.config.loading import load_config_file
    from spinenas.space import Genotype

    config = load_config_file(place / "search.toml")
    data = replace(config.task.data, folder=str(place / "data"))
    task = ProxyTask(replace(config.task, data=data))
    asked = {event["proposal"]["number"]: event for event in events if event["event"] == "asked"}
    told = {event["number"]: event for event in events if event["event"] == "told"}
    began = {event["number"] for event in events if event["event"] == "epoch"}
    several = [
        number for number, event in told.items() if event["attempt"] > 0 and number in began and "evaluation" in event
    ]
    different = 0
    for number in several:
        genotype = Genotype.from_text(asked[number]["proposal"]["genotype"])
        whole: Any = task.evaluate(genotype, seed=asked[number]["seed"])
        theirs = told[number]["evaluation"]
        different += (whole.objective, whole.metrics) != (theirs["objective"], theirs["metrics"])
    return len(several), different


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--kill-every", type=float, default=20.0, metavar="SECONDS")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spinenas-cluster-") as folder:
        place = Path(folder)
        events, num_killed, seconds = run(place, options.trials, options.kill_every)
        told = [event for event in events if event["event"] == "told"]
        num_requeued = sum(event["event"] == "requeued" for event in events)
        num_several, num_different = interrupted_trials_with_other_figures(place, events)
    complete = {event["number"] for event in told if event["status"] == "complete"}
    rows = {
        "trials that finished": f"{len(complete)} of {options.trials}, each told once: {len(told) == len(complete)}",
        "machines killed": f"{num_killed}, and the head with the driver once",
        "attempts given up": num_requeued,
        "reported epochs done again": epochs_done_again(events),
        "interrupted trials with other figures": f"{num_different} of {num_several}",
        "minutes": f"{seconds / 60:.1f}",
    }
    for name, value in rows.items():
        print(f"{name:40}{value}")
    is_right = len(complete) == len(told) == options.trials and not epochs_done_again(events) and not num_different
    sys.exit(not is_right)


if __name__ == "__main__":
    main()
