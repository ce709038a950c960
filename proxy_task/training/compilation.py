"""Compiled programs for the parts of a training step, shared by all candidates that a process trains.

Blocks of the same kind and shape recur in almost every genotype: torch keeps a program for each shape that a block's
code was called with, and the weights are arguments of it. So the first candidates compile most of what the later ones
need. Programs are also kept on disk, in the cache folder, for other workers; torch names them by device and versions.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from spinenas.proxy_task.detector.retinanet import RetinaNet, Tower
from spinenas.space.network.blocks import BLOCKS, ConvNorm
from spinenas.space.network.resample import MobileResample, Resample

Mode = Literal["off", "blocks", "whole"]

Function = TypeVar("Function", bound=Callable[..., object])

REGIONS = (*BLOCKS.values(), Resample, MobileResample, Tower)
"""Modules that are compiled by themselves; stem and endpoints, which are not in one of them, are too."""

BACKEND: str | Callable[..., Any] = "inductor"
"""What torch.compile compiles with; tests count with another."""

MAX_RECOMPILES = 4096
"""Torch gives up on code that it has compiled for more shapes than this; a space has some hundreds."""


def maybe_compiled(function: Function, mode: Mode) -> Function:
    """Return the function, compiled for each shape it is called with unless the mode is "off"."""
    return function if mode == "off" else _compiled(function, BACKEND)


@cache
def _compiled(function: Function, backend: str | Callable[..., Any]) -> Function:
    program: Function = torch.compile(function, backend=backend, fullgraph=True, dynamic=False)  # type: ignore[assignment]
    return program


def compile_network(network: RetinaNet, mode: Mode) -> None:
    """Have the parts of a network, or all of it as one, compiled when they are first called.

    Args:
        network: changed in place.
        mode: "off" for no compilation; "blocks" for programs that candidates share; "whole" for one of its own, which
            takes longer to compile and leaves more to be joined.
    """
    modules: dict[Mode, list[nn.Module]] = {"off": [], "blocks": regions(network), "whole": [network]}
    for module in modules[mode]:
        module.compile(backend=BACKEND, fullgraph=True, dynamic=False)


def regions(network: RetinaNet) -> list[nn.Module]:
    """The modules that "blocks" compiles: none is part of another one."""
    loose = [module for module in network.backbone.children() if isinstance(module, ConvNorm)]
    return loose + [module for module in network.modules() if isinstance(module, REGIONS)]


def prepare_compilation(folder: Path) -> None:
    """Keep programs in a folder, which may be shared, unless the environment names another; and any number of them.

    Torch unpickles what it finds there: who can write to the folder can run code, as with an environment's packages.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
    from torch._dynamo import config

    config.recompile_limit = max(config.recompile_limit, MAX_RECOMPILES)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, MAX_RECOMPILES)


def compile_seconds() -> float:
    """Seconds that this process has spent compiling so far."""
    from torch._dynamo.utils import compilation_time_metrics

    # With what dynamo traces goes its forward program; a backward one is compiled when it is first needed.
    names = ("_compile.compile_inner", "backward._backward_impl")
    return sum(sum(compilation_time_metrics.get(name, ())) for name in names)
