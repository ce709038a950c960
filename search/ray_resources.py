"""Whether a cluster can ever hold a worker: what its machines have, and those its autoscaler may add."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import ray

from spinenas.space.errors import UserError

Resources = Mapping[str, float]


def explain_waiting(request: Resources) -> str:
    """Say why no worker has found room yet. Raises UserError if none ever can.

    Args:
        request: what one worker asks for, by resource.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    types = autoscaler_node_types()
    wanted = _in_words(request)
    if fits_any(request, nodes):
        return f"no worker has found room yet, each needs {wanted}: all machines that have it are taken; waiting"
    if types is None:
        return (
            f"no machine of the cluster has {wanted}, which each worker needs; the largest has {_largest(nodes)}; "
            "waiting, as it is not known whether machines with more will be added"
        )
    if fits_any(request, types.values()):
        return f"no machine has {wanted} yet, which each worker needs; waiting for the autoscaler to add one"
    raise UserError(
        f"no worker can ever run: each needs {wanted}, the largest machine has {_largest(nodes)}"
        + (f", and the autoscaler knows {_largest(types.values())} at most" if types else "")
        + "; set less of executor.cpus_per_worker, executor.gpus_per_worker or executor.tpus_per_worker"
    )


def fits_any(request: Resources, machines: Iterable[Resources]) -> bool:
    """Whether any of the machines, when empty, holds one worker."""
    return any(all(machine.get(name, 0.0) >= amount for name, amount in request.items()) for machine in machines)


def autoscaler_node_types() -> dict[str, dict[str, float]] | None:
    """Resources of each kind of machine the autoscaler may add, by name; empty without one, None if unknown."""
    return None


def _in_words(resources: Resources) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in resources.items()) or "nothing"


def _largest(machines: Iterable[Resources]) -> str:
    """The most of each resource that any machine has."""
    most: dict[str, float] = {}
    for machine in machines:
        for name in ("CPU", "GPU", "TPU"):
            if machine.get(name, 0.0) > most.get(name, 0.0):
                most[name] = machine[name]
    return _in_words(most)
