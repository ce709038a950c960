"""Exports an architecture as Python source to vendor: one file that needs only PyTorch, or two for MMDetection.

The source is `space/network/standalone_backbone.py`, a working module, with its constants replaced.
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass

from spinenas.space.dialect import dialect_named
from spinenas.space.genotype import Genotype
from spinenas.space.graph import built_graph, stem_strides
from spinenas.space.published import PROTOCOLS, PublishedModel
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


@dataclass(frozen=True, slots=True)
class RetinaHead:
    """The head and anchors of an exported detector.

    Attributes:
        num_convs, channels: number of convolutions in each tower, and their width.
        anchor_scale: side of the smallest anchor in strides.
        num_scales: anchor sizes per octave.
        aspect_ratios: width / height.
        separable: whether the towers are separable, which those of MMDetection cannot be.
        source: the detector that has this head, for a comment.
    """

    num_convs: int = 4
    channels: int = 256
    anchor_scale: float = 3.0
    num_scales: int = 3
    aspect_ratios: tuple[float, ...] = (1.0, 2.0, 0.5)
    separable: bool = False
    source: str = "SpineNet-49"


def python_module(genotype: Genotype, scaling: Scaling, name: str, options: NetworkOptions | None = None) -> str:
    """Return the source of a module whose `Backbone` equals that of `build_backbone`, without stochastic depth.

    Args:
        genotype, scaling: the network to build.
        name: its name in the file.
        options: options of the network.

    Raises GenotypeError for a genotype that cannot be built.
    """
    from importlib import resources  # takes longer to import than a command needs to start

    template = resources.files("spinenas.space").joinpath("network/standalone_backbone.py").read_text("utf-8")
    head, rest = template.split(_BEGIN)
    _, tail = rest.split(END_OF_ARCHITECTURE)
    constants = _constants(genotype, scaling, name, options or NetworkOptions())
    return f"{head}{_BEGIN}{constants}{END_OF_ARCHITECTURE}{tail}"


def mmdet_files(
    genotype: Genotype,
    scaling: Scaling,
    name: str,
    options: NetworkOptions | None = None,
    *,
    head: RetinaHead | None = None,
    model: PublishedModel | None = None,
) -> dict[str, str]:
    """Return source by file name: a backbone registered in MMDetection 3, and a RetinaNet config that uses it.

    Args:
        genotype, scaling, name, options: those of `python_module`.
        head: the head and anchors of the config; None for those of SpineNet-49.
        model: the published model that this is, for a comment about its training.

    Raises GenotypeError for a genotype that cannot be built.
    """
    module = python_module(genotype, scaling, name, options)
    config = _mmdet_config(genotype, scaling, head or RetinaHead(), model)
    return {f"{MMDET_BACKBONE}.py": module + _MMDET_CLASS, "retinanet_spinenet.py": config}


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


def _mmdet_comment(head: RetinaHead, model: PublishedModel | None) -> str:
    """Return the comment of a config: what is MMDetection's own, and how the published model was trained."""
    paragraphs = [
        "Data, schedule and losses are those of MMDetection's RetinaNet.",
        f"Head and anchors are those of {head.source}. MMDetection's RetinaHead uses ReLU and has "
        "no batch norm; SpineNet's has a batch norm for each level after each convolution.",
    ]
    if head.separable:
        paragraphs.append(
            f"The head of {head.source} is separable: its convolutions are depthwise and 1x1. MMDetection's RetinaHead "
            "is not separable: it has 3x3 convolutions, so its parameters and multiply-adds exceed the published ones."
        )
    paragraphs.append("SpineNets are trained from scratch, with synchronised batch norm (SpineNet, section 4.1).")
    if model is not None:
        names = list(dict.fromkeys(ap.protocol for ap in model.aps))
        paragraphs += [f"Training protocol {name} of {model.name}: {PROTOCOLS[name]}." for name in names]
        if not names:
            paragraphs.append(f"No AP of {model.name} is published.")
    lines = [line for paragraph in paragraphs for line in textwrap.wrap(paragraph, 110)]
    return "".join(f"# {line}\n" for line in lines)


def _mmdet_config(genotype: Genotype, scaling: Scaling, head: RetinaHead, model: PublishedModel | None) -> str:
    levels = sorted(block.level for block in genotype.blocks if block.is_output)
    strides = [2**level for level in levels]
    ratios = sorted(1 / ratio for ratio in head.aspect_ratios)  # MMDetection's are height / width
    return f'''# RetinaNet for MMDetection 3 with the backbone in this folder. Put this folder on PYTHONPATH, and run:
#     mim train mmdet retinanet_spinenet.py
{_mmdet_comment(head, model)}_base_ = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"

custom_imports = dict(imports=["{MMDET_BACKBONE}"], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(pad_size_divisor={max(128, strides[-1])}),
    backbone=dict(_delete_=True, type="SpineNetBackbone"),
    neck=None,
    bbox_head=dict(
        in_channels={scaling.endpoint_channels},
        stacked_convs={head.num_convs},
        feat_channels={head.channels},
        anchor_generator=dict(
            _delete_=True,
            type="AnchorGenerator",
            octave_base_scale={head.anchor_scale},
            scales_per_octave={head.num_scales},
            ratios={ratios},
            strides={strides},
        ),
    ),
)
'''
