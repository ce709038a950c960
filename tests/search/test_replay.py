"""A replay that is killed during its training ends with the figures and weights of an uninterrupted one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from journal_lines import json_events
from small_task import SMALL_GENOTYPE, small_dataset, small_task

from spinenas.proxy_task.config import EvalConfig
from spinenas.results.export.architecture_files import export_genotype
from spinenas.search.cli.main import main
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.space.scaling import SCALINGS

KILL_AFTER_EPOCH_2 = """
import os, signal, sys
from spinenas.results.storage.journal import Journal
from spinenas.search.cli.main import main

append = Journal.append

def append_and_die(self, event, **options):
    append(self, event, **options)
    if event.to_json()["event"] == "epoch" and event.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)

Journal.append = append_and_die
main(sys.argv[1:])
"""
CLI = "import sys; from spinenas.search.cli.main import main; main(sys.argv[1:])"


@dataclass(frozen=True)
class Replays:
    """Makes replay commands for the small task."""

    place: Path
    num_epochs: int

    def command(self, out: Path, *options: object) -> list[str]:
        words = ["replay", self.place / "small.json", "--preset", self.place / "config.json", "--out", out, "--json"]
        return [str(word) for word in (*words, *options)]


def replays_in(factory: pytest.TempPathFactory, executor: ExecutorConfig, *, epochs: int) -> Replays:
    place = factory.mktemp("replay")
    evaluation = EvalConfig(pre_nms_top=100, score_threshold=0.0, plus_one_decoding=False)
    task = small_task(small_dataset(factory), factory, evaluation, epochs=epochs)
    config = SearchConfig(task=task, executor=executor, seed=5)
    (place / "config.json").write_text(json.dumps(config.to_json()))
    export_genotype(SMALL_GENOTYPE, place / "small.json", format="json", scaling=SCALINGS["49"])
    return Replays(place, epochs)


def figures_of(words: list[str]) -> list[dict[str, Any]]:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    assert next(row for row in rows if row["metric"] == "AP")["val"] > 0, "otherwise equal figures would show little"
    return rows


def kept_by(out: Path) -> tuple[bytes, bytes]:
    return (out / "replay.json").read_bytes(), (out / "trials" / "000000" / "weights.safetensors").read_bytes()


def events_of(out: Path, kind: str) -> list[dict[str, Any]]:
    if not (out / "journal.jsonl").exists():
        return []
    return [event for event in json_events(out / "journal.jsonl") if event["event"] == kind]


def test_a_killed_replay_continues_to_the_same_figures_and_weights(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    replays = replays_in(tmp_path_factory, ExecutorConfig(kind="serial"), epochs=5)
    whole = figures_of(replays.command(tmp_path / "whole"))
    out = tmp_path / "killed"
    killed = subprocess.run(
        [sys.executable, "-c", KILL_AFTER_EPOCH_2, *replays.command(out)], capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (out / "replay.json").exists()
    assert figures_of(replays.command(out)) == whole
    assert kept_by(out) == kept_by(tmp_path / "whole")
    assert [event["epoch"] for event in events_of(out, "epoch")] == [1, 2, 3, 4, 5], "no epoch is trained twice"


@pytest.fixture(scope="module")
def cluster_replays(tmp_path_factory: pytest.TempPathFactory) -> Replays:
    return replays_in(tmp_path_factory, ExecutorConfig(kind="ray", gpus_per_worker=0.0), epochs=30)


@pytest.fixture(scope="module")
def whole(cluster_replays: Replays) -> Path:
    """A replay that nothing interrupts."""
    out = cluster_replays.place / "whole"
    figures_of(cluster_replays.command(out, "--set", "executor.kind=serial"))
    return out


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head that runs no trial, and one machine that runs one."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["machine", "driver"])
def test_a_replay_on_a_cluster_survives_the_loss_of_its_machine_and_of_its_driver(
    victim: str, cluster: Any, cluster_replays: Replays, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = cluster_replays.command(out, "--address", cluster.address)
    first = cluster.add_node(num_cpus=1)
    driver = subprocess.Popen([sys.executable, "-c", CLI, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while driver.poll() is None and len(events_of(out, "epoch")) < 2:
        time.sleep(0.05)
    cluster.add_node(num_cpus=1)
    if victim == "machine":
        cluster.remove_node(first, allow_graceful=False)
    else:
        driver.kill()
    stdout, stderr = driver.communicate()
    num_epochs_before = len(events_of(out, "epoch"))
    if victim == "driver":
        assert driver.returncode == -signal.SIGKILL
        assert 2 <= num_epochs_before < cluster_replays.num_epochs, "it was killed in the middle"
        done = subprocess.run([sys.executable, "-c", CLI, *words], capture_output=True)
        stdout, stderr = done.stdout, done.stderr
    assert kept_by(out) == kept_by(whole), stderr.decode()
    assert events_of(out, "requeued"), "the first attempt did not finish"
    assert len(events_of(out, "told")) == 1
    assert [row["val"] for row in json.loads(stdout)] == list(json.loads(kept_by(out)[0])["val"].values())
    epochs = [event["epoch"] for event in events_of(out, "epoch")]
    assert epochs == list(range(1, cluster_replays.num_epochs + 1)), "no epoch is trained twice"
