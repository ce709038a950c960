"""Is one architecture better than another on the same images, or is it the choice of images and the luck of seeds?

A paired bootstrap: images are drawn with replacement, the same for all architectures, and COCO's AP is computed again
from what each detection was matched with. Drawing images changes no match, since those are found image by image.

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
    """AP of an architecture, the mean over its trainings, with its 95 % interval."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Difference:
    """How far the mean AP of one architecture is above that of another.

    Attributes:
        first, second: names.
        value: AP of the first less AP of the second.
        lower, upper: 95 % interval.
        share_above: share of the resamples in which the first is strictly better.
    """

    first: str
    second: str
    value: float
    lower: float
    upper: float
    share_above: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Architectures by name, and all pairs of them.

    Attributes:
        means: by name.
        differences: the pairs in the order of the names.
        spread: of single trainings, pooled over the architectures.
    """

    means: dict[str, MeanAP]
    differences: list[Difference]
    spread: Spread


def compare(
    trainings: Mapping[str, Sequence[Matches]], rng: np.random.Generator, *, resamples: int = RESAMPLES
) -> Comparison:
    """Compare architectures by what their trainings found on the same images.

    A resample is two draws. As many images as there are, with replacement, the same for all trainings: they give each
    architecture the mean AP of its trainings on these images. And what another set of seeds would have added to that
    mean: for each architecture a normal draw with the spread of single trainings divided by the root of their number,
    where the spread is pooled over the architectures and drawn too, as far as it is uncertain (all in all Student's t).

    On drawn images AP is higher in the mean than on all of them, the more so the rarer the objects: a repeated image
    brings its surest detections again. The resamples of an architecture are therefore shifted to the AP that it has on
    the images as they are, from which intervals and shares are then read off.

    The trainings themselves are not drawn with replacement: of three seeds that gives intervals that are called 95 %
    and hold the truth in 79 % of cases when seeds are all there is (docs/experiment_log.md).

    Args:
        trainings: of each architecture, one or more; of one of them two or more.
        rng: drawn from.
        resamples: how many.
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
    for first, second in itertools.combinations(range(len(names)), 2):
        column = drawn[:, first] - drawn[:, second]
        differences.append(
            Difference(
                names[first],
                names[second],
                values[first] - values[second],
                *_middle(column),
                share_above=float(np.mean(column > 0)),
            )
        )
    return Comparison(means, differences, spread)


def _middle(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 %."""
    lower, upper = np.quantile(values, [0.025, 0.975]).tolist()
    return lower, upper


@dataclass(frozen=True, eq=False)
class Matches:
    """The detections of one training on an image set, with what COCO's rules make of each.

    Attributes:
        images: (D,) rank of the image, 0 to I - 1.
        categories: (D,) 0 to K - 1.
        scores: (D,) higher is surer; of one image and category in the order in which they were matched.
        hits: (T, D) whether it found an object.
        ignored: (T, D) whether it counts as nothing, such as one that found a crowd.
        num_objects: (I, K) objects to be found.
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
        """Return AP as COCO has it, 0 where there is nothing to be found.

        Args:
            times: (I,) how often each image counts, as if its copies were images of their own, one after the other;
                None for once.
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
            # By score; then by image; what is equal stays in the order in which it was matched.
            rows = rows[np.lexsort((self.images[rows], -self.scores[rows]))]
            hits, ignored = self.hits[:, rows], self.ignored[:, rows]
            found.append(_Category.of(self.images[rows], self.scores[rows], hits, ~hits & ~ignored))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Category:
    """The detections of one category, the surest first, in blocks of the same image and score.

    A repeated image repeats its blocks: its first copy comes whole before its second.

    Attributes:
        images, starts, sizes: of the blocks.
        hits, misses: (T, D).
    """

    images: NDArray[np.int64]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    hits: NDArray[np.bool_]
    misses: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        images: NDArray[np.int64],
        scores: NDArray[np.float64],
        hits: NDArray[np.bool_],
        misses: NDArray[np.bool_],
    ) -> _Category:
        """Take detections that are in order."""
        is_start = np.ones(len(images), dtype=bool)
        is_start[1:] = (images[1:] != images[:-1]) | (scores[1:] != scores[:-1])
        (starts,) = np.nonzero(is_start)
        return cls(images[starts], starts, np.diff(starts, append=len(images)), hits, misses)

    def precision(self, times: NDArray[np.int64], num_objects: int) -> float:
        """Return the mean of the interpolated precision over all IoU thresholds and recall levels."""
        order = self._repeated(times)
        hits = np.cumsum(self.hits[:, order], axis=1, dtype=np.int32)
        misses = np.cumsum(self.misses[:, order], axis=1, dtype=np.int32)
        precision = hits / np.maximum(hits + misses, 1)
        best_from_here = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # Hits needed to reach each level of recall, in the arithmetic of whole numbers over their total.
        needed = np.searchsorted(np.arange(num_objects + 1) / num_objects, RECALL_LEVELS)
        total = 0.0
        for row, precision_from in zip(hits, best_from_here, strict=True):
            places = np.searchsorted(row, needed)
            total += precision_from[places[places < len(row)]].sum()
        return float(total / (len(hits) * len(RECALL_LEVELS)))

    def _repeated(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places of the detections when each image is there so many times."""
        lengths = self.sizes * times[self.images]
        block = np.repeat(np.arange(len(lengths)), lengths)
        place = np.arange(len(block)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        order: NDArray[np.int64] = self.starts[block] + place % self.sizes[block]
        return order
