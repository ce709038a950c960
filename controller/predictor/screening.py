"""Ranks candidates by a predictor's upper confidence bound."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from spinenas.controller.ledger import Candidate
from spinenas.controller.predictor.gaussian_process import Predictor


def best_candidates(
    candidates: Iterable[Candidate], predictor: Predictor, *, ucb_coefficient: float, rng: np.random.Generator
) -> list[Candidate]:
    """Return the candidates by mean + k * standard deviation, best first, with the mean as `info["predicted"]`.

    Args:
        candidates: repeated genotypes count once.
        predictor: must have at least one result.
        ucb_coefficient: mean of k, which is drawn from an exponential distribution once for the whole list. Workers
            that ask at the same time therefore get different candidates (DeepHyper, arXiv 2207.00479).
        rng: draws k.
    """
    distinct = list({candidate.genotype: candidate for candidate in candidates}.values())
    if not distinct:
        return []
    predicted = predictor.predict([candidate.genotype for candidate in distinct])
    bound = predicted.mean + rng.exponential(ucb_coefficient) * predicted.std if ucb_coefficient else predicted.mean
    return [
        replace(distinct[place], info={**distinct[place].info, "predicted": float(predicted.mean[place])})
        for place in np.argsort(-bound, kind="stable").tolist()
    ]
