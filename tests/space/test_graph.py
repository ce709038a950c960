"""What a genotype becomes, against a second reading of the rules, and what counts as the same network."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from random_genotypes import random_genotype

from spinenas.space.genotype import BlockKind, Genotype
from spinenas.space.graph import (
    BuiltGraph,
    BuiltNode,
    PathFigures,
    _smallest_rows,
    built_graph,
    canonical_key,
    dead_blocks,
    depth,
    network_key,
    path_figures,
)
from spinenas.space.published import R0_SP53, SPINENET_49
from spinenas.space.search_space import SearchSpace


def naive_built(genotype: Genotype) -> dict[int, tuple[set[int], set[int]]]:
    """{node: (parents, merged)} of what is built; a second reading of the rules, with explicit edges."""
    everything = [*genotype.stem, *genotype.blocks]
    num_stem = len(genotype.stem)
    out_edges: list[tuple[int, int]] = []
    parents: dict[int, set[int]] = {}
    merged: dict[int, set[int]] = {node: set() for node in range(len(everything))}
    for node, block in enumerate(everything):
        if node < num_stem:
            parents[node] = {node - 1} if node > 0 else set()
            out_edges.extend((parent, node) for parent in parents[node])
            continue
        parents[node] = set(block.parents)
        out_edges.extend((parent, node) for parent in block.parents)
        if not block.is_output:
            continue
        for candidate in range(node):
            out_degree = sum(1 for source, _ in out_edges if source == candidate)
            same = everything[candidate].level == block.level and everything[candidate].kind == block.kind
            if out_degree == 0 and same:
                out_edges.append((candidate, node))
                merged[node].add(candidate)
    reached: set[int] = set()

    def walk(node: int) -> None:
        if node not in reached:
            reached.add(node)
            for source in parents[node] | merged[node]:
                walk(source)

    for node in range(num_stem, len(everything)):
        if everything[node].is_output:
            walk(node)
    return {node: (parents[node], merged[node]) for node in reached}


def brute_force_form(graph: BuiltGraph) -> tuple:
    """The smallest description over all orders of the blocks: equal exactly for isomorphic graphs."""
    stem = [node for node in graph.nodes if node.node < graph.num_stem]
    blocks = [node for node in graph.nodes if node.node >= graph.num_stem]

    def describe(order: tuple[BuiltNode, ...]) -> tuple:
        number = {node.node: i for i, node in enumerate((*stem, *order))}
        return tuple(
            (
                node.level,
                node.kind.value,
                node.is_output,
                tuple(sorted(number[parent] for parent in node.parents)),
                tuple(sorted(number[source] for source in node.merged)),
            )
            for node in (*stem, *order)
        )

    return (len(stem), min(describe(order) for order in itertools.permutations(blocks)))


def reordered(graph: BuiltGraph, rng: np.random.Generator) -> BuiltGraph:
    """The same graph, its blocks renumbered in a random topological order."""
    number = {node.node: node.node for node in graph.nodes if node.node < graph.num_stem}
    waiting = [node for node in graph.nodes if node.node >= graph.num_stem]
    nodes = [node for node in graph.nodes if node.node < graph.num_stem]
    while waiting:
        ready = [node for node in waiting if all(source in number for source in node.parents + node.merged)]
        node = ready[rng.integers(len(ready))]
        waiting.remove(node)
        number[node.node] = graph.num_stem + len(nodes)
        parents = [number[parent] for parent in node.parents]
        rng.shuffle(parents)
        merged = [number[source] for source in node.merged]
        rng.shuffle(merged)
        nodes.append(BuiltNode(number[node.node], node.level, node.kind, tuple(parents), tuple(merged), node.is_output))
    return BuiltGraph(graph.num_stem, tuple(nodes))


def random_graphs(number: int, seed: int) -> list[Genotype]:
    rng = np.random.default_rng(seed)
    space = SearchSpace.spinenet49()
    return [random_genotype(rng) if i % 2 else space.sample(rng) for i in range(number)]


def test_built_graph_equals_a_second_reading_of_the_rules() -> None:
    merges = dead = 0
    for genotype in random_graphs(2000, seed=1):
        graph = built_graph(genotype)
        assert {n.node: (set(n.parents), set(n.merged)) for n in graph.nodes} == naive_built(genotype)
        merges += sum(len(node.merged) for node in graph.nodes)
        dead += len(dead_blocks(genotype))
    assert merges > 500
    assert dead > 500


def test_built_nodes_keep_level_kind_and_output_and_ascend() -> None:
    for genotype in random_graphs(200, seed=2):
        graph = built_graph(genotype)
        everything = [*genotype.stem, *genotype.blocks]
        assert [node.node for node in graph.nodes] == sorted({node.node for node in graph.nodes})
        for node in graph.nodes:
            block = everything[node.node]
            assert (node.level, node.kind) == (block.level, block.kind)
            assert node.is_output == getattr(block, "is_output", False)
            assert node.parents == tuple(sorted(node.parents))
            assert node.merged == tuple(sorted(node.merged))


def test_dead_blocks_are_the_blocks_that_are_not_built() -> None:
    for genotype in random_graphs(500, seed=3):
        built = naive_built(genotype)
        num_stem = len(genotype.stem)
        assert dead_blocks(genotype) == tuple(n for n in range(num_stem, genotype.num_nodes) if n not in built)


@pytest.mark.parametrize(("genotype", "output"), [(SPINENET_49, 14), (R0_SP53, 13)])
def test_block_11_of_the_published_networks_is_merged_into_the_output_of_its_level(
    genotype: Genotype, output: int
) -> None:
    graph = built_graph(genotype)
    assert {node.node: node.merged for node in graph.nodes if node.merged} == {output: (11,)}
    assert dead_blocks(genotype) == ()


def test_a_merged_block_is_not_merged_again_but_may_still_be_a_parent() -> None:
    genotype = Genotype.from_text("2b 2b / 4b0,1 4b0,1! 3b0,1! 5b1,2!")
    assert [node.merged for node in built_graph(genotype).nodes if node.is_output] == [(2,), (), ()]
    assert built_graph(genotype).nodes[-1].parents == (1, 2)


def test_a_dangling_block_of_another_kind_or_level_is_dead() -> None:
    assert dead_blocks(Genotype.from_text("2b 2b / 4r0,1 4b0,1!")) == (2,)
    assert dead_blocks(Genotype.from_text("2b 2b / 5b0,1 4b0,1!")) == (2,)
    assert dead_blocks(Genotype.from_text("2b 2b / 4b0,1 4b0,1!")) == ()


def test_a_connection_of_a_dead_block_keeps_its_parent_from_being_merged() -> None:
    assert dead_blocks(Genotype.from_text("2b 2b / 4b0,1 5b0,2 4b0,1!")) == (2, 3)


def test_an_unused_stem_block_is_merged_into_a_level_2_output_and_otherwise_not_built() -> None:
    assert built_graph(Genotype.from_text("2b 2b / 2b0!")).nodes[-1].merged == (1,)
    assert [node.node for node in built_graph(Genotype.from_text("2b 2b / 3b0!")).nodes] == [0, 2]


def test_reordering_independent_blocks_and_inputs_keeps_the_key() -> None:
    rng = np.random.default_rng(4)
    for genotype in random_graphs(400, seed=5):
        graph = built_graph(genotype)
        assert canonical_key(reordered(graph, rng)) == canonical_key(graph)


def test_keys_are_equal_exactly_for_isomorphic_graphs_of_the_tiny_space() -> None:
    graphs = [built_graph(genotype) for genotype in itertools.islice(SearchSpace.tiny().enumerate(), 0, None, 5)]
    assert_keys_partition_as_brute_force(graphs)


def test_keys_are_equal_exactly_for_isomorphic_graphs_with_many_ties() -> None:
    rng = np.random.default_rng(6)
    graphs = [
        built_graph(random_genotype(rng, num_blocks=6, levels=(3,), kinds=(BlockKind.BOTTLENECK,), output_share=0.0))
        for _ in range(400)
    ]
    assert_keys_partition_as_brute_force(graphs)


def assert_keys_partition_as_brute_force(graphs: list[BuiltGraph]) -> None:
    form_of_key: dict[str, tuple] = {}
    key_of_form: dict[tuple, str] = {}
    for graph in graphs:
        key, form = canonical_key(graph), brute_force_form(graph)
        assert form_of_key.setdefault(key, form) == form
        assert key_of_form.setdefault(form, key) == key
    assert 10 < len(key_of_form) < len(graphs)


def test_two_equal_blocks_side_by_side_differ_from_one_shared_block() -> None:
    shared = Genotype.from_text("2b 2b / 4b0,1 3b0,2 5b1,2 6b3,4!")
    parallel = Genotype.from_text("2b 2b / 4b0,1 4b0,1 3b0,2 5b1,3 6b4,5!")
    assert network_key(shared) != network_key(parallel)


def test_a_merge_differs_from_a_parent() -> None:
    merged = BuiltNode(2, 4, BlockKind.BOTTLENECK, (0,), (1,), True)
    parent = BuiltNode(2, 4, BlockKind.BOTTLENECK, (0, 1), (), True)
    first = BuiltNode(0, 4, BlockKind.BOTTLENECK, (), (), False)
    second = BuiltNode(1, 4, BlockKind.BOTTLENECK, (0,), (), False)
    assert canonical_key(BuiltGraph(1, (first, second, merged))) != canonical_key(
        BuiltGraph(1, (first, second, parent))
    )


@pytest.mark.parametrize(
    "other",
    [
        "2b 2r / 4b0,1 4b0,2!",
        "2b 2b / 4r0,1 4b0,2!",
        "2b 2b / 5b0,1 4b0,2!",
        "2b 2b / 4b0,1 5b0,2!",
        "2b 2b / 4b0,1 4b1,2!",
        "2b 2b / 4b1 4b0,2!",
        "2b 2b / 4b0,1 4b0,2! 5b0,1!",
    ],
)
def test_any_difference_of_what_is_built_changes_the_key(other: str) -> None:
    assert network_key(Genotype.from_text(other)) != network_key(Genotype.from_text("2b 2b / 4b0,1 4b0,2!"))


def test_dead_blocks_do_not_change_the_key() -> None:
    assert network_key(Genotype.from_text("2b 2b / 7r0,1 4b0,1 4b0,3!")) == network_key(
        Genotype.from_text("2b 2b / 4b0,1 4b0,2!")
    )


def test_keys_of_published_networks_never_change() -> None:
    assert (network_key(SPINENET_49), network_key(R0_SP53)) == ("bff8165843f74d47", "70fae8f6f0829625")


def rings(order: np.ndarray, lengths: tuple[int, ...]) -> Genotype:
    """Seven equal blocks, joined in rings by seven equal blocks with two parents each, all merged into an output."""
    links, start = [], 2
    for length in lengths:
        ring = [int(node) for node in order[start - 2 : start - 2 + length]]
        links += [sorted((2 + ring[i], 2 + ring[(i + 1) % length])) for i in range(length)]
        start += length
    texts = ["4b0,1"] * 7 + [f"3b{first},{second}" for first, second in links]
    return Genotype.from_text(f"2b 2b / {' '.join(texts)} 3b0,1!")


def test_blocks_that_look_alike_but_are_not_are_numbered_the_same_way_in_every_order() -> None:
    """In a ring of three beside a ring of four every block has the same sort of neighbours at every distance."""
    rng = np.random.default_rng(7)
    keys = {network_key(rings(rng.permutation(7), (3, 4))) for _ in range(8)}
    assert len(keys) == 1
    assert network_key(rings(np.arange(7), (7,))) not in keys


def assert_few_orders_are_tried(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail as soon as the search for the smallest numbering has branched a hundred times."""
    counter = itertools.count()

    def counted(*arguments: Any) -> Any:
        assert next(counter) < 100, "orders of equal blocks are tried one by one"
        return _smallest_rows(*arguments)

    monkeypatch.setattr("spinenas.space.graph._smallest_rows", counted)
    network_key(Genotype.from_text(text))


def test_twelve_interchangeable_blocks_are_not_numbered_in_all_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    twins = " ".join(["4b0,1"] * 12)
    assert_few_orders_are_tried(f"2b 2b / {twins} 4b0,1!", monkeypatch)


def test_twins_that_feed_different_blocks_are_not_numbered_in_all_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    chains = " ".join(["4b0,1"] * 7) + " " + " ".join(f"5b0,{node}" for node in range(2, 9))
    links = " ".join(f"3r{node},{node + 1}" for node in range(9, 15))
    assert_few_orders_are_tried(f"2b 2b / {chains} {links} 3r0,15!", monkeypatch)


def test_depth_counts_the_blocks_on_the_longest_way() -> None:
    assert depth(Genotype.from_text("2b 2b / 3b0,1 3b0,1! 4r1,2! 5r3,4!")) == 5  # 0, 1, 2, 4, 5
    sequential = Genotype.from_text("2b 2b / 3b1 3b2 4r3! 5r4!")
    assert depth(sequential) == 6
    wide = Genotype.from_text("2b 2b / 3b0,1! 4b0,1! 5b0,1!")
    assert depth(wide) == 3


def every_way(graph: BuiltGraph, node: int) -> list[tuple[int, ...]]:
    """Levels of the nodes of each way from the stem to a node, from its end back to a stem node."""
    nodes = {built.node: built for built in graph.nodes}
    if node < graph.num_stem:
        return [(nodes[node].level,)]
    sources = (*nodes[node].parents, *nodes[node].merged)
    return [(nodes[node].level, *way) for source in sources for way in every_way(graph, source)]


def test_path_figures_are_the_least_of_every_way() -> None:
    space = SearchSpace.spinenet49()
    rng = np.random.default_rng(0)
    merged = 0
    for _ in range(40):
        graph = built_graph(space.sample(rng))
        found = path_figures(graph)
        assert sorted(found) == [3, 4, 5, 6, 7]
        for node in graph.nodes:
            if not node.is_output:
                continue
            merged += bool(node.merged)
            ways = every_way(graph, node.node)
            assert found[node.level] == PathFigures(
                coarsest=min(max(way) for way in ways),
                ascents=min(sum(max(0, before - after) for after, before in itertools.pairwise(way)) for way in ways),
                changes=min(sum(before != after for after, before in itertools.pairwise(way)) for way in ways),
                blocks=min(len(way) - 1 for way in ways),
            )
    assert merged > 5


def test_spinenet_49_loses_no_detail_on_the_way_to_any_output() -> None:
    found = path_figures(built_graph(SPINENET_49))
    assert {level: figures.coarsest for level, figures in found.items()} == {3: 3, 4: 4, 5: 5, 6: 6, 7: 7}
    assert found[3] == PathFigures(coarsest=3, ascents=0, changes=1, blocks=3)  # 2, 4, 13
