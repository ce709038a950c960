"""The launch files and docs/cluster.md: they parse, agree with the command line and each other, and use tokens.

Nothing here needs docker, Kubernetes, Slurm or a cloud; slurm.sbatch runs with stand-ins for Slurm and Ray.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from shared_fixtures import REPOSITORY

from spinenas.search.cli.main import main
from spinenas.search.config.checking import dotted_keys
from spinenas.search.config.config import SearchConfig

FOLDER = REPOSITORY / "examples" / "cluster"
DOCKERFILES = [FOLDER / "Dockerfile.cpu", FOLDER / "Dockerfile.cuda"]
CLUSTER, RAYJOB, SBATCH = FOLDER / "ray-cluster.yaml", FOLDER / "kuberay-rayjob.yaml", FOLDER / "slurm.sbatch"
PAGE = REPOSITORY / "docs" / "cluster.md"
FILES = [*DOCKERFILES, CLUSTER, RAYJOB, SBATCH, PAGE]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def pinned(package: str) -> str:
    (version,) = re.findall(rf"^{package}==(.+)$", read(REPOSITORY / "constraints.txt"), flags=re.MULTILINE)
    return str(version)


def cluster() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(read(CLUSTER))
    return document


def rayjob() -> dict[str, Any]:
    (document,) = [document for document in yaml.safe_load_all(read(RAYJOB)) if document["kind"] == "RayJob"]
    spec: dict[str, Any] = document["spec"]
    return spec


def pods() -> list[dict[str, Any]]:
    """The pods of head and workers."""
    spec = rayjob()["rayClusterSpec"]
    return [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


def command_lines(path: Path) -> list[list[str]]:
    """All `spinenas COMMAND ...` of a file, as words after the program's name."""
    text = read(path)
    found = []
    if path == RAYJOB:
        found.append(rayjob()["entrypoint"].removeprefix("spinenas "))
    if path.suffix == ".yaml":  # beside comments, it has them as values alone
        text = "\n".join(line for line in text.splitlines() if line.lstrip().startswith("#"))
    text = text.replace('"$WORKERS"', "8")
    text = re.sub(r'"\$(\w+)"', r"\1", text)  # a variable stands for one word
    text = re.sub(r"\\\n[#\s]*", "", text)
    names = "|".join(sorted(main.commands))
    found += re.findall(rf"\bspinenas ((?:{names})\b[^\n`\"&|]*)", text)
    return [shlex.split(line, comments=True) for line in found]


LINES = [
    pytest.param(line, id=f"{path.name}-{line[0]}-{n}") for path in FILES for n, line in enumerate(command_lines(path))
]


def keys_of(text: str) -> set[str]:
    return set(re.findall(r"\b((?:executor|budget|storage|task|controller)\.[a-z_]+)\b(?!\()", text))


def test_each_file_has_the_same_commands() -> None:
    for path in (CLUSTER, RAYJOB, SBATCH):
        (line,) = [line for line in command_lines(path) if line[0] == "search"]
        assert {"--data", "--out", "--or-resume", "--address", "--workers"} <= set(line), path.name
    assert len(command_lines(PAGE)) >= 8


@pytest.mark.parametrize("line", LINES)
def test_commands_parse(line: list[str]) -> None:
    command: click.Command = main
    words = line
    while isinstance(command, click.Group):
        name, *words = words
        command = command.commands[name]
    assert command.make_context(name, words).args == [], "each word is an option or its value"


def test_configuration_keys_exist() -> None:
    table = read(PAGE).split("Keys that matter", 1)[1].split("## ", 1)[0]
    rows = re.findall(r"^\| (`.*?`) \|", table, flags=re.MULTILINE)
    keys = {f"executor.{name}" for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(keys) >= 10
    for path in FILES:
        keys |= keys_of(read(path))
    assert keys - set(dotted_keys(SearchConfig)) == set()


def test_every_file_turns_tokens_on_and_holds_none() -> None:
    for path in DOCKERFILES:
        assert re.search(r"^ENV(.*\\\n)*.*\bRAY_AUTH_MODE=token\b", read(path), flags=re.MULTILINE)
    assert "--env RAY_AUTH_MODE=token" in cluster()["docker"]["run_options"]
    assert cluster()["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    assert rayjob()["rayClusterSpec"]["authOptions"] == {"mode": "token", "secretName": "spinenas-ray-token"}
    assert "create secret generic spinenas-ray-token --from-file=auth_token=" in read(RAYJOB)
    assert re.search(r"^export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=", read(SBATCH), flags=re.MULTILINE)
    for line in re.findall(r"^    .*\bray start.*$", read(PAGE), flags=re.MULTILINE):
        assert line.startswith("    RAY_AUTH_MODE=token ray start")
    for path in FILES:
        assert not re.search(r"\b[0-9a-f]{32,}\b|RAY_AUTH_TOKEN=", read(path)), path.name


def test_versions_are_those_of_the_constraints() -> None:
    assert rayjob()["rayClusterSpec"]["rayVersion"] == pinned("ray")
    assert set(re.findall(r"ray\[default\]==([\d.]+)", read(PAGE))) == {pinned("ray")}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_built_from_existing_files_and_run_as_an_ordinary_user(path: Path) -> None:
    text = re.sub(r"\\\n\s*", "", read(path))
    for command in re.findall(r"pip install [^&\n]*", text):
        assert "--constraint constraints.txt" in command or "--no-deps ." in command, command
    for line in re.findall(r"^COPY (.*)$", text, flags=re.MULTILINE):
        assert all((REPOSITORY / source).exists() for source in line.split()[:-1]), line
    folders = tomllib.loads(read(REPOSITORY / "pyproject.toml"))["tool"]["setuptools"]["package-dir"].values()
    assert all(f"\nCOPY {folder} {folder}\n" in text for folder in folders)
    assert "'ray[default]'" in text
    assert text.rindex("\nUSER 1000\n") > text.rindex("\nRUN ")
    assert f"--file examples/cluster/{path.name} " in text


def test_the_images_differ_only_in_torch_and_nvidia_variables() -> None:
    cpu, cuda = ({line for line in read(path).splitlines() if line and line[0] != "#"} for path in DOCKERFILES)
    assert all("torch" in line for line in cpu - cuda)
    assert all("torch" in line or "NVIDIA_" in line for line in cuda - cpu)


def test_the_cluster_file_matches_the_schema_of_rays_launcher() -> None:
    import ray.autoscaler
    from jsonschema import validate
    from ray.autoscaler._private.docker import validate_docker_config
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    document = cluster()
    validate(document, json.loads(read(Path(ray.autoscaler.__file__).parent / "ray-schema.json")))
    filled = fillout_defaults(cluster())
    validate_config(filled)
    validate_docker_config(filled)
    # Keys that the file leaves out would have Ray's defaults, which are meant for another image.
    commands = {key: value for key, value in filled.items() if key.endswith("_commands") and value}
    assert commands == {key: value for key, value in document.items() if key.endswith("_commands") and value}
    assert all("ray start" in command[-1] for key, command in commands.items() if "start_ray" in key)


def test_the_cluster_has_an_on_demand_head_and_up_to_as_many_spot_workers_as_the_command_uses() -> None:
    document = cluster()
    head, spot = document["available_node_types"]["head"], document["available_node_types"]["gpu-spot"]
    assert document["head_node_type"] == "head"
    assert "InstanceMarketOptions" not in head["node_config"]
    assert head["resources"] == {"CPU": 0}
    assert spot["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    (line,) = command_lines(CLUSTER)
    assert (spot["min_workers"], spot["max_workers"]) == (0, int(line[line.index("--workers") + 1]))
    assert document["max_workers"] == spot["max_workers"]
    mounts = [option.split(":")[-1] for option in document["docker"]["run_options"] if option.startswith("--volume")]
    assert any(line[line.index("--out") + 1].startswith(mount + "/") for mount in mounts)
    assert any(line[line.index("--data") + 1] in command for command in document["setup_commands"])


# All fields of KubeRay 1.6 (API reference, ray.io/v1).
KUBERAY_FIELDS = {
    "RayJob": "activeDeadlineSeconds backoffLimit rayClusterSpec submitterPodTemplate metadata clusterSelector "
    "submitterConfig managedBy deletionStrategy entrypoint runtimeEnvYAML jobId submissionMode entrypointResources "
    "entrypointNumCpus entrypointNumGpus ttlSecondsAfterFinished shutdownAfterJobFinishes suspend",
    "RayCluster": "upgradeStrategy authOptions suspend managedBy autoscalerOptions headServiceAnnotations "
    "enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec rayVersion workerGroupSpecs",
    "autoscaler": "resources image imagePullPolicy securityContext idleTimeoutSeconds upscalingMode version env "
    "envFrom volumeMounts",
    "auth": "mode secretName enableK8sTokenAuth",
    "head": "template headService enableIngress rayStartParams serviceType",
    "worker": "groupName replicas minReplicas maxReplicas numOfHosts rayStartParams template scaleStrategy suspend "
    "idleTimeoutSeconds",
}


def kuberay_objects() -> Iterator[tuple[str, dict[str, Any]]]:
    job = rayjob()
    spec = job["rayClusterSpec"]
    yield "RayJob", job
    yield "RayCluster", spec
    yield "autoscaler", spec["autoscalerOptions"]
    yield "auth", spec["authOptions"]
    yield "head", spec["headGroupSpec"]
    for group in spec["workerGroupSpecs"]:
        yield "worker", group


def test_the_rayjob_has_only_fields_of_kuberay() -> None:
    for kind, found in kuberay_objects():
        assert set(found) - set(KUBERAY_FIELDS[kind].split()) == set(), kind
    spec = rayjob()["rayClusterSpec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    assert spec["autoscalerOptions"]["version"] in ("v1", "v2")
    assert rayjob()["submissionMode"] in ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")


def test_the_rayjob_repeats_the_command_and_scales_to_its_workers() -> None:
    job = rayjob()
    assert job["backoffLimit"] > 0
    assert job["rayClusterSpec"]["enableInTreeAutoscaling"] is True
    words = shlex.split(job["entrypoint"])
    (group,) = job["rayClusterSpec"]["workerGroupSpecs"]
    assert (group["minReplicas"], group["maxReplicas"]) == (0, int(words[words.index("--workers") + 1]))


def test_the_rayjob_mounts_volumes_where_run_and_data_are() -> None:
    documents = list(yaml.safe_load_all(read(RAYJOB)))
    claims = {document["metadata"]["name"]: document["spec"] for document in documents if "Claim" in document["kind"]}
    words = shlex.split(rayjob()["entrypoint"])
    for pod in pods():
        volumes = {
            volume["name"]: volume.get("persistentVolumeClaim", {}).get("claimName") for volume in pod["volumes"]
        }
        (container,) = pod["containers"]
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        for option in ("--out", "--data"):
            mount = str(Path(words[words.index(option) + 1]).parent)
            assert claims[mounts[mount]]["accessModes"] == ["ReadWriteMany"], option


def test_every_launch_file_keeps_the_image_cache_of_coco_on_a_disk_of_the_node_and_requests_the_space() -> None:
    needed = 118287 * 512**2 * 3
    assert round(needed / 1e9) == 93
    for pod in pods():
        (container,) = pod["containers"]
        (cache,) = [variable["value"] for variable in container["env"] if variable["name"] == "SPINENAS_CACHE"]
        (name,) = [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == cache]
        (volume,) = [volume for volume in pod["volumes"] if volume["name"] == name]
        sizes = [volume["emptyDir"]["sizeLimit"], container["resources"]["requests"]["ephemeral-storage"]]
        assert all(int(size.removesuffix("Gi")) * 2**30 > needed for size in sizes)
    options = cluster()["docker"]["run_options"]
    assert "--env SPINENAS_CACHE=/home/ray/cache" in options
    (outside,) = [option.split()[1].split(":")[0] for option in options if option.endswith(":/home/ray/cache")]
    assert any(outside in command.split() for command in cluster()["initialization_commands"])
    for node in cluster()["available_node_types"].values():
        assert node["node_config"]["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] * 2**30 > 1.5 * needed
    script = read(SBATCH)
    (space,) = re.findall(r"^#SBATCH --tmp=(\d+)G$", script, flags=re.MULTILINE)
    assert int(space) * 2**30 > needed
    assert "export SPINENAS_CACHE=${SPINENAS_CACHE:-${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/" in script
    assert all("93 GB" in read(path) for path in FILES if path not in DOCKERFILES)


def test_the_rayjobs_pods_run_as_the_images_user_without_rights() -> None:
    images = set()
    for pod in pods():
        assert pod["restartPolicy"] == "Never"
        assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 1000)
        (container,) = pod["containers"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        images.add(container["image"])
    assert images == {cluster()["docker"]["image"]}


STAND_INS = {
    "srun": 'echo "srun $*" >> "$CALLS"; exec sleep 60',
    "scontrol": 'if [ "$1" = show ]; then printf "n0\\nn1\\n"; else echo "scontrol $*" >> "$CALLS"; fi',
    "squeue": 'echo "$STATE"',
    "ray": "exit 0",
    "python": f'case "$2" in *"import ray"*) echo 192.0.2.1 ;; *) exec {sys.executable} "$@" ;; esac',
    # A stand-in for the driver, which ends with status $ENDS or waits for SIGTERM, once Ray's two processes have begun.
    "spinenas": """while [ "$(grep -c '^srun' "$CALLS")" -lt 2 ]; do sleep 0.05; done
trap 'echo told >> "$CALLS"; exit 143' TERM
echo "spinenas $*" >> "$CALLS"
ls -l "$RAY_AUTH_TOKEN_PATH" | cut -c 1-10 >> "$CALLS"
if [ -n "$ENDS" ]; then exit "$ENDS"; fi
while :; do sleep 0.05; done""",
}


class Job:
    """Runs slurm.sbatch with stand-ins for the commands that it calls."""

    def __init__(self, folder: Path, *, ends: str, state: str = "RUNNING"):
        self.calls_file = folder / "calls"
        self.shared = folder / "shared"
        programs = folder / "venv" / "bin"
        programs.mkdir(parents=True)
        for name, text in STAND_INS.items():
            (programs / name).write_text(f"#!/bin/sh\n{text}\n")
            (programs / name).chmod(0o755)
        self.process = subprocess.Popen(
            [bash(), SBATCH],
            env={name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
            | {
                "VENV": str(folder / "venv"),
                "RUN": str(self.shared / "run"),
                "DATA": "/data",
                "SLURM_JOB_ID": "7",
                "SLURM_JOB_NUM_NODES": "2",
                "SLURM_JOB_NODELIST": "n[0-1]",
                "SLURM_CPUS_PER_TASK": "16",
                "SLURM_GPUS_ON_NODE": "4",
                "CALLS": str(self.calls_file),
                "ENDS": ends,
                "STATE": state,
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []

    def tell(self) -> None:
        """Send the signal of --signal=B:TERM once the driver runs."""
        deadline = time.monotonic() + 120
        while "-rw-------" not in self.calls():
            assert time.monotonic() < deadline, self.calls()
            time.sleep(0.02)
        self.process.send_signal(signal.SIGTERM)

    def status(self) -> int:
        _, errors = self.process.communicate(timeout=120)
        assert errors == ""
        assert list(self.shared.iterdir()) == []  # the token is removed
        return self.process.returncode


def bash() -> str:
    path = shutil.which("bash")
    if path is None or subprocess.run([path, "-c", "((BASH_VERSINFO[0] >= 4))"], check=False).returncode:
        pytest.skip("slurm.sbatch needs bash 4 or newer, as Slurm's machines have it")
    return path


def test_the_job_script_is_valid_bash_with_the_slurm_options_it_needs() -> None:
    subprocess.run([bash(), "-n", SBATCH], check=True)
    options = re.findall(r"^#SBATCH (--.*)$", read(SBATCH), flags=re.MULTILINE)
    assert {"--requeue", "--signal=B:TERM@180", "--no-kill", "--exclusive", "--ntasks-per-node=1"} <= set(options)


@pytest.mark.parametrize("ends", ["0", "1"])
def test_a_job_whose_search_ends_is_not_requeued(tmp_path: Path, ends: str) -> None:
    job = Job(tmp_path, ends=ends)
    assert job.status() == int(ends)
    calls = job.calls()
    head, worker = sorted(line for line in calls if line.startswith("srun"))
    assert "--nodelist=n0 " in head
    assert " ray start --head --block " in head
    assert "--port=20007 " in head
    assert "--nodelist=n1 " in worker
    assert " --address=192.0.2.1:20007 " in worker
    (command,) = [line for line in calls if line.startswith("spinenas")]
    assert command == (
        f"spinenas search spinenet49-proxy --data /data --out {tmp_path}/shared/run --or-resume "
        "--address 192.0.2.1:20007 --workers 8"
    )
    assert "-rw-------" in calls
    assert not any(line.startswith("scontrol") for line in calls)


@pytest.mark.parametrize(("state", "requeued"), [("RUNNING", True), ("COMPLETING", False)])
def test_a_job_that_is_sent_sigterm_stops_its_search_and_is_requeued_unless_slurm_ends_it(
    tmp_path: Path, state: str, requeued: bool
) -> None:
    job = Job(tmp_path, ends="", state=state)
    job.tell()
    assert job.status() == 143
    assert job.calls().count("told") == 1
    assert ("scontrol requeue 7" in job.calls()) == requeued
