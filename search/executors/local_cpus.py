"""Counts the CPUs of this machine, and the workers that fit them. It does not load Ray."""

from __future__ import annotations

import os

from spinenas.search.config.executor import ExecutorConfig

LOCAL = "local"
"""Ray's name for a local Ray; no address means the same."""


def is_remote(config: ExecutorConfig) -> bool:
    """Whether trials run on an existing cluster."""
    return config.address not in (None, LOCAL)


def num_cpus_here() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def num_workers_here(config: ExecutorConfig) -> int:
    """Return how many of the configured workers have CPUs of their own on this machine, at least 1."""
    return max(1, min(config.workers, num_cpus_here() // config.threads_per_trial))
