"""Exports an architecture as Python source to vendor: one file that needs only PyTorch.

The source is `space/network/standalone_backbone.py`, a working module, with its constants replaced.
"""

from __future__ import annotations

import json

from spinenas.results.export.description import ExportDescription, NetworkOptions
from spinenas.space.baseline import genotype_of
from spinenas.space.dialect import dialect_named
from spinenas.space.graph import built_graph, stem_strides

METADATA = "METADATA"
"""Name of the constant with the description of the network."""

_BLOCKS_TYPE = "tuple[tuple[int, str, tuple[int, ...], tuple[int, ...], bool] | None, ...]"
_BEGIN, END_OF_ARCHITECTURE = "# --- architecture\n", "# --- end of the architecture\n"


def python_module(description: ExportDescription) -> str:
    """Return the source of a module whose `Backbone` equals that of `build_backbone`, without stochastic depth.

    Raises GenotypeError for a genotype that cannot be built, and UserError for a baseline.
    """
    from importlib import resources  # takes longer to import than a command needs to start

    template = resources.files("spinenas.space").joinpath("network/standalone_backbone.py").read_text("utf-8")
    head, rest = template.split(_BEGIN)
    _, tail = rest.split(END_OF_ARCHITECTURE)
    lines = [f"{METADATA} = {literal(description.to_json())}\n"]
    for name, value in constants(description).items():
        annotation = f": {_BLOCKS_TYPE}" if name == "BLOCKS" else ""
        lines.append(f"{name}{annotation} = {literal(value)}\n")
    return f"{head}{_BEGIN}{''.join(lines)}{END_OF_ARCHITECTURE}{tail}"


def constants(description: ExportDescription) -> dict[str, object]:
    """Return the constants of the module by name. Raises UserError."""
    genotype = genotype_of(description.architecture, description.name)
    options = description.options or NetworkOptions()
    stem_strides(genotype)  # refuses unsupported stems and mixtures of block kinds
    graph = built_graph(genotype)
    rows = {}
    for node in graph.nodes:
        parents = () if node.node < graph.num_stem else node.parents
        rows[node.node] = (node.level, str(node.kind), parents, node.merged, node.is_output)
    rules = dialect_named(options.dialect)
    return {
        "BLOCKS": [rows.get(node) for node in range(genotype.num_nodes)],
        "FILTER_SCALE": description.scaling.filter_scale,
        "ENDPOINT_CHANNELS": description.scaling.endpoint_channels,
        "RESAMPLE_ALPHA": description.scaling.resample_alpha,
        "BLOCK_REPEATS": description.scaling.block_repeats,
        "ACTIVATION": options.activation,
        "BN_MOMENTUM": rules.bn_momentum if options.bn_momentum is None else options.bn_momentum,
        "BN_EPS": rules.bn_eps if options.bn_eps is None else options.bn_eps,
        "SAME_PADDING": rules.same_padding,
        "REPEATED_POOLS": rules.repeated_pools,
        "HARD_SQUEEZE": rules.hard_squeeze,
        "GLOROT_RESAMPLING": rules.glorot_resampling,
    }


def literal(value: object) -> str:
    """Return a value as Python source, with one entry of a list or of an outer dict on each line."""
    match value:
        case dict():
            rows = "".join(f"    {_inline(name)}: {_inline(entry)},\n" for name, entry in value.items())
            return f"{{\n{rows}}}"
        case list():
            return "(\n" + "".join(f"    {_inline(row)},\n" for row in value) + ")"
    return _inline(value)


def _inline(value: object) -> str:
    match value:
        case dict():
            return f"{{{', '.join(f'{_inline(name)}: {_inline(entry)}' for name, entry in value.items())}}}"
        case tuple():
            return f"({', '.join(map(_inline, value))}{',' if len(value) == 1 else ''})"
        case str():
            return json.dumps(value)  # ASCII only; no character of a name can end the string
    return repr(value)
