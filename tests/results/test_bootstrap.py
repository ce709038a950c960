"""Bootstrap of AP: AP of resampled images equals COCO's, and intervals have their nominal coverage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from coco_examples import NONE_FOUND, everything_found, noisy_detections, random_annotations
from fake_task import matches_of
from numpy.typing import NDArray

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.evaluation.coco_metrics import CocoEvaluator
from spinenas.proxy_task.evaluation.detections import Detections, load_detections, save_detections
from spinenas.results.stats.bootstrap import Matches, compare
from spinenas.space.errors import UserError


def repeated(
    annotations: Annotations, detections: Detections, times: NDArray[np.int64]
) -> tuple[Annotations, Detections]:
    """Repeat images, each copy as an image with its own id, in the order of the ids."""
    order = np.argsort(annotations.image_ids)
    rows = np.repeat(order, times)
    image_ids = 1000 + np.arange(len(rows))
    images = replace(annotations.subset(rows), image_ids=image_ids)
    parts = [np.flatnonzero(detections.image_ids == annotations.image_ids[row]) for row in rows]
    found = np.concatenate([np.empty(0, dtype=np.int64), *parts])
    return images, Detections(
        np.repeat(image_ids, list(map(len, parts))),
        detections.category_ids[found],
        detections.boxes_xywh[found],
        detections.scores[found],
    )


@pytest.mark.parametrize("seed", range(4))
def test_ap_of_drawn_images_equals_the_evaluators_for_copies_with_new_ids(tmp_path: Path, seed: int) -> None:
    annotations = random_annotations(tmp_path, seed=seed)
    detections = noisy_detections(annotations, seed=seed + 20)  # with many equal scores, in an image and between images
    evaluator = CocoEvaluator(annotations)
    matches = evaluator.matches(detections)
    assert matches.ignored.any()
    assert matches.average_precision() == pytest.approx(evaluator.evaluate(detections)["AP"], abs=1e-12)
    rng = np.random.default_rng(seed)
    for _ in range(5):
        times = np.bincount(rng.integers(12, size=12), minlength=12)
        assert times.max() > 1
        images, found = repeated(annotations, detections, times)
        wanted = CocoEvaluator(images).evaluate(found)["AP"]
        assert matches.average_precision(times) == pytest.approx(wanted, abs=1e-9)


def test_ap_is_one_with_all_found_and_zero_with_nothing_found_or_no_objects(tmp_path: Path) -> None:
    annotations = random_annotations(tmp_path)
    evaluator = CocoEvaluator(annotations)
    assert evaluator.matches(everything_found(annotations)).average_precision() == 1
    assert evaluator.matches(NONE_FOUND).average_precision() == 0
    matches = evaluator.matches(noisy_detections(annotations))
    matches.num_objects[:] = 0
    assert matches.average_precision() == 0


def test_detections_survive_saving_unchanged(tmp_path: Path) -> None:
    detections = noisy_detections(random_annotations(tmp_path))
    path = tmp_path / "found.npz"
    for kept in (detections, NONE_FOUND):
        save_detections(path, kept)
        again = load_detections(path)
        for name in ("image_ids", "category_ids", "boxes_xywh", "scores"):
            assert np.array_equal(getattr(again, name), getattr(kept, name))
            assert getattr(again, name).dtype == getattr(kept, name).dtype
    for damaged in (path.read_bytes()[:-30], b"", b"not an archive"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged and holds no detections"):
            load_detections(path)
    with pytest.raises(UserError, match="cannot read"):
        load_detections(tmp_path / "nothing.npz")


@dataclass
class Scored:
    """A training whose AP does not depend on the drawn images."""

    ap: float
    num_images: int = 5

    def average_precision(self, times: NDArray[np.int64] | None = None) -> float:
        return self.ap


def scored(*aps: float) -> list[Matches]:
    return [cast(Matches, Scored(ap)) for ap in aps]


def test_intervals_have_nominal_coverage_when_only_seeds_vary() -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(400):
        trainings = {
            name: scored(*rng.normal(truth, 0.02, size=3)) for name, truth in (("a", 0.4), ("b", 0.3), ("c", 0))
        }
        found = compare(trainings, rng, resamples=200)
        held.append(found.differences[0].lower <= 0.1 <= found.differences[0].upper)
        held.append(found.means["c"].lower <= 0 <= found.means["c"].upper)
    assert 0.925 < np.mean(held) < 0.965  # 200 resamples cost a little of 0.95; drawing seeds gives 0.79


def test_intervals_have_nominal_coverage_when_only_images_vary() -> None:
    """One category, with all hits scored above all misses, so AP is the share of objects found within 0.01."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(80):
        hard = rng.random(200)
        trainings = {}
        for name, quality in (("a", 0.6), ("b", 0.5)):
            hits = np.repeat((hard < quality)[None], 10, axis=0)
            one = replace(
                matches_of(quality, 200), scores=np.where(hits[0], 1.0, 0.0) + 0.1 * rng.random(200), hits=hits
            )
            trainings[name] = [one, one]
        (difference,) = compare(trainings, rng, resamples=100).differences
        held.append(difference.lower <= 0.1 <= difference.upper)
    assert 0.88 < np.mean(held) <= 0.99


def test_images_that_are_hard_for_all_architectures_do_not_widen_the_difference() -> None:
    one = matches_of(0.5)
    better = one.hits.copy()
    better[:, np.flatnonzero(~better[0])[:10]] = True
    trainings = {"first": [replace(one, hits=better)] * 2, "second": [one] * 2}
    found = compare(trainings, np.random.default_rng(0), resamples=300)
    (difference,) = found.differences
    assert (difference.first, difference.second) == ("first", "second")
    assert difference.value == pytest.approx(found.means["first"].value - found.means["second"].value)
    assert difference.lower > 0
    assert difference.share_above > 0.95
    apart = [mean.upper - mean.lower for mean in found.means.values()]
    assert difference.upper - difference.lower < 0.7 * float(np.hypot(*apart)), "images must be drawn jointly"
    assert found.spread.std == 0


def test_a_mean_lies_in_its_interval_although_repeated_images_raise_ap() -> None:
    one = matches_of(0.3)
    rng = np.random.default_rng(0)
    drawn = [one.average_precision(np.bincount(rng.integers(40, size=40), minlength=40)) for _ in range(200)]
    assert np.mean(drawn) > one.average_precision() + 0.003, "there must be a bias to correct"
    mean = compare({"a": [one, one]}, np.random.default_rng(0)).means["a"]
    assert mean.lower < mean.value < mean.upper
    assert mean.value - mean.lower == pytest.approx(mean.upper - mean.value, rel=0.35)


def test_the_same_stream_gives_the_same_comparison() -> None:
    trainings = {"a": [matches_of(0.5), matches_of(0.6)], "b": [matches_of(0.3)]}
    first, second = (compare(trainings, np.random.default_rng(3), resamples=50) for _ in range(2))
    assert first == second
    assert compare(trainings, np.random.default_rng(4), resamples=50) != first
