"""Preflight on a Ray cluster: checks one machine of each kind that could hold a worker."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from spinenas.search.executors.base import Note
from spinenas.search.executors.local_cpus import is_remote, num_cpus_here, num_workers_here
from spinenas.search.executors.ray_resources import explain_waiting, fits_any, num_fitting
from spinenas.search.executors.ray_session import accelerators_of, options_of, prepare_worker, ray_session, request_of
from spinenas.search.planning.machine import Check, CheckRequest, MachineReport, check_machine
from spinenas.space.errors import UserError

PATIENCE_SECONDS = 20.0
"""A machine that has not answered by then is mentioned in a note."""

COUNTED = ("CPU", "GPU", "TPU")
"""Machines with equal amounts of these resources and the same accelerator types are of one kind."""


def check_cluster(request: CheckRequest, note: Note) -> tuple[list[MachineReport], float]:
    """Check the machines under the conditions of a worker.

    Returns:
        The reports, and the number of accelerators of each worker.

    Raises UserError if no machine could hold a worker.
    """
    config = request.config.executor
    asked = config.workers
    if not is_remote(config):  # a local Ray starts as many as asked for, more than a check needs
        config = replace(config, workers=num_workers_here(config))
        request = replace(request, config=replace(request.config, executor=config))
    with ray_session(config, note) as gpus:
        needed = request_of(config, gpus)
        kinds: dict[str, list[dict[str, Any]]] = {}
        for node in ray.nodes():  # type: ignore[no-untyped-call]
            if node["Alive"] and fits_any(needed, [node["Resources"]]):
                kinds.setdefault(_kind(node), []).append(node)
        if not kinds:
            raise UserError(explain_waiting(needed))
        machines: list[MachineReport] = []
        for kind, nodes in kinds.items():
            node = nodes[0]
            room = num_fitting(needed, [each["Resources"] for each in nodes])
            if machines:  # one training is enough
                request = replace(request, longest_training_seconds=0.0)
            name = f"{node['NodeManagerHostname']} ({kind})"
            note(f"checking {name}")
            options: dict[str, Any] = {
                **options_of(config, gpus),
                "scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
                "max_retries": 0,
            }
            reference = ray.remote(_check_worker).options(**options).remote(request, name, gpus)
            ready, _ = ray.wait([reference], timeout=PATIENCE_SECONDS)
            if not ready:
                note(f"{name} has not answered yet, maybe because it has no room for a worker now; waiting")
            try:
                report = replace(ray.get(reference), room=room)
                if config.workers < asked:
                    words = f"{config.workers} of {asked} fit the {num_cpus_here()} CPUs here"
                    report = replace(report, checks=(*report.checks, Check("workers", words, word="warning")))
                machines.append(report)
            except RayError as error:
                said = str(error).strip().splitlines()[-1]
                machines.append(MachineReport(name, (f"a worker cannot run there: {said}",)))
        return machines, accelerators_of(config, gpus)


def _check_worker(request: CheckRequest, name: str, gpus: float) -> MachineReport:
    prepare_worker(replace(request.config.executor, data_command=None), gpus, request.session, request.variables)
    return check_machine(request, name)


def _kind(node: dict[str, Any]) -> str:
    has = [f"{node['Resources'][name]:g} {name}" for name in COUNTED if node["Resources"].get(name)]
    types = [name.partition(":")[2] for name in node["Resources"] if name.startswith("accelerator_type:")]
    return ", ".join([*has, *sorted(types)])
