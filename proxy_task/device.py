"""Where a trial runs: choosing the device, its number format, and how much memory it took."""

from __future__ import annotations

import contextlib
import os
import resource
from contextlib import AbstractContextManager

import torch

from spinenas.space.errors import UserError


def choose_device(name: str = "auto") -> torch.device:
    """Return the accelerator if there is one, else the CPU; or the device named. Raises UserError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {name!r} cannot be used here; use auto, cpu or cuda") from error
    return device


def autocast(device: torch.device, dtype: str) -> AbstractContextManager[object]:
    """Context in which convolutions run in the given format; batch norms keep float32 statistics in it."""
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, dtype))


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement. Where the kernel cannot reset a process's peak, the old peak stands."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def peak_memory_bytes(device: torch.device) -> int:
    """Largest allocated (accelerator) or resident (CPU) memory since the last reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
