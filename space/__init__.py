"""Genotypes, search spaces, costs and published models as plain data; loads no NumPy, torch, Ray or pandas."""

from spinenas.space.cost import Cost, backbone_cost, cost_by_part, retinanet_cost
from spinenas.space.errors import GenotypeError, UserError
from spinenas.space.genotype import BlockKind, BlockSpec, Genotype, StemBlock
from spinenas.space.graph import BuiltGraph, BuiltNode, built_graph, canonical_key, dead_blocks, network_key
from spinenas.space.mutate import random_edit
from spinenas.space.published import PUBLISHED, PublishedModel, published
from spinenas.space.sampling import sample_in_madds_band, sample_without_dead_blocks
from spinenas.space.scaling import SCALINGS, Scaling
from spinenas.space.search_space import SPACES, Decision, SearchSpace, space_by_name

__all__ = [
    "PUBLISHED",
    "SCALINGS",
    "SPACES",
    "BlockKind",
    "BlockSpec",
    "BuiltGraph",
    "BuiltNode",
    "Cost",
    "Decision",
    "Genotype",
    "GenotypeError",
    "PublishedModel",
    "Scaling",
    "SearchSpace",
    "StemBlock",
    "UserError",
    "backbone_cost",
    "built_graph",
    "canonical_key",
    "cost_by_part",
    "dead_blocks",
    "network_key",
    "published",
    "random_edit",
    "retinanet_cost",
    "sample_in_madds_band",
    "sample_without_dead_blocks",
    "space_by_name",
]
