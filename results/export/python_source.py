"""Exports an architecture as Python source to vendor: one file that needs only PyTorch, or two for MMDetection.

The source is `space/network/standalone_backbone.py`, a working module, with its constants replaced.
"""

from __future__ import annotations

import importlib.resources
import json
from dataclasses import dataclass

from spinenas.space.dialect import dialect_named
from spinenas.space.genotype import Genotype
from spinenas.space.graph import built_graph, stem_strides
from spinenas.space.scaling import Scaling

MMDET_BACKBONE = "spinenet_backbone"
"""Name of the backbone module of an exported MMDetection config."""

_BLOCKS = "BLOCKS: tuple[tuple[int, str, tuple[int, ...], tuple[int, ...], bool] | None, ...]"
_BEGIN, END_OF_ARCHITECTURE = "# --- architecture\n", "# --- end of the architecture\n"


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """Options of `build_backbone` other than genotype and scaling."""

    dialect: str = "tensorflow/tpu"
    activation: str = "relu"
    bn_momentum: float | None = None
    bn_eps: float | None = None


def python_module(genotype: Genotype, scaling: Scaling, name: str, options: NetworkOptions | None = None) -> str:
    """Return the source of a module whose `Backbone` equals that of `build_backbone`, without stochastic depth.

    Args:
        genotype, scaling: the network to build.
        name: its name in the file.
        options: options of the network.

    Raises GenotypeError for a genotype that cannot be built.
    """
    template = importlib.resources.files("spinenas.space").joinpath("network/standalone_backbone.py").read_text("utf-8")
    head, rest = template.split(_BEGIN)
    _, tail = rest.split(END_OF_ARCHITECTURE)
    constants = _constants(genotype, scaling, name, options or NetworkOptions())
    return f"{head}{_BEGIN}{constants}{END_OF_ARCHITECTURE}{tail}"


def mmdet_files(
    genotype: Genotype, scaling: Scaling, name: str, options: NetworkOptions | None = None
) -> dict[str, str]:
    """Return source by file name: a backbone registered in MMDetection 3, and a RetinaNet config that uses it.

    Raises GenotypeError for a genotype that cannot be built.
    """
    module = python_module(genotype, scaling, name, options)
    return {f"{MMDET_BACKBONE}.py": module + _MMDET_CLASS, "retinanet_spinenet.py": _mmdet_config(genotype, scaling)}


def _constants(genotype: Genotype, scaling: Scaling, name: str, options: NetworkOptions) -> str:
    stem_strides(genotype)  # refuses unsupported stems and mixtures of block kinds
    graph = built_graph(genotype)
    rows = {}
    for node in graph.nodes:
        parents = () if node.node < graph.num_stem else node.parents
        rows[node.node] = (node.level, str(node.kind), parents, node.merged, node.is_output)
    rules = dialect_named(options.dialect)
    values = {
        "NAME": name,
        _BLOCKS: [rows.get(node) for node in range(genotype.num_nodes)],
        "FILTER_SCALE": scaling.filter_scale,
        "ENDPOINT_CHANNELS": scaling.endpoint_channels,
        "RESAMPLE_ALPHA": scaling.resample_alpha,
        "BLOCK_REPEATS": scaling.block_repeats,
        "ACTIVATION": options.activation,
        "BN_MOMENTUM": rules.bn_momentum if options.bn_momentum is None else options.bn_momentum,
        "BN_EPS": rules.bn_eps if options.bn_eps is None else options.bn_eps,
        "SAME_PADDING": rules.same_padding,
        "REPEATED_POOLS": rules.repeated_pools,
        "HARD_SQUEEZE": rules.hard_squeeze,
    }
    return "".join(f"{name} = {_literal(value)}\n" for name, value in values.items())


def _literal(value: object) -> str:
    if isinstance(value, list):
        return "(\n" + "".join(f"    {_literal(row)},\n" for row in value) + ")"
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, str):
        return json.dumps(value)  # ASCII only; no character of a name can end the string
    return repr(value)


_MMDET_CLASS = '''

from mmdet.registry import MODELS  # noqa: E402


@MODELS.register_module()
class SpineNetBackbone(Backbone):
    """Backbone that returns a tuple of feature maps, finest level first, as MMDetection expects."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(super().forward(x).values())
'''


def _mmdet_config(genotype: Genotype, scaling: Scaling) -> str:
    levels = sorted(block.level for block in genotype.blocks if block.is_output)
    strides = [2**level for level in levels]
    return f'''# RetinaNet for MMDetection 3 with the backbone in this folder. Put this folder on PYTHONPATH, and run:
#     mim train mmdet retinanet_spinenet.py
# All other settings (data, schedule, losses) are those of MMDetection's RetinaNet. SpineNet itself was trained from
# scratch for 350 epochs, with synchronised batch norm (SpineNet, section 4.1).
_base_ = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"

custom_imports = dict(imports=["{MMDET_BACKBONE}"], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(pad_size_divisor={max(128, strides[-1])}),
    backbone=dict(_delete_=True, type="SpineNetBackbone"),
    neck=None,
    bbox_head=dict(
        in_channels={scaling.endpoint_channels},
        feat_channels={scaling.endpoint_channels},
        anchor_generator=dict(
            _delete_=True,
            type="AnchorGenerator",
            octave_base_scale=3,
            scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0],
            strides={strides},
        ),
    ),
)
'''
