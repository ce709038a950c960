"""The halving rule by brute force, to compare journals with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from spinenas.search.config.parts import HalvingConfig


def judged(results: Iterable[float], reduction: float, min_results: int) -> bool:
    """Return whether the last result continues: it must rank in the best 1/reduction, rounded up."""
    known = list(results)
    num_kept = math.ceil(len(known) / reduction - 1e-9)
    return len(known) < min_results or known[-1] >= sorted(known, reverse=True)[num_kept - 1]


def misjudged(events: Sequence[dict[str, Any]], halving: HalvingConfig, *, by_number: bool) -> list[str]:
    """List the verdicts of a finished run that are wrong, missing or repeated.

    Args:
        by_number: compare with trials of lower numbers, instead of trials earlier in the journal.
    """
    asked = {event["proposal"]["number"]: event["proposal"] for event in events if event["event"] == "asked"}
    at: dict[int, list[tuple[int, float]]] = {rung: [] for rung in halving.rungs}
    verdicts: dict[tuple[int, int], bool] = {}
    wrong = []
    for event in events:
        if event["event"] == "paused":
            evaluation = event["evaluation"]
            at[evaluation["stopped_after"]].append((event["number"], evaluation["objective"]))
            if asked[event["number"]]["stage"] != "search":
                wrong.append(f"replicate {event['number']} was paused")
        elif event["event"] == "promoted" or event.get("status") == "pruned":
            goes_on = event["event"] == "promoted"
            key = event["number"], event["epoch"] if goes_on else event["evaluation"]["stopped_after"]
            if key in verdicts:
                wrong.append(f"{key} has two verdicts")
            verdicts[key] = goes_on
    for rung, came in at.items():
        for place, (number, ap) in enumerate(came):
            before = [other for other in came if other[0] < number] if by_number else came[:place]
            known = [*(other for _, other in before), ap]
            if verdicts.pop((number, rung), None) != judged(known, halving.reduction, halving.min_results):
                wrong.append(f"trial {number} at epoch {rung}")
    return wrong + [f"{key} has a verdict without a pause" for key in verdicts]
