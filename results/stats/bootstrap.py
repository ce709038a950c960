"""Paired bootstrap of AP: is one architecture better than another, given the sampling of images and seeds?

Images are drawn with replacement, the same ones for all architectures, and COCO AP is recomputed from the existing
matches. Drawing images changes no match, because COCO matches each image separately.

T: 10 IoU thresholds, R: 101 recall levels, D: detections, I: images, K: categories.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spinenas.results.stats.intervals import Spread, pooled_spread

RESAMPLES = 1000

RECALL_LEVELS = np.linspace(0, 1, 101)


@dataclass(frozen=True, slots=True)
class MeanAP:
    """Mean AP of an architecture over its trainings, with its 95 % interval."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference in mean AP between two architectures.

    Attributes:
        first, second: names of the architectures.
        value: mean AP of the first minus mean AP of the second.
        lower, upper: 95 % interval.
        share_above: share of resamples in which the first is strictly better.
    """

    first: str
    second: str
    value: float
    lower: float
    upper: float
    share_above: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Comparison of architectures.

    Attributes:
        means: mean AP by name.
        differences: all pairs, in the order of the names.
        spread: spread of single trainings, pooled over architectures.
    """

    means: dict[str, MeanAP]
    differences: list[Difference]
    spread: Spread


def compare(
    trainings: Mapping[str, Sequence[Matches]], rng: np.random.Generator, *, resamples: int = RESAMPLES
) -> Comparison:
    """Compare architectures by the detections of their trainings on the same images.

    A resample has two parts. First, images are drawn with replacement, as many as there are and the same for all
    trainings. Each architecture gets the mean AP of its trainings on them. Second, each architecture gets a normal draw
    for another set of seeds: the spread of single trainings divided by the square root of their number. This spread is
    pooled over architectures and itself drawn from its sampling distribution, which makes the whole a Student's t.

    AP on drawn images is biased upward, most of all for rare objects, because a repeated image repeats its most
    confident detections. The resamples of each architecture are therefore shifted to its AP on the original images
    before intervals and shares are computed.

    Trainings are not drawn with replacement: with three seeds, such intervals hold the truth in 79 % of cases instead
    of 95 % when seeds are the only source of variation (docs/experiment_log.md).

    Args:
        trainings: matches of one or more trainings per architecture, and of two or more for at least one.
        rng: source of randomness.
        resamples: number of resamples.
    """
    names = list(trainings)
    groups = [[training.average_precision() for training in trainings[name]] for name in names]
    counts = np.array([len(group) for group in groups])
    spread = pooled_spread(groups)
    assert spread is not None, "no architecture was trained twice"
    (num_images,) = {training.num_images for name in names for training in trainings[name]}

    drawn = np.empty((resamples, len(names)))
    for row in drawn:
        times = np.bincount(rng.integers(num_images, size=num_images), minlength=num_images)
        row[:] = [np.mean([training.average_precision(times) for training in trainings[name]]) for name in names]
    std = spread.std * np.sqrt(spread.freedom / rng.chisquare(spread.freedom, size=(resamples, 1)))
    drawn += std / np.sqrt(counts) * rng.normal(size=drawn.shape)

    values = [float(np.mean(group)) for group in groups]
    drawn += values - drawn.mean(axis=0)
    means = {name: MeanAP(value, *_middle(column)) for name, value, column in zip(names, values, drawn.T, strict=True)}
    differences = []
    for (i, first), (j, second) in itertools.combinations(enumerate(names), 2):
        column = drawn[:, i] - drawn[:, j]
        share = float(np.mean(column > 0))
        differences.append(Difference(first, second, values[i] - values[j], *_middle(column), share_above=share))
    return Comparison(means, differences, spread)


def _middle(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the central 95 % of some values."""
    lower, upper = np.quantile(values, [0.025, 0.975]).tolist()
    return lower, upper


@dataclass(frozen=True, eq=False)
class Matches:
    """Detections of one training on an image set, with their COCO matches.

    Attributes:
        images: (D,) index of the image, 0 to I - 1.
        categories: (D,) index of the category, 0 to K - 1.
        scores: (D,) confidence; detections of one image and category are in matching order.
        hits: (T, D) whether the detection matches an object.
        ignored: (T, D) whether the detection is ignored, for example because it matches a crowd.
        num_objects: (I, K) number of objects.
    """

    images: NDArray[np.int64]
    categories: NDArray[np.int64]
    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    num_objects: NDArray[np.int64]

    @property
    def num_images(self) -> int:
        return len(self.num_objects)

    def average_precision(self, times: NDArray[np.int64] | None = None) -> float:
        """Return COCO AP; 0 if there are no objects.

        Args:
            times: (I,) number of copies of each image, treated as consecutive images of their own; None for one each.
        """
        if times is None:
            times = np.ones(self.num_images, dtype=np.int64)
        found = [
            category.precision(times, int(number))
            for category, number in zip(self._by_category, times @ self.num_objects, strict=True)
            if number
        ]
        return float(np.mean(found)) if found else 0.0

    @cached_property
    def _by_category(self) -> list[_Category]:
        found = []
        for label in range(self.num_objects.shape[1]):
            (rows,) = np.nonzero(self.categories == label)
            # By score, then by image; ties stay in matching order.
            rows = rows[np.lexsort((self.images[rows], -self.scores[rows]))]
            images, scores, hits = self.images[rows], self.scores[rows], self.hits[:, rows]
            is_start = np.ones(len(rows), dtype=bool)
            is_start[1:] = (images[1:] != images[:-1]) | (scores[1:] != scores[:-1])
            (starts,) = np.nonzero(is_start)
            sizes = np.diff(starts, append=len(rows))
            found.append(_Category(images[starts], starts, sizes, hits, ~hits & ~self.ignored[:, rows]))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Category:
    """Detections of one category by descending score, in blocks of equal image and score.

    A repeated image repeats its blocks: a block is complete before its next copy starts.

    Attributes:
        images, starts, sizes: image, first detection and length of each block.
        hits, misses: (T, D) true and false positives.
    """

    images: NDArray[np.int64]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    hits: NDArray[np.bool_]
    misses: NDArray[np.bool_]

    def precision(self, times: NDArray[np.int64], num_objects: int) -> float:
        """Return the interpolated precision, averaged over IoU thresholds and recall levels."""
        order = self._repeated(times)
        hits = np.cumsum(self.hits[:, order], axis=1, dtype=np.int32)
        misses = np.cumsum(self.misses[:, order], axis=1, dtype=np.int32)
        precision = hits / np.maximum(hits + misses, 1)
        best_from_here = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # Hits needed for each recall level; recall is an integer over the number of objects.
        needed = np.searchsorted(np.arange(num_objects + 1) / num_objects, RECALL_LEVELS)
        total = 0.0
        for row, precision_from in zip(hits, best_from_here, strict=True):
            places = np.searchsorted(row, needed)
            total += precision_from[places[places < len(row)]].sum()
        return float(total / (len(hits) * len(RECALL_LEVELS)))

    def _repeated(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices of the detections when images are repeated."""
        lengths = self.sizes * times[self.images]
        block = np.repeat(np.arange(len(lengths)), lengths)
        place = np.arange(len(block)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        order: NDArray[np.int64] = self.starts[block] + place % self.sizes[block]
        return order
