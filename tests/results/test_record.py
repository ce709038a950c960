from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest

from spinenas.results.record import Evaluation, Failure, FailureKind, Fidelity
from spinenas.space.scaling import SCALINGS


def through_json(data: object) -> object:
    return json.loads(json.dumps(data, allow_nan=False))


def test_an_evaluation_comes_back_from_json_unchanged():
    evaluation = Evaluation(
        objective=0.31,
        metrics={"AP": 0.31, "APs": None},
        curve=({"loss": 2.0}, {"loss": 1.0, "AP": 0.31}),
        params=10,
        madds=20,
        network_key="0" * 16,
        train_seconds=1.5,
        eval_seconds=0.5,
        peak_memory_bytes=1 << 30,
    )
    assert Evaluation.from_json(through_json(evaluation.to_json())) == evaluation


def test_an_objective_alone_is_a_legal_evaluation():
    evaluation = Evaluation(objective=0.31)
    assert Evaluation.from_json(through_json(evaluation.to_json())) == evaluation


@pytest.mark.parametrize("objective", [math.nan, math.inf, -math.inf])
def test_an_evaluation_without_a_finite_objective_does_not_exist(objective):
    with pytest.raises(ValueError, match="diverged"):
        Evaluation(objective=objective)


def test_a_failure_comes_back_from_json_unchanged():
    failure = Failure(FailureKind.OUT_OF_MEMORY, "12 GB wanted", "Traceback ...")
    assert Failure.from_json(through_json(failure.to_json())) == failure


def test_a_fidelity_comes_back_from_json_unchanged():
    fidelity = Fidelity(5, 512, 64, 1000, SCALINGS["49S"])
    assert Fidelity.from_json(through_json(asdict(fidelity))) == fidelity
