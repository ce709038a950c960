"""Whether the results of a search are evidence enough to name a winner.

Two cases are not. Nothing was learnt: no training reaches an AP that COCO's own tables would print. Or the networks
are alike: with 95 % confidence the spread between them is less than twice that between trainings of one network, and
no test tells it from that. Single runs alone cannot show the second case, because their noise is unknown.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

LEARNT_AP = 0.001
"""A network with a lower AP has learnt nothing that can be measured: tables of COCO print three decimals."""

LARGEST_RATIO = 4.0
"""Networks are alike if their variance is surely below this many times that of repeated trainings."""

REMEDY = "train longer (task.train.epochs), on larger images (task.image_size_pixels) or on more data"
"""What to change when a search has taught its networks too little."""


def why_no_winner(
    networks: Sequence[Sequence[float]], *, only_ap: bool = True, paused: Sequence[Sequence[float]] | None = None
) -> str | None:
    """Return a sentence why no network can be called the winner, and what to change; None if one can, or without any.

    Args:
        networks: the APs of the complete trainings of each network at one fidelity, the first training first.
        only_ap: whether AP alone decides. If costs count as well, networks of equal AP are not equally good.
        paused: APs of all networks after the epoch at which trainings pause last, if they pause. They then show whether
            networks are alike, as only the best of them are trained to the end.
    """
    aps = [ap for network in networks for ap in network]
    if not aps:
        return None
    if max(aps) < LEARNT_AP:
        which = (
            f"none of the {len(aps)} complete trainings has" if len(aps) > 1 else "the only complete training has not"
        )
        return (
            f"no winner: {which} learnt to detect anything (highest AP {max(aps):.4f}); {REMEDY}, and check that the "
            "boxes are right"
        )
    networks = networks if paused is None else paused
    if not only_ap or len(networks) < 2 or max(map(len, networks)) < 2:
        return None
    from spinenas.results.stats.intervals import pooled_spread, variance_ratio  # scipy

    noise = pooled_spread(networks)
    assert noise is not None, "a network was trained twice"
    firsts = [network[0] for network in networks]
    low, high = variance_ratio(firsts, noise)
    if low > 1 or high > LARGEST_RATIO:
        return None
    return (
        f"no winner: the {len(networks)} networks differ no more (sd {statistics.stdev(firsts):.4f}) than trainings of "
        f"one network do (sd {noise.std:.4f}), so that the order is due to the seeds; {REMEDY}, or evaluate on more "
        "images (task.data.held_out_images)"
    )
