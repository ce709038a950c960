"""Compiles the parts of a training step, so that all candidates of a process share the programs.

Blocks of the same kind and shape recur in almost every genotype. Torch keeps one program for each shape that a block's
code was called with, and weights are arguments of the program. The first candidates therefore compile most of what
later ones need. The cache folder stores programs for other workers; torch names them by device and versions.
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
from spinenas.space.network.blocks import BLOCKS
from spinenas.space.network.layers import ConvNorm
from spinenas.space.network.resample import MobileResample, Resample

Mode = Literal["off", "blocks", "whole"]

Function = TypeVar("Function", bound=Callable[..., object])

REGIONS = (*BLOCKS.values(), Resample, MobileResample, Tower)
"""Classes of modules that "blocks" compiles, besides the convolutions of stem and endpoints."""

BACKEND: str | Callable[..., Any] = "inductor"
"""Backend of torch.compile; tests replace it by one that counts."""

MAX_RECOMPILES = 4096
"""Most shapes that torch compiles one piece of code for; a search space has some hundreds."""


def maybe_compiled(function: Function, mode: Mode) -> Function:
    """Return the function; unless the mode is "off", compiled for each shape that it is called with."""
    return function if mode == "off" else _compiled(function, BACKEND)


@cache
def _compiled(function: Function, backend: str | Callable[..., Any]) -> Function:
    program: Function = torch.compile(function, backend=backend, fullgraph=True, dynamic=False)  # type: ignore[assignment]
    return program


def compile_network(network: RetinaNet, mode: Mode) -> None:
    """Mark the parts of a network, or the network as a whole, to be compiled at their first call.

    Args:
        network: changed in place.
        mode: "off" for no compilation; "blocks" for programs that candidates share; "whole" for one program per
            candidate, which takes longer to compile and can be optimised further.
    """
    modules: dict[Mode, list[nn.Module]] = {"off": [], "blocks": regions(network), "whole": [network]}
    for module in modules[mode]:
        module.compile(backend=BACKEND, fullgraph=True, dynamic=False)


def regions(network: RetinaNet) -> list[nn.Module]:
    """Return the modules that "blocks" compiles; none is part of another."""
    loose = [module for module in network.backbone.children() if isinstance(module, ConvNorm)]
    return loose + [module for module in network.modules() if isinstance(module, REGIONS)]


def prepare_compilation(folder: Path) -> None:
    """Store programs in a folder, unless the environment names another, and allow any number of them.

    The folder may be shared. Torch unpickles its files: anyone who can write to the folder can run code here, as with
    the packages of an environment.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
    from torch._dynamo import config

    config.recompile_limit = max(config.recompile_limit, MAX_RECOMPILES)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, MAX_RECOMPILES)


def compile_seconds() -> float:
    """Seconds that this process has spent compiling so far."""
    from torch._dynamo.utils import compilation_time_metrics

    # Tracing includes compiling the forward program; a backward program is compiled when it is first needed.
    names = ("_compile.compile_inner", "backward._backward_impl")
    return sum(sum(compilation_time_metrics.get(name, ())) for name in names)
