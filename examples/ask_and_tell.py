"""Drives a controller by hand with an objective of your own; here it rewards long paths and few multiply-adds.

python examples/ask_and_tell.py
"""

from __future__ import annotations

from spinenas.controller import make_controller
from spinenas.results.record import Evaluation
from spinenas.space import SCALINGS, Genotype, SearchSpace, backbone_cost, built_graph


def longest_path(genotype: Genotype) -> int:
    """Return the number of blocks on the longest path from the image to an output."""
    depth: dict[int, int] = {}
    for node in built_graph(genotype).nodes:
        depth[node.node] = 1 + max((depth[parent] for parent in (*node.parents, *node.merged)), default=0)
    return max(depth.values())


def main() -> None:
    space = SearchSpace.spinenet49()
    controller = make_controller("evolution", space, seed=0, population_size=32, tournament_size=8)
    best: tuple[float, Genotype] | None = None
    for _ in range(300):
        proposal = controller.ask()
        assert proposal is not None
        gigamadds = backbone_cost(proposal.genotype, SCALINGS["49"], 640).madds / 1e9
        objective = longest_path(proposal.genotype) - 0.1 * gigamadds
        controller.tell(proposal.number, Evaluation(objective=objective))
        if best is None or objective > best[0]:
            best = objective, proposal.genotype
            print(f"trial {proposal.number}: {objective:.2f}  {proposal.genotype.text}")


if __name__ == "__main__":
    main()
