"""Predicts the objective of a genotype and its uncertainty: a Gaussian process on features of genotypes.

Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), chapters 2 and 5; section 2.7 for the
mean function. numpy is enough: a few hundred results take milliseconds.

The mean is constant, or a prior expectation of each network times a weight. Marginal likelihood selects the weight anew
with each result. A weight of 0 leaves the predictor as it is without a prior.

The predictor keeps NUM_KEPT networks, the better half and the latest, so that its cost does not grow with the number of
results. It is deterministic in the order of calls.

Shapes: N results, C candidates, D features, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np

from spinenas.controller.calibration import Estimate, robust_spread
from spinenas.controller.predictor.features import Features, Floats
from spinenas.controller.predictor.kernel import Kernel, fitted_kernel
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key
from spinenas.space.search_space import SearchSpace

NUM_KEPT = 400
"""Number of networks that are kept for predictions."""

NUM_CACHED = 4096
"""Number of the latest networks with results whose features are kept, 10 KB each, as a search asks about them again."""

NUM_FITTED = 200
"""Number of the latest of these networks, which the kernel is fitted to."""

FIRST_FIT, FIT_GROWTH = 12, 1.5
"""The kernel is fitted at 12, 18, 27, ... results. The posterior always has all results."""

LOWEST = -2.0
"""Lower bound of standardised results, in robust standard deviations from the median. How bad a bad network is does not
matter, and a diverged one has an objective of 0."""


class Prediction(NamedTuple):
    """Mean and standard deviation of the objective of C candidates, (C,) each, without the noise of a training."""

    mean: Floats
    std: Floats


PRIOR_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Candidates for the weight of the prior expectation, in standardised results per standard deviation of it."""

FIRST_PRIOR_WEIGHT, MIN_WEIGHED = 0.5, 3
"""The weight before so many networks have results."""

Expectation = Callable[[Floats], Floats]
"""What is expected of features (C, D) before any result, (C,), in standard deviations over random networks."""

UNKNOWN = 1e-6
"""Weight of a network of which nothing can be said yet."""


@dataclass(slots=True)
class _Known:
    """A network with results, and the estimate that they add up to."""

    features: Floats
    expected: float
    value: float = 0.0
    weight: float = UNKNOWN


@dataclass(frozen=True, slots=True)
class _Posterior:
    """Basis of predictions: inverse covariance (N, N), and weights of the known networks (N,)."""

    inverse: Floats
    weights: Floats
    centre: float
    scale: float
    amplitude: float
    prior_weight: float


@dataclass(slots=True)
class Predictor:
    """Learns the objectives of genotypes, and predicts those of others. Call it under `one_blas_thread`.

    Args:
        space: search space of the genotypes.
        expectation: the prior; None for a constant mean.
    """

    space: SearchSpace
    expectation: Expectation | None = None
    kernel: Kernel = field(default_factory=Kernel)
    num_results: int = 0
    _features: Features = field(init=False)
    _rows_of: dict[Genotype, Floats] = field(default_factory=dict)  # features of the latest that had a result
    _known: dict[str, _Known] = field(default_factory=dict)  # oldest first
    _next_fit: float = FIRST_FIT
    _posterior: _Posterior | None = None
    _rows: Floats = field(init=False)  # weighted features of the known networks in order; has one spare row
    _products: Floats = field(init=False)  # inner products of the rows

    def __post_init__(self) -> None:
        self._features = Features(self.space)
        self._rows = np.empty((NUM_KEPT + 1, len(self._scales())))
        self._products = np.empty((NUM_KEPT + 1, NUM_KEPT + 1))

    def learn(self, genotype: Genotype, estimates: Mapping[str, Estimate]) -> None:
        """Take a new result.

        Args:
            genotype: its network.
            estimates: by network key, what is known of each network that something is known of.
        """
        key = network_key(genotype)
        if key not in self._known:
            features = self._rows_of[genotype] = self._features([genotype])[0]
            expected = 0.0 if self.expectation is None else float(self.expectation(features[None])[0])
            self._known[key] = _Known(features, expected)
            self._update_rows(len(self._known) - 1)
            if len(self._rows_of) > NUM_CACHED:
                del self._rows_of[next(iter(self._rows_of))]
        for name, known in self._known.items():
            known.value, known.weight = estimates.get(name, (known.value, UNKNOWN))
        self.num_results += 1
        self._posterior = None
        if len(self._known) > NUM_KEPT:
            self._forget()
        if self.num_results >= self._next_fit:
            self._next_fit *= FIT_GROWTH
            self._fit()

    def learn_at_once(self, estimates: Mapping[Genotype, Estimate]) -> None:
        """Take the results of distinct networks, and fit the kernel once."""
        self._next_fit = len(estimates)
        by_key = {network_key(genotype): estimate for genotype, estimate in estimates.items()}
        for genotype in estimates:
            self.learn(genotype, by_key)

    @property
    def prior_weight(self) -> float:
        """Weight of the prior expectation; 0 without one."""
        return self._up_to_date().prior_weight if self._known else self._prior_weights(0)[0]

    def expected(self, genotypes: list[Genotype]) -> Floats:
        """Return the prior expectation of genotypes, in standard deviations over random networks; 0 without one."""
        return np.zeros(len(genotypes)) if self.expectation is None else self.expectation(self._features(genotypes))

    def predict(self, genotypes: list[Genotype]) -> Prediction:
        """Return predictions for genotypes; at least one result must be known."""
        # Networks with results are asked about at every step.
        new = iter(
            self._features([genotype for genotype in genotypes if genotype not in self._rows_of] or genotypes[:1])
        )
        features = [next(new) if (row := self._rows_of.get(genotype)) is None else row for genotype in genotypes]
        return self.predict_features(np.stack(features))

    def predict_features(self, features: Floats) -> Prediction:
        """Return predictions for features (C, D)."""
        posterior = self._up_to_date()
        rows = features * self._scales()
        norms = (rows * rows).sum(axis=1)
        count = len(self._known)
        products = self._rows[:count] @ rows.T
        covariance = self.kernel.covariance(products, self._products.diagonal()[:count], norms)  # (N, C)
        mean = posterior.centre + posterior.scale * (posterior.weights @ covariance)
        if self.expectation is not None:
            mean += posterior.scale * posterior.prior_weight * self.expectation(features)
        prior = self.kernel.linear_share * norms + 1 - self.kernel.linear_share
        explained = (covariance * (posterior.inverse @ covariance)).sum(axis=0)
        std = posterior.scale * posterior.amplitude * np.sqrt(np.maximum(prior - explained, 1e-12))
        return Prediction(mean, std)

    @property
    def noise_variance(self) -> float:
        """Variance of a single result about the predicted mean, of which the seed is one part."""
        posterior = self._up_to_date()
        return float(self.kernel.noise * (posterior.scale * posterior.amplitude) ** 2)

    def _forget(self) -> None:
        """Drop the oldest network that is not in the better half."""
        median = sorted(known.value for known in self._known.values())[len(self._known) // 2]
        keys = list(self._known)
        place = next((place for place, key in enumerate(keys) if self._known[key].value < median), 0)
        del self._known[keys[place]]
        self._rows[place:-1] = self._rows[place + 1 :]
        self._products[place:-1] = self._products[place + 1 :]
        self._products[:, place:-1] = self._products[:, place + 1 :]

    def _update_rows(self, first: int) -> None:
        """Update rows and products from a place on, so that proposals need not compute them."""
        count = len(self._known)
        new = np.stack([known.features for known in islice(self._known.values(), first, None)])
        self._rows[first:count] = new * self._scales()
        self._products[first:count, :count] = self._rows[first:count] @ self._rows[:count].T
        self._products[:first, first:count] = self._products[first:count, :first].T

    def _scales(self) -> Floats:
        """(D,), the square root of each feature's weight."""
        scales = np.empty(sum(where.stop - where.start for where in self._features.groups.values()))
        for weight, where in zip(self.kernel.weights, self._features.groups.values(), strict=True):
            scales[where] = np.sqrt(weight)
        return scales

    def _targets(self) -> tuple[Floats, Floats, float, float]:
        """Return standardised values (N,), weights (N,), and the centre and scale that they were standardised by."""
        values, weights = np.array([(known.value, known.weight) for known in self._known.values()]).T
        estimated = values[weights > UNKNOWN]
        if not len(estimated):
            return np.zeros_like(values), weights, 0.0, 1.0
        centre = float(np.median(estimated))
        scale = robust_spread(estimated) or self._assumed_scale(centre)
        return np.maximum((values - centre) / scale, LOWEST), weights, centre, scale

    def _assumed_scale(self, centre: float) -> float:
        """Scale of equal results. Only predictions from a prior depend on it."""
        return 1.0 if self.expectation is None else max(abs(centre), 1e-3)

    def _up_to_date(self) -> _Posterior:
        if self._posterior is None:
            targets, weights_of_results, centre, scale = self._targets()
            noises = self.kernel.noise / weights_of_results
            products = self._products[: len(noises), : len(noises)]
            norms = products.diagonal()
            covariance = self.kernel.covariance(products, norms, norms)
            covariance[np.diag_indices_from(covariance)] += noises
            inverse: Floats = np.asarray(np.linalg.inv(covariance), dtype=np.float64)
            num_estimated = max(int((weights_of_results > UNKNOWN).sum()), 1)
            found = []
            for prior_weight in self._prior_weights(num_estimated):
                residuals = targets - prior_weight * self._expected()
                middle = float(inverse.sum(axis=0) @ residuals / inverse.sum())  # generalised least squares
                weights: Floats = inverse @ (residuals - middle)
                found.append((float((residuals - middle) @ weights), prior_weight, middle, weights))
            # The determinant is the same for all, so that the smallest square has the highest likelihood.
            square, prior_weight, middle, weights = min(found, key=lambda each: each[0])
            amplitude = np.sqrt(max(square / num_estimated, 1e-12))
            self._posterior = _Posterior(inverse, weights, centre + scale * middle, scale, amplitude, prior_weight)
        return self._posterior

    def _expected(self) -> Floats:
        """(N,), the prior expectation of the known networks."""
        return np.array([known.expected for known in self._known.values()])

    def _prior_weights(self, num_estimated: int) -> tuple[float, ...]:
        if self.expectation is None:
            return (0.0,)
        return PRIOR_WEIGHTS if num_estimated >= MIN_WEIGHED else (FIRST_PRIOR_WEIGHT,)

    def _fit(self) -> None:
        """Select the kernel by marginal likelihood on the latest networks, one part of it after the other."""
        targets, weights, _, _ = self._targets()
        places = np.flatnonzero(weights > UNKNOWN)[-NUM_FITTED:]
        noises = 1 / weights[places]
        expected = np.outer(self._prior_weights(len(places)), self._expected()[places])
        residuals = targets[places] - expected
        features = [known.features for known in self._known.values()]
        rows = np.stack([features[place] for place in places])
        products = np.stack([rows[:, where] @ rows[:, where].T for where in self._features.groups.values()])
        self.kernel = fitted_kernel(self.kernel, products, residuals, noises)
        self._update_rows(0)
