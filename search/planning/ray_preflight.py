"""Preflight on a cluster: one machine of each kind that could hold a worker."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from spinenas.search.executors.base import Note
from spinenas.search.executors.ray_resources import explain_waiting, fits_any
from spinenas.search.executors.ray_session import accelerators_of, options_of, prepare_worker, ray_session, request_of
from spinenas.search.planning.machine import Errand, Machine, examine
from spinenas.space.errors import UserError

PATIENCE_SECONDS = 20.0
"""After which it is said that a machine has not answered."""

COUNTED = ("CPU", "GPU", "TPU")
"""Machines that have as much of these are of one kind, unless their accelerators are of different types."""


def examine_cluster(errand: Errand, note: Note) -> tuple[list[Machine], float]:
    """Examine the machines as workers would find them; say how many accelerators each worker has.

    Raises UserError if no machine could hold a worker.
    """
    config = errand.config.executor
    with ray_session(config, note) as gpus:
        request = request_of(config, gpus)
        kinds: dict[str, dict[str, Any]] = {}
        for node in ray.nodes():  # type: ignore[no-untyped-call]
            if node["Alive"] and fits_any(request, [node["Resources"]]):
                kinds.setdefault(_kind(node), node)
        if not kinds:
            raise UserError(explain_waiting(request))
        machines = []
        for kind, node in kinds.items():
            name = f"{node['NodeManagerHostname']} ({kind})"
            note(f"trying {name}")
            options: dict[str, Any] = {
                **options_of(config, gpus),
                "scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
                "max_retries": 0,
            }
            reference = ray.remote(_examine).options(**options).remote(errand, name, gpus)
            ready, _ = ray.wait([reference], timeout=PATIENCE_SECONDS)
            if not ready:
                note(f"{name} has no room for a worker now, or takes its time; waiting")
            try:
                machines.append(ray.get(reference))
            except RayError as error:
                said = str(error).strip().splitlines()[-1]
                machines.append(Machine(name, (f"a worker cannot run there: {said}",)))
        return machines, accelerators_of(config, gpus)


def _examine(errand: Errand, name: str, gpus: float) -> Machine:
    prepare_worker(replace(errand.config.executor, data_command=None), gpus, errand.session)
    return examine(errand, name)


def _kind(node: dict[str, Any]) -> str:
    has = [f"{node['Resources'][name]:g} {name}" for name in COUNTED if node["Resources"].get(name)]
    types = [name.partition(":")[2] for name in node["Resources"] if name.startswith("accelerator_type:")]
    return ", ".join([*has, *sorted(types)])
