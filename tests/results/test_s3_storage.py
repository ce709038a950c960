"""A mirror on S3-compatible storage, which a real S3 server provides: lost machines, buckets, credentials."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_task import FakeTask
from moto.server import ThreadedMotoServer
from pyarrow.fs import FileSystem

from spinenas.results.storage.mirror import Mirror
from spinenas.results.storage.object_store import Store
from spinenas.results.storage.run_folder import CHECKPOINT
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.parts import BudgetConfig, StorageConfig
from spinenas.search.executors.storage_variables import StorageVariables, adopt, storage_variables
from spinenas.search.planning.machine import check_mirror
from spinenas.search.run.lifecycle import run_search
from spinenas.space import UserError

SECRET = "a-secret-that-no-file-may-hold"
URI = "s3://experiments/first"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def storage(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Variables of the storage, as a user sets them, and an empty bucket."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    system, _ = FileSystem.from_uri("s3://experiments?allow_bucket_creation=true&allow_bucket_deletion=true")
    system.create_dir("experiments")
    system.delete_dir_contents("experiments")
    return URI


SEARCH = """
import os, signal, sys
from pathlib import Path
from fake_task import FakeTask
from spinenas.results.storage.run_folder import CHECKPOINT
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.parts import BudgetConfig, StorageConfig
from spinenas.search.run.or_resume import search_or_resume

class Checkpoints(FakeTask):
    '''Stores the number of its last epoch, and continues from there. The first training ends its machine.'''
    def evaluate(self, genotype, *, folder, report, **named):
        path = folder / CHECKPOINT
        begun = int(path.read_text()) if path.exists() else 0
        if sys.argv[2] == "dies" and folder.name == "000002":
            path.write_text("1")
            report(1, {})
            os.kill(os.getpid(), signal.SIGKILL)
        print(folder.name, begun)
        return super().evaluate(genotype, folder=folder, report=report, **named)

config = SearchConfig(
    budget=BudgetConfig(4, replicate_share=0.0),
    executor=ExecutorConfig(kind="serial"),
    storage=StorageConfig(sys.argv[1]),
)
search_or_resume(config, out=sys.argv[3], task=Checkpoints())
"""


def searched(how: str, out: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-c", SEARCH, URI, how, str(out)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_a_search_whose_machine_is_lost_continues_elsewhere_from_the_bucket(storage: str, tmp_path: Path) -> None:
    died = searched("dies", tmp_path / "run")
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert Store(URI).names("trials") == [
        "trials/000000/curve.json",
        "trials/000001/curve.json",
        f"trials/000002/{CHECKPOINT}",
    ]
    shutil.rmtree(tmp_path / "run")
    done = searched("continues", tmp_path / "elsewhere" / "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["000002", "1", "000003", "0"], "finished trials stay, the open one continues"
    journal = (tmp_path / "elsewhere" / "run" / "journal.jsonl").read_bytes()
    assert Mirror(URI).journal() == journal
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    kept += [Store(URI).read(name) or b"" for name in Store(URI).names("")]
    assert len(kept) > 10
    assert not any(SECRET.encode() in data for data in kept)


def test_a_bucket_that_does_not_exist_is_named_before_anything_is_prepared(storage: str, tmp_path: Path) -> None:
    task = FakeTask()
    config = SearchConfig(
        budget=BudgetConfig(4), executor=ExecutorConfig(kind="serial"), storage=StorageConfig("s3://experimemts/first")
    )
    with pytest.raises(
        UserError, match=r"there is no bucket 'experimemts' at http://127.0.0.1:\d+; create it, or corr"
    ):
        run_search(config, out=tmp_path / "run", task=task)
    assert task.num_prepared == 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="there is no bucket 'experimemts'"):
        check_mirror("s3://experimemts/first")


def test_a_check_leaves_nothing_behind(storage: str) -> None:
    Store(URI).check()
    assert Store(URI).names("") == []


def test_storage_that_does_not_answer_is_named_with_its_endpoint(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(self: Store, path: str, data: bytes) -> None:
        raise OSError("AWS Error ACCESS_DENIED during PutObject operation")

    monkeypatch.setattr(Store, "_write", refuses)
    with pytest.raises(UserError, match=r"cannot be written at http://.*ACCESS_DENIED.*AWS_SECRET_ACCESS_KEY"):
        Store(URI).check()


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file; choose another place"):
        Store((tmp_path / "file" / "run").as_uri()).check()
    Store((tmp_path / "new" / "run").as_uri()).check()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, {"AWS_ACCESS_KEY_ID": "someone", "AWS_ENDPOINT_URL": "http://store"}),
        # A machine with an identity keeps it whole.
        ({"AWS_ROLE_ARN": "arn:worker"}, {"AWS_ROLE_ARN": "arn:worker", "AWS_ENDPOINT_URL": "http://store"}),
        (
            {"AWS_ENDPOINT_URL": "http://nearer"},
            {"AWS_ACCESS_KEY_ID": "someone", "AWS_ENDPOINT_URL": "http://nearer"},
        ),
    ],
)
def test_a_worker_adopts_the_variables_that_its_machine_does_not_set(
    own: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = {
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_ENDPOINT_URL": "http://store",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/of/the/drivers/container",
        "GOOGLE_APPLICATION_CREDENTIALS": "/not/on/this/machine.json",
        "HOME": "/drivers",
    }
    environment: dict[str, Any] = dict(driver)
    monkeypatch.setattr("os.environ", environment)
    variables = storage_variables()
    environment.clear()
    environment.update(own)
    adopt(variables)
    assert environment == expected
    assert "someone" not in repr(StorageVariables({"AWS_ACCESS_KEY_ID": "someone"}))
