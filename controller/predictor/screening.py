"""Of many candidates, those first that a predictor expects most of; nothing of where candidates come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from spinenas.controller.base import Proposal, objective_of
from spinenas.controller.ledger import Candidate
from spinenas.controller.one_thread import one_blas_thread
from spinenas.controller.predictor.gaussian_process import Predictor
from spinenas.results.record import Evaluation, Failure
from spinenas.space.genotype import Genotype


def screened(
    candidates: Iterable[Candidate], predictor: Predictor, *, optimism: float, rng: np.random.Generator
) -> list[Candidate]:
    """Return the candidates by mean + k * standard deviation, best first, with the mean as `info["predicted"]`.

    Args:
        candidates: the same genotype twice counts once.
        predictor: has one result at least.
        optimism: k is exponentially distributed with this mean, one for the whole list. So a thousand workers that ask
            before a result is in do not all ask for the same (as DeepHyper has it, arXiv 2207.00479).
        rng: for k.
    """
    distinct = list({candidate.genotype: candidate for candidate in candidates}.values())
    if not distinct:
        return []
    predicted = predictor.predict([candidate.genotype for candidate in distinct])
    bound = predicted.mean + rng.exponential(optimism) * predicted.std if optimism else predicted.mean
    return [
        replace(distinct[place], info={**distinct[place].info, "predicted": float(predicted.mean[place])})
        for place in np.argsort(-bound, kind="stable").tolist()
    ]


def teach(predictor: Predictor, proposal: Proposal | None, result: Evaluation | Failure) -> None:
    """Let a predictor learn from a result, if that says what the network is worth."""
    objective = objective_of(result)
    if objective is not None and proposal is not None and isinstance(proposal.genotype, Genotype):
        with one_blas_thread():
            predictor.add(proposal.genotype, objective, proposal.number)
