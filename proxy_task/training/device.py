"""The device of a training: choice, number format, threads, and peak memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from spinenas.space.errors import UserError


def choose_device(name: str = "auto") -> torch.device:
    """Return the named device; for "auto" the accelerator if there is one, else the CPU. Raises UserError.

    Torch finds the accelerator. A backend with its own package, such as torch-tpu for TPUs, registers itself when the
    package is installed.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return accelerator or torch.device("cpu")
    types = ["cpu"] if accelerator is None else ["cpu", accelerator.type]
    try:
        device = torch.device(name)
        if device.type not in types:
            raise RuntimeError(f"there is no {device.type} here")
        torch.empty(0, device=device)
    except RuntimeError as error:
        usable = f"{', '.join(['auto', *types[:-1]])} or {types[-1]}"
        raise UserError(f"device {name!r} cannot be used here; use {usable}") from error
    return device


def device_name(device: torch.device) -> str:
    """Return the name of a device, such as "NVIDIA H100 80GB HBM3" or the processor's model."""
    if device.type != "cpu":
        with contextlib.suppress(AttributeError, RuntimeError):  # not every backend has names
            return str(torch.get_device_module(device).get_device_name(device))
        return device.type
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def use_threads(count: int) -> None:
    """Set the number of CPU threads of this process.

    Without the variable, hotcoco would start one thread per core in every worker. It reads it at its first run.
    """
    torch.set_num_threads(count)
    os.environ["RAYON_NUM_THREADS"] = str(count)


_ISA_WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")
"""Values of ONEDNN_MAX_CPU_ISA with which oneDNN, which computes a CPU's convolutions, has no bfloat16 instructions."""

Bfloat16Support = Callable[[torch.device], str | None]
"""Returns what makes bfloat16 fast on a device, such as "AMX"; None where float32 is faster."""


def bfloat16_support(device: torch.device) -> str | None:
    """Return what makes bfloat16 fast on a device, in a word or two; None where float32 is faster.

    A CPU needs instructions for it: with AVX2 alone a training step takes 5 to 7 times as long as in float32.
    """
    if device.type == "cpu":
        if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in _ISA_WITHOUT_BFLOAT16:
            return None
        for name, has in (("AMX", "_is_amx_tile_supported"), ("AVX512-BF16", "_is_avx512_bf16_supported")):
            if getattr(torch.cpu, has, bool)():
                return name
        return None
    if device.type in ("tpu", "xla"):
        return "TPU"
    is_supported: Callable[..., bool] = getattr(torch.get_device_module(device), "is_bf16_supported", lambda **_: False)
    try:
        supported = is_supported(including_emulation=False)  # CUDA and XPU count emulation unless told otherwise
    except TypeError:  # another backend, which does not know the argument
        supported = is_supported()
    except RuntimeError:
        supported = False
    return device_name(device) if supported else None


def choose_dtype(dtype: str, device: torch.device, supports: Bfloat16Support) -> str:
    """Return a number format; for "auto" bfloat16 if it is fast on the device, else float32."""
    if dtype != "auto":
        return dtype
    return "float32" if supports(device) is None else "bfloat16"


def autocast(device: torch.device, dtype: str) -> AbstractContextManager[object]:
    """Return a context in which convolutions run in a format, "float32" or "bfloat16"; batch norms keep float32."""
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, dtype))


def accelerator_memory_gib() -> float:
    """Return the total memory of the accelerator in GiB. Raises RuntimeError without an accelerator."""
    _, total = torch.accelerator.get_memory_info()
    return total / 2**30


def limit_accelerator_memory(share: float) -> None:
    """Limit this process to its share of a GPU's memory, so that other processes on the GPU keep theirs.

    Does nothing where torch has no such limit for the accelerator.
    """
    if torch.cuda.is_available() and share < 1:
        torch.cuda.set_per_process_memory_fraction(share)


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of peak memory. Where the kernel cannot reset a process's peak, the old peak remains.

    On a CPU, freed memory that the C library holds back is returned first; otherwise it would count as used.
    """
    if device.type != "cpu":
        with contextlib.suppress(RuntimeError):  # not every accelerator measures memory
            torch.accelerator.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def peak_memory_bytes(device: torch.device) -> int | None:
    """Return the peak of allocated (accelerator) or resident (CPU) memory since the last reset; None if unknown."""
    if device.type != "cpu":
        try:
            return torch.accelerator.max_memory_allocated(device)
        except RuntimeError:
            return None
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
