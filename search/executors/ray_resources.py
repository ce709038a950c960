"""Checks whether a cluster can hold a worker, on its machines or on those that its autoscaler may add."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import yaml
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined]
from ray.experimental.internal_kv import _internal_kv_get

from spinenas.space.errors import UserError

Resources = Mapping[str, float]


def explain_waiting(request: Resources) -> str:
    """Return a sentence that explains why no worker has started yet. Raises UserError if none ever can.

    Args:
        request: resources of one worker.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    wanted = _in_words(request)
    if fits_any(request, nodes):
        return (
            f"no worker has started yet: each needs {wanted}, and they are starting or the machines that have it are "
            "in use; waiting"
        )
    possible = autoscaler_can_hold(request)
    if possible is None:
        return (
            f"no machine of the cluster has {wanted}, which each worker needs; {_largest(nodes)}; "
            "a search waits until a machine with more is added; or request less, such as with executor.cpus_per_worker"
        )
    if possible:
        return f"no machine has {wanted} yet, which each worker needs; waiting for the autoscaler to add one"
    raise UserError(
        f"no worker can ever run: each needs {wanted}, {_largest(nodes)}, and no kind of machine that the autoscaler "
        "knows has more; set less of executor.cpus_per_worker, executor.gpus_per_worker or executor.tpus_per_worker"
    )


def fits_any(request: Resources, machines: Iterable[Resources]) -> bool:
    """Whether a machine without other work can hold a worker."""
    return any(all(machine.get(name, 0.0) >= amount for name, amount in request.items()) for machine in machines)


def num_fitting(request: Resources, machines: Iterable[Resources]) -> int:
    """Return how many workers the machines hold together when they have no other work."""
    return sum(
        min((math.floor(machine.get(name, 0.0) / amount + 1e-9) for name, amount in request.items()), default=0)
        for machine in machines
    )


def autoscaler_can_hold(request: Resources) -> bool | None:
    """Whether the autoscaler may add a machine that can hold a worker; None without an answer."""
    if is_autoscaler_v2(fetch_from_server=True):
        return _version_2_can_hold(request)
    types = _version_1_types()
    return fits_any(request, types) if types else None


def _version_2_can_hold(request: Resources) -> bool | None:
    """Ask the newer autoscaler, which lists the requests it cannot meet once it has seen the demand."""
    reply = GetClusterStatusReply()
    gcs = GcsClient(address=ray.get_runtime_context().gcs_address)
    reply.ParseFromString(gcs.get_cluster_status(timeout_s=10))
    state = reply.autoscaling_state
    if not state.autoscaler_state_version:
        return None
    unmet = [dict(each.resources_bundle) for each in state.infeasible_resource_requests]
    return not any(all(bundle.get(name, 0.0) == amount for name, amount in request.items()) for bundle in unmet)


def _version_1_types() -> list[dict[str, float]]:
    """Read the machine types of the older autoscaler from its configuration, if it runs on this machine."""
    status = _internal_kv_get("__autoscaling_status")
    if not status:
        return []
    try:
        command = Path(f"/proc/{json.loads(status)['monitor_pid']}/cmdline").read_text().split("\0")
        (path,) = (word.partition("=")[2] for word in command if word.startswith("--autoscaling-config="))
        config: dict[str, Any] = yaml.safe_load(Path(path).expanduser().read_text())
        kinds = config["available_node_types"].values()
        return [dict(kind["resources"]) for kind in kinds if kind.get("max_workers", config.get("max_workers", 0))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return []


def _in_words(resources: Resources) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in resources.items() if amount) or "nothing"


def _largest(machines: Sequence[Resources]) -> str:
    """Return the largest amount of each resource on any machine, in words."""
    most = {name: max((each.get(name, 0.0) for each in machines), default=0.0) for name in ("CPU", "GPU", "TPU")}
    return f"the most that any has is {_in_words(most)}"
