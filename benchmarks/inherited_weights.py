"""Aligns two networks, and finds the weights of one that the other can start with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from spinenas.space import Genotype
from spinenas.space.graph import BuiltNode, built_graph

ROUNDS = 5
"""Rounds of the alignment, each of which compares the neighbours that the round before matched."""


class Inheritance(NamedTuple):
    """Which nodes of a network correspond to which of its parent.

    Attributes:
        node_of: node of the parent by node of the child.
        distance: number of levels, kinds and connections that differ.
    """

    node_of: dict[int, int]
    distance: int


def inheritance(child: Genotype, parent: Genotype) -> Inheritance:
    """Align two networks by level, kind and connections. A block corresponds only to a block of the same role."""
    graph = built_graph(child)
    ours, theirs = graph.nodes, built_graph(parent).nodes
    our_edges, their_edges = edges(ours), edges(theirs)
    roles = [[node.node if node.node < graph.num_stem else node.is_output - 2 for node in x] for x in (ours, theirs)]
    same_role = np.equal.outer(*roles)
    likeness = np.array(
        [
            [2.0 * ((a.level == b.level) + (a.kind == b.kind)) - 0.01 * abs(a.node - b.node) for b in theirs]
            for a in ours
        ]
    )
    likeness[~same_role] = -99
    common = np.zeros_like(likeness)
    node_of: dict[int, int] = {}
    for _ in range(ROUNDS):
        rows, columns = linear_sum_assignment(likeness + common, maximize=True)
        pairs = [(row, column) for row, column in zip(rows, columns, strict=True) if same_role[row, column]]
        node_of = {ours[row].node: theirs[column].node for row, column in pairs}
        translated = {(node_of.get(source, -1), node_of.get(target, -1)) for source, target in our_edges}
        for row, a in enumerate(ours):
            sources = {node_of.get(source) for source, target in our_edges if target == a.node}
            targets = {node_of.get(target) for source, target in our_edges if source == a.node}
            for column, b in enumerate(theirs):
                common[row, column] = sum(
                    (target == b.node and source in sources) + (source == b.node and target in targets)
                    for source, target in their_edges
                )
    same = sum(
        (ours[row].level == theirs[column].level) + (ours[row].kind == theirs[column].kind) for row, column in pairs
    )
    return Inheritance(node_of, 2 * len(ours) - same + len(translated - their_edges))


def edges(nodes: Sequence[BuiltNode]) -> set[tuple[int, int]]:
    """Return all connections (source, target), merges included."""
    return {(source, node.node) for node in nodes for source in (*node.parents, *node.merged)}


def inherited_tensors(
    child: Genotype, parent: Genotype, weights: Mapping[str, Tensor], initial: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the weights of the parent that its child has for the same purpose and in the same shape.

    Args:
        child, parent: the two networks.
        weights, initial: state dict of the trained parent, and of the new child.
    """
    node_of = inheritance(child, parent).node_of
    their_inputs = {node.node: node.parents for node in built_graph(parent).nodes}
    graph, renamed = built_graph(child), {}
    for node in graph.nodes:
        if node.node not in node_of:
            continue
        theirs = node_of[node.node]
        renamed[f"node{node.node:02d}.rep0"] = f"node{theirs:02d}.rep0"
        for place, source in enumerate(node.parents if node.node >= graph.num_stem else ()):
            if node_of.get(source) in their_inputs[theirs]:
                their_place = their_inputs[theirs].index(node_of[source])
                renamed[f"node{node.node:02d}.in{place}"] = f"node{theirs:02d}.in{their_place}"

    def their_name(name: str) -> str | None:
        """Return the parent's name of a tensor; stem, endpoints and head keep theirs."""
        module, found, rest = name.partition(".node")
        if not found:
            return name
        node, part, tensor = f"node{rest}".split(".", 2)
        theirs = renamed.get(f"{node}.{part}")
        return theirs and f"{module}.{theirs}.{tensor}"

    candidates = ((name, tensor, weights.get(their_name(name) or "")) for name, tensor in initial.items())
    return {name: theirs for name, ours, theirs in candidates if theirs is not None and theirs.shape == ours.shape}
