"""Names and layout of the weights of the public TensorFlow code, and loading them: all variables or none.

Variables come as {name: array} in TensorFlow's layout, kernels (height, width, in, out). Two sets of names are known:

- "canonical": our names, from the module path: `node02.in0.reduce.conv.kernel`, `end3.bn.gamma`;
- "tensorflow/tpu": names of the released checkpoints: `spinenet/sub_policy0/...`, `retinanet/class_net/...`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spinenas.space.errors import UserError
from spinenas.space.genotype import BlockKind, Genotype
from spinenas.space.graph import built_graph, stem_strides
from spinenas.space.network.spinenet import SpineNet
from spinenas.space.scaling import Scaling

NAMES = ("canonical", "tensorflow/tpu")

_BN = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}

_NOT_WEIGHTS = re.compile(r"(^|/)(global_step|Momentum|Adam(_1)?|ExponentialMovingAverage|beta[12]_power)$")
"""Variables of optimisers and the step counter."""


def is_weight(name: str) -> bool:
    """Whether a variable of a checkpoint is a weight, not an optimiser slot or a step counter."""
    return not _NOT_WEIGHTS.search(name)


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of a variable in a network.

    Attributes:
        key: name in the network's state dict.
        axes: permutation from TensorFlow's layout to ours.
        shape: shape in TensorFlow's layout.
    """

    key: str
    axes: tuple[int, ...]
    shape: tuple[int, ...]


def canonical_slots(network: nn.Module) -> dict[str, Slot]:
    """Return the variables of a backbone or a RetinaNet by canonical name, in the order of the modules."""
    slots = {}
    for path, module in network.named_modules():
        name = path.removeprefix("backbone.")
        if isinstance(module, nn.BatchNorm2d):
            for ours, theirs in _BN.items():
                slots[f"{name}.{theirs}"] = Slot(f"{path}.{ours}", (0,), (module.num_features,))
        elif isinstance(module, nn.Conv2d):
            out_channels, in_channels, height, width = module.weight.shape
            kernel, axes, shape = "kernel", (3, 2, 0, 1), (height, width, in_channels, out_channels)
            if module.groups > 1:
                kernel, axes, shape = "depthwise_kernel", (2, 3, 0, 1), (height, width, out_channels, in_channels)
            # In TensorFlow a separable convolution is one layer: conv0.depthwise_kernel, .pointwise_kernel, .bias.
            layer, _, part = name.rpartition(".")
            if part == "pointwise":
                kernel = "pointwise_kernel"
            if part not in ("depthwise", "pointwise"):
                layer = name
            slots[f"{layer}.{kernel}"] = Slot(f"{path}.weight", axes, shape)
            if module.bias is not None:
                slots[f"{layer}.bias"] = Slot(f"{path}.bias", (0,), (out_channels,))
    return slots


def tensorflow_tpu_name(canonical: str, genotype: Genotype, scaling: Scaling) -> str:
    """Return the name of a variable in a released tensorflow/tpu checkpoint.

    TensorFlow numbers layers within a scope in the order of creation: `conv2d`, `conv2d_1`, ... The backbone's scope
    holds the stem and then the endpoints; each connection and each block has its own scope.
    """
    path, _, variable = canonical.rpartition(".")
    words = path.split(".")
    if words[0] == "head":
        return _head_name(words, variable)
    mobile = genotype.stem[0].kind == BlockKind.MBCONV
    root = "spinenet_mbconv" if mobile else "spinenet"
    num_stem = len(genotype.stem)
    node = int(words[0][4:]) if words[0].startswith("node") else None
    if node is not None and node >= num_stem:
        block = node - num_stem
        scope = f"{root}/sub_policy{block}/"
        level, kind = genotype.blocks[block].level, genotype.blocks[block].kind
        if words[1].startswith("in"):
            side = int(words[1][2:])
            parent = genotype.blocks[block].parents[side]
            what = "sepconv" if mobile else "alpha"
            scope += f"resample_with_{what}_resample_{block}_{side}"
            layers = _connection_layers(_level(genotype, parent), level, mobile)
            layer = ".".join(words[2:])
        else:
            scope += f"scale_permuted_block_{node}"
            layers = _block_layers(kind, scaling.block_repeats, projects=False)
            layer = ".".join(words[1:])
    else:
        scope, layers, layer = root, _stem_and_endpoint_layers(genotype, scaling), path
    return f"{scope}/{_numbered(layers)[layer]}/{variable}"


def _stem_and_endpoint_layers(genotype: Genotype, scaling: Scaling) -> list[str]:
    """Layers of the backbone's scope in the order of creation, including those of unused stem blocks."""
    layers = ["stem.conv", "stem.bn"]
    channels = scaling.stem_channels(genotype.stem[0].kind)
    for node, (block, stride) in enumerate(zip(genotype.stem, stem_strides(genotype), strict=True)):
        width = scaling.width(block.level, block.kind)
        projects = block.kind != BlockKind.MBCONV and (stride > 1 or channels != width)
        of_block = _block_layers(block.kind, scaling.block_repeats, projects=projects)
        layers += [f"node{node:02d}.{name}" for name in of_block]
        channels = width
    for level in sorted(block.level for block in genotype.blocks if block.is_output):
        layers += [f"end{level}.conv", f"end{level}.bn"]
    return layers


def _level(genotype: Genotype, node: int) -> int:
    num_stem = len(genotype.stem)
    return genotype.stem[node].level if node < num_stem else genotype.blocks[node - num_stem].level


def _connection_layers(parent_level: int, level: int, mobile: bool) -> list[str]:
    """Layers of a connection in the order of creation."""
    if mobile:
        convs = [*(f"dw{i}" for i in range(level - parent_level)), "proj"]
    else:
        convs = ["reduce", *(["down"] if level > parent_level else []), "expand"]
    return [f"{conv}.{part}" for conv in convs for part in ("conv", "bn")]


def _block_layers(kind: BlockKind, repeats: int, *, projects: bool) -> list[str]:
    """Layers of a block in the order of creation; a projection comes first."""
    layers = []
    for i in range(repeats):
        if kind == BlockKind.MBCONV:
            parts = ["expand.conv", "expand.bn", "dw.conv", "dw.bn", "se.reduce", "se.expand"]
            parts += ["project.conv", "project.bn"]
        else:
            convs = (1, 2, 3) if kind == BlockKind.BOTTLENECK else (1, 2)
            parts = ["shortcut.conv", "shortcut.bn"] if projects and i == 0 else []
            parts += [f"{part}{number}" for number in convs for part in ("conv", "bn")]
        layers += [f"rep{i}.{part}" for part in parts]
    return layers


def _numbered(layers: Iterable[str]) -> dict[str, str]:
    """Number the layers of a scope by type, as TensorFlow 1 does."""
    counts: Counter[str] = Counter()
    names = {}
    for layer in layers:
        last = layer.rpartition(".")[2]
        kind = "batch_normalization" if last.startswith("bn") else "conv2d"
        if re.search(r"(^|\.)dw\d*\.conv$", layer):
            kind = "depthwise_conv2d"
        number = counts[kind]
        names[layer] = f"{kind}_{number}" if number else kind
        counts[kind] += 1
    return names


def _head_name(words: list[str], variable: str) -> str:
    """Map head.cls.bn0.L3 to class-0-3, head.box.conv0 to box-0, and head.cls.predict to class-predict."""
    tower = {"cls": "class", "box": "box"}[words[1]]
    layer = words[2]
    if layer.startswith("conv"):
        layer = layer[4:]
    elif layer.startswith("bn"):
        layer = f"{layer[2:]}-{words[3][1:]}"
    return f"retinanet/{tower}_net/{tower}-{layer}/{variable}"


def load_variables(network: nn.Module, variables: Mapping[str, NDArray[np.generic]], names: str = "canonical") -> None:
    """Load weights into a backbone or a RetinaNet: all of them, or none.

    Args:
        network: a network of the genotype and scaling that the weights were trained with.
        variables: arrays in TensorFlow's layout by name. Skipped are optimiser slots, the step counter, variables of
            blocks that reach no output (tensorflow/tpu keeps them), and those of a head if `network` is a backbone.
        names: "canonical" or "tensorflow/tpu".

    Raises:
        UserError: variables are missing, have another shape, or are not part of the network; nothing is loaded.
    """
    if names not in NAMES:
        raise UserError(f"names is {names!r}; known are {', '.join(NAMES)}")
    backbone = network if isinstance(network, SpineNet) else getattr(network, "backbone", None)
    if names == "tensorflow/tpu" and not isinstance(backbone, SpineNet):
        raise UserError("names of tensorflow/tpu are known for SpineNets alone; load a baseline by canonical names")
    slots = canonical_slots(network)
    if names == "tensorflow/tpu":
        assert isinstance(backbone, SpineNet)
        slots = {tensorflow_tpu_name(name, backbone.genotype, backbone.scaling): slot for name, slot in slots.items()}
    _check(slots, variables, _skipped(network, backbone, names))
    state = network.state_dict()
    for name, slot in slots.items():
        array = np.ascontiguousarray(variables[name].transpose(slot.axes))
        state[slot.key] = torch.from_numpy(array).to(state[slot.key].dtype)
    network.load_state_dict(state)


def _skipped(network: nn.Module, backbone: nn.Module | None, names: str) -> re.Pattern[str]:
    """A pattern for variables that may be present without being part of the network."""
    prefixes = []
    if backbone is network:
        prefixes.append("head." if names == "canonical" else "retinanet/")
    if isinstance(backbone, SpineNet):
        genotype = backbone.genotype
        built = {node.node for node in built_graph(genotype).nodes}
        num_stem = len(genotype.stem)
        for node in sorted(set(range(genotype.num_nodes)) - built):
            if names == "canonical":
                prefixes.append(f"node{node:02d}.")
            elif node >= num_stem:
                prefixes += [f"{root}/sub_policy{node - num_stem}/" for root in ("spinenet", "spinenet_mbconv")]
            else:
                of_node = f"node{node:02d}."
                for layer in _stem_and_endpoint_layers(genotype, backbone.scaling):
                    if layer.startswith(of_node):
                        prefixes.append(tensorflow_tpu_name(f"{layer}.", genotype, backbone.scaling))
    return re.compile("|".join(f"^{re.escape(prefix)}" for prefix in prefixes) or r"(?!)")


def mismatches(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> tuple[list[str], list[str], list[str]]:
    """Compare shapes by name; return the missing names, the extra names, and those of another shape."""
    return (
        [name for name in wanted if name not in found],
        [name for name in found if name not in wanted],
        [name for name, shape in wanted.items() if name in found and found[name] != shape],
    )


def _check(slots: Mapping[str, Slot], variables: Mapping[str, NDArray[np.generic]], skipped: re.Pattern[str]) -> None:
    """Raise UserError unless the variables match the slots."""
    missing, extra, misshapen = mismatches(
        {name: slot.shape for name, slot in slots.items()}, {name: array.shape for name, array in variables.items()}
    )
    extra = [name for name in extra if is_weight(name) and not skipped.search(name)]
    wrong = [f"{name} is {list(variables[name].shape)} instead of {list(slots[name].shape)}" for name in misshapen]
    found = [
        f"{what}: {_listed(names)}"
        for what, names in (("missing", missing), ("not part of this network", extra), ("of another shape", wrong))
        if names
    ]
    if found:
        raise UserError(
            f"these weights are not of this network, and nothing was loaded ({'; '.join(found)}); "
            "build the model that they were trained with"
        )


def _listed(names: list[str], most: int = 4) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
