"""Weisfeiler-Lehman labels of built networks, for landscapes and similarity."""

from __future__ import annotations

from collections import Counter

from spinenas.space.genotype import Genotype
from spinenas.space.graph import BuiltNode, built_graph

NUM_ROUNDS = 3


def node_label(node: BuiltNode) -> str:
    """Return the level, kind and role of a node."""
    return f"{node.level}{node.kind}{'o' if node.is_output else ''}"


def wl_labels(genotype: Genotype) -> Counter[str]:
    """Return the count of each label over all rounds; labels of different rounds always differ.

    The first label of a node is `node_label`. Each round adds the labels of its inputs.
    """
    nodes = built_graph(genotype).nodes
    labels = {node.node: node_label(node) for node in nodes}
    found = Counter(labels.values())
    for _ in range(NUM_ROUNDS - 1):
        labels = {
            node.node: f"{labels[node.node]}({','.join(sorted(labels[source] for source in node.parents))}"
            f"+{','.join(sorted(labels[source] for source in node.merged))})"
            for node in nodes
        }
        found.update(labels.values())
    return found
