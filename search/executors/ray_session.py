"""Connects to Ray or starts it, and prepares its workers."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import spinenas.space
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.executors.base import Note
from spinenas.search.executors.data_command import run_once_per_machine
from spinenas.search.executors.local_cpus import LOCAL, is_remote, num_cpus_here, num_workers_here
from spinenas.search.executors.local_ray import check_port, folder_for_ray, provide_token, start_error
from spinenas.search.executors.ray_address import (
    AUTO,
    asks_for_token,
    check_answers,
    found_address,
    listens,
    watched_head,
)
from spinenas.search.executors.ray_resources import num_fitting
from spinenas.search.executors.stop_signals import Terminated
from spinenas.search.executors.storage_variables import StorageVariables, adopt
from spinenas.space.errors import UserError, first_line

OBJECT_STORE_BYTES = 100 * 2**20
"""Shared memory of a Ray started here. Only the task and small events pass through it; images do not."""

CONNECT_SECONDS = 60.0
"""Time limit for a connection to a cluster that answers."""

LOOK_SECONDS = 2.0
"""Interval of the checks that a cluster still answers while Ray connects to it."""

ANSWER_SECONDS = 120.0
"""Time limit for a machine to report its GPU memory; a process has to start there and load torch."""


@contextmanager
def ray_session(config: ExecutorConfig, note: Note) -> Iterator[float]:
    """Connect to Ray, or start one for this search and stop it afterwards. Raises UserError.

    Yields:
        GPUs of each worker.
    """
    with ExitStack() as stack:
        if not ray.is_initialized():
            _init(config, note, stack)
            stack.callback(ray.shutdown)
            stack.enter_context(watched_head(ray.get_runtime_context().gcs_address, note))
        yield _gpus_per_worker(config, note)


def _init(config: ExecutorConfig, note: Note, stack: ExitStack) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # The future default for workers without GPUs; setting it also silences a notice.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if is_remote(config):
        _join(config, note, stack, quiet)
        return
    if num_workers_here(config) < config.workers:
        note(
            f"WARNING: {config.workers} workers are more than fit the {num_cpus_here()} CPUs here; they share them, "
            "train no faster, and need memory for each"
        )
    check_port()
    provide_token()
    folder = folder_for_ray(note)
    try:
        # A local Ray gets as many logical CPUs as the workers need; the user decides how many real ones are used.
        # The address is explicit: without one Ray would join the cluster of RAY_ADDRESS, or one of this machine.
        _connect(
            address=LOCAL,
            num_cpus=max(1, math.ceil(config.workers * config.cpus_per_worker)),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            _temp_dir=str(folder),
            **quiet,
        )
    except (OSError, RuntimeError, ValueError, RayError) as error:
        ray.shutdown()  # ends the daemons that did start
        raise start_error(error, folder) from error


def _join(config: ExecutorConfig, note: Note, stack: ExitStack, options: dict[str, Any]) -> None:
    """Connect to the cluster of the configured address. Raises UserError if it does not answer."""
    address = found_address(config.address or "", note)
    place = repr(address) if config.address != AUTO else f"{address!r}, which 'auto' has found"
    if config.address == AUTO and "RAY_ADDRESS" not in os.environ:
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)  # as Ray does for "auto"
    check_answers(address, place)
    if config.ship_code:
        options = options | {"runtime_env": {"py_modules": [str(_staged_code(stack))]}}
    _connect_in_time(address, place, options)
    if asks_for_token(ray.get_runtime_context().gcs_address) is False:
        note(
            f"WARNING: the Ray cluster at {place} takes commands from everyone who can reach it, because "
            "it was started without RAY_AUTH_MODE=token; see docs/cluster.md, Security"
        )


def _connect_in_time(address: str, place: str, options: dict[str, Any]) -> None:
    """Call `ray.init` in a thread, and give up when the cluster ends meanwhile: Ray itself would wait for minutes.

    The main thread stays free for signals. Raises UserError.
    """
    errors: list[BaseException] = []

    def connect() -> None:
        try:
            ray.init(address=address, **options)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=connect, name="connect to Ray", daemon=True)
    thread.start()
    began = time.monotonic()
    while thread.is_alive():
        thread.join(LOOK_SECONDS)
        if thread.is_alive() and (not listens(address) or time.monotonic() - began > CONNECT_SECONDS):
            raise UserError(
                f"the Ray cluster at {place} ended while the search connected to it; start it again with "
                "`ray start --head`, and repeat the command"
            )
    if errors:
        raise UserError(
            f"the Ray cluster at {place} does not accept this search ({first_line(errors[0])}); check that this "
            "machine is one of its nodes, and that its versions of Python and Ray are those of this machine"
        ) from errors[0]


def _connect(**options: Any) -> None:
    """Call `ray.init`, and keep this process's SIGTERM handler, which Ray replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options)
    except SystemExit as error:
        raise Terminated from error  # Ray's own reaction to SIGTERM while it connects
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _staged_code(stack: ExitStack) -> Path:
    """Copy the installed spinenas into a temporary folder, in the form that Ray ships to workers.

    The sub-packages are found by walking the installation, so that a new one needs no entry anywhere.

    Returns:
        The folder `spinenas`. It is removed when the stack is closed.
    """
    root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spinenas-code-"))) / "spinenas"
    source = Path(spinenas.space.__file__).parent.parent
    for init in source.glob("*/__init__.py"):
        # An editable installation lies in the repository, which has other folders too.
        if importlib.util.find_spec(f"spinenas.{init.parent.name}") is not None:
            shutil.copytree(init.parent, root / init.parent.name, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def _gpus_per_worker(config: ExecutorConfig, note: Note) -> float:
    """Return each worker's share of the GPUs; a local Ray must fit all workers, as it does not grow."""
    present = ray.cluster_resources()  # type: ignore[no-untyped-call]
    share = config.gpus_per_worker
    if config.gpu_memory_gib is not None:
        share = packed_share(config.gpu_memory_gib, _gpu_memory_gib(config.gpu_memory_gib))
    elif share is None:
        share = 0.0 if config.tpus_per_worker else present.get("GPU", 0.0) / config.workers
        # At most 1, because a trial uses one GPU, and a larger share might fit no machine. Rounded down, so that all
        # workers fit.
        share = math.floor(min(1.0, share) * 100) / 100
        if is_remote(config) and not share and not config.tpus_per_worker:
            note(
                "the cluster has no GPU now, so that trials run on CPUs; "
                "set executor.gpus_per_worker if machines with GPUs will be added"
            )
    if is_remote(config):
        _note_missing_workers(config, share, note)
    for name, wanted in request_of(config, share).items():
        if config.workers * wanted > present.get(name, 0.0) and not is_remote(config):
            raise UserError(
                f"{config.workers} workers with {wanted:g} {name}s each need {config.workers * wanted:g}, and Ray has "
                f"{present.get(name, 0.0):g}; set fewer executor.workers or less of executor.{name.lower()}s_per_worker"
            )
    return share


def _note_missing_workers(config: ExecutorConfig, share: float, note: Note) -> None:
    """Say at the start of a search that the cluster has room for fewer workers than it asks for, if so."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    room = num_fitting(request_of(config, share), nodes)
    if 0 < room < config.workers:
        note(
            f"{room} of {config.workers} workers fit this cluster; the search goes on with those, and with the others "
            "as machines are added"
        )


def packed_share(trial_gib: float, gpu_gib: float) -> float:
    """Return the fraction of a GPU that a trial needs by its memory, rounded up to hundredths for Ray.

    Raises UserError if it needs more than all of it.
    """
    if trial_gib > gpu_gib:
        raise UserError(
            f"executor.gpu_memory_gib is {trial_gib:g}, and the cluster has a GPU with {gpu_gib:.1f} GiB; "
            "set it lower, or train smaller batches"
        )
    return math.ceil(100 * trial_gib / gpu_gib) / 100


def _gpu_memory_gib(wanted: float) -> float:
    """Return the smallest GPU memory of the cluster's machines. Raises UserError without a GPU."""
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]  # type: ignore[no-untyped-call]
    if not nodes:
        raise UserError(
            f"executor.gpu_memory_gib is {wanted:g}, and the cluster has no GPU now; start one machine with GPUs, or "
            "set executor.gpus_per_worker instead"
        )
    ask = ray.remote(_own_gpu_memory_gib)
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    # The smallest fraction of a GPU, as other jobs may hold the rest.
    asked = [ask.options(num_cpus=0, num_gpus=0.01, scheduling_strategy=node).remote() for node in there]
    try:
        return float(min(ray.get(asked, timeout=ANSWER_SECONDS)))
    except RayError as error:
        raise UserError(
            f"the memory of the cluster's GPUs cannot be read ({first_line(error)}); set executor.gpus_per_worker "
            "instead of executor.gpu_memory_gib"
        ) from error


def _own_gpu_memory_gib() -> float:
    from spinenas.proxy_task.training.device import accelerator_memory_gib

    return accelerator_memory_gib()


def request_of(config: ExecutorConfig, gpus: float) -> dict[str, float]:
    """Resources that one worker requests from Ray."""
    wanted = {"CPU": config.cpus_per_worker, "GPU": gpus, "TPU": float(config.tpus_per_worker)}
    return {name: amount for name, amount in wanted.items() if amount}


def options_of(config: ExecutorConfig, gpus: float) -> dict[str, Any]:
    """Resources that one worker requests from Ray, as options of an actor or a task."""
    request = request_of(config, gpus)
    return {"num_cpus": request.pop("CPU", 0), "num_gpus": request.pop("GPU", 0), "resources": request}


def accelerators_of(config: ExecutorConfig, gpus: float) -> float:
    """Accelerators of a worker, for accounting; a worker on CPUs counts as one."""
    return gpus or config.tpus_per_worker or 1.0


def prepare_worker(config: ExecutorConfig, gpus: float, session: str, variables: StorageVariables) -> None:
    """Prepare a worker before it opens its task: variables, limit of its GPUs, data. Raises UserError.

    Args:
        gpus: that it has reserved.
        session: of the driver, for the data command.
        variables: of the driver, for object stores.
    """
    adopt(variables)
    if gpus == 0:  # Ray leaves all GPUs visible then
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if config.gpu_memory_gib is not None:
        from spinenas.proxy_task.training.device import limit_accelerator_memory

        limit_accelerator_memory(gpus)
    run_once_per_machine(config.data_command, session)
