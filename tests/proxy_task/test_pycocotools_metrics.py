"""Figures on val are checked with pycocotools, and a difference is an error."""

from __future__ import annotations

import pytest
from random_evaluations import random_case

from spinenas.proxy_task.evaluation.coco_metrics import CocoEvaluator
from spinenas.proxy_task.evaluation.pycocotools_metrics import check_with_pycocotools, pycocotools_metrics
from spinenas.results.record import COCO_METRICS
from spinenas.space.errors import UserError


def test_figures_equal_to_those_of_pycocotools_pass_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    annotations, detections = random_case(7)
    check_with_pycocotools(CocoEvaluator(annotations).evaluate(detections), annotations, detections)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.parametrize("name", COCO_METRICS)
def test_a_figure_other_than_that_of_pycocotools_is_refused_with_both_values(name: str) -> None:
    annotations, detections = random_case(7)
    metrics = pycocotools_metrics(annotations, detections)
    true_value = metrics[name]
    wrong_values = [0.5] if true_value is None else [None, true_value + 2e-9, true_value - 2e-9]
    for wrong in wrong_values:
        with pytest.raises(UserError) as caught:
            check_with_pycocotools({**metrics, name: wrong}, annotations, detections)
        words = ["undefined" if value is None else repr(value) for value in (wrong, true_value)]
        assert str(caught.value).startswith(f"{name} is {words[0]} by hotcoco and {words[1]} by pycocotools")
    if true_value is not None:
        check_with_pycocotools({**metrics, name: true_value + 5e-10}, annotations, detections)


def test_the_case_has_a_figure_that_is_defined_and_one_that_is_not() -> None:
    values = pycocotools_metrics(*random_case(7)).values()
    assert {value is None for value in values} == {True, False}
