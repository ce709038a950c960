"""Predicts the objective of a genotype and its uncertainty: a Gaussian process on features of genotypes.

The kernel is a * linear + (1 - a) * exp(-distance^2 / (2 l^2)) over weighted groups of features. Its parameters are
selected by marginal likelihood. Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006),
chapters 2 and 5. numpy is enough: a few hundred results take milliseconds.

The predictor keeps NUM_KEPT networks, the better half and the latest, so that its cost does not grow with the number of
results. It is deterministic in the order of calls.

Shapes: N results, C candidates, D features, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np

from spinenas.controller.calibration import Estimate
from spinenas.controller.predictor.features import GROUPS, Features, Floats
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key
from spinenas.space.search_space import SearchSpace

NUM_KEPT = 400
"""Number of networks that are kept for predictions."""

NUM_FITTED = 200
"""Number of the latest of these networks, which the kernel is fitted to."""

FIRST_FIT, FIT_GROWTH = 12, 1.5
"""The kernel is fitted at 12, 18, 27, ... results. The posterior always has all results."""

LOWEST = -2.0
"""Lower bound of standardised results, in robust standard deviations from the median. How bad a bad network is does not
matter, and a diverged one has an objective of 0."""

LINEAR_SHARES = (0.0, 0.3, 0.7, 1.0)
SQUARED_LENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
NOISES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Candidates for the variance of a single result about its network's mean, relative to the variance of the means."""


class Prediction(NamedTuple):
    """Mean and standard deviation of the objective of C candidates, (C,) each, without the noise of a training."""

    mean: Floats
    std: Floats


@dataclass(frozen=True, slots=True)
class Kernel:
    """Covariance of the objectives of two genotypes, up to a factor.

    Attributes:
        weights: (G,), weights of the groups, which sum to 1.
        linear_share: weight of the linear part, 0 to 1.
        squared_length: squared length scale of the exponential part.
        noise: variance of a single result, relative to the variance of the means.
    """

    weights: tuple[float, ...] = (1 / len(GROUPS),) * len(GROUPS)
    linear_share: float = 0.3
    squared_length: float = 1.0
    noise: float = 0.3

    def covariance(self, products: Floats, first: Floats, second: Floats) -> Floats:
        """Return covariances (N, C) from inner products (N, C) of weighted features and squared norms (N,) and (C,)."""
        squared = np.maximum(first[:, None] + second[None] - 2 * products, 0.0)
        smooth: Floats = np.exp(squared / (-2 * self.squared_length))
        return self.linear_share * products + (1 - self.linear_share) * smooth


UNKNOWN = 1e-6
"""Weight of a network of which nothing can be said yet."""


@dataclass(slots=True)
class _Known:
    """A network with results, and the estimate that they add up to."""

    features: Floats
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


@dataclass(slots=True)
class Predictor:
    """Learns the objectives of genotypes, and predicts those of others. Call it under `one_blas_thread`.

    Args:
        space: search space of the genotypes.
    """

    space: SearchSpace
    kernel: Kernel = field(default_factory=Kernel)
    num_results: int = 0
    _features: Features = field(init=False)
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
            self._known[key] = _Known(self._features([genotype])[0])
            self._update_rows(len(self._known) - 1)
        for name, known in self._known.items():
            known.value, known.weight = estimates.get(name, (known.value, UNKNOWN))
        self.num_results += 1
        self._posterior = None
        if len(self._known) > NUM_KEPT:
            self._forget()
        if self.num_results >= self._next_fit:
            self._next_fit *= FIT_GROWTH
            self._fit()

    def predict(self, genotypes: list[Genotype]) -> Prediction:
        """Return predictions for genotypes; at least one result must be known."""
        posterior = self._up_to_date()
        rows = self._features(genotypes) * self._scales()
        norms = (rows * rows).sum(axis=1)
        count = len(self._known)
        products = self._rows[:count] @ rows.T
        covariance = self.kernel.covariance(products, self._products.diagonal()[:count], norms)  # (N, C)
        mean = posterior.centre + posterior.scale * (posterior.weights @ covariance)
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
        scale = 1.4826 * float(np.median(np.abs(estimated - centre))) or float(estimated.std()) or 1.0
        return np.maximum((values - centre) / scale, LOWEST), weights, centre, scale

    def _up_to_date(self) -> _Posterior:
        if self._posterior is None:
            targets, weights_of_results, centre, scale = self._targets()
            noises = self.kernel.noise / weights_of_results
            products = self._products[: len(noises), : len(noises)]
            norms = products.diagonal()
            covariance = self.kernel.covariance(products, norms, norms)
            covariance[np.diag_indices_from(covariance)] += noises
            inverse: Floats = np.asarray(np.linalg.inv(covariance), dtype=np.float64)
            middle = float(inverse.sum(axis=0) @ targets / inverse.sum())  # generalised least squares
            weights: Floats = inverse @ (targets - middle)
            num_estimated = max(int((weights_of_results > UNKNOWN).sum()), 1)
            amplitude = np.sqrt(max(float((targets - middle) @ weights) / num_estimated, 1e-12))
            self._posterior = _Posterior(inverse, weights, centre + scale * middle, scale, amplitude)
        return self._posterior

    def _fit(self) -> None:
        """Select the kernel by marginal likelihood on the latest networks, one part of it after the other."""
        targets, weights, _, _ = self._targets()
        places = np.flatnonzero(weights > UNKNOWN)[-NUM_FITTED:]
        targets, noises = targets[places], 1 / weights[places]
        features = [known.features for known in self._known.values()]
        rows = np.stack([features[place] for place in places])
        products = np.stack([rows[:, where] @ rows[:, where].T for where in self._features.groups.values()])
        best = _noise_fitted(self.kernel, products, targets, noises)
        for linear_share in LINEAR_SHARES:
            for squared_length in SQUARED_LENGTHS if linear_share < 1 else (self.kernel.squared_length,):
                candidate = Kernel(self.kernel.weights, linear_share, squared_length)
                best = max(best, _noise_fitted(candidate, products, targets, noises), key=lambda found: found[0])
        for group in range(len(GROUPS)):
            for factor in (0.0, 0.4, 2.5):
                shares = np.array(best[1].weights)
                shares[group] = shares[group] * factor if factor < 1 else max(shares[group], 0.05) * factor
                if shares.sum() < 1e-6:
                    continue
                shares /= shares.sum()
                candidate = Kernel(tuple(shares.tolist()), best[1].linear_share, best[1].squared_length)
                best = max(best, _noise_fitted(candidate, products, targets, noises), key=lambda found: found[0])
        self.kernel = best[1]
        self._update_rows(0)


def _noise_fitted(kernel: Kernel, products: Floats, targets: Floats, noises: Floats) -> tuple[float, Kernel]:
    """Return a kernel with the best of NOISES, and its log marginal likelihood with amplitude and mean profiled out.

    Args:
        kernel: all parameters but the noise.
        products: (G, N, N), inner products by group.
        targets: (N,).
        noises: (N,), variance of each target in units of the kernel's noise.
    """
    weighted = np.tensordot(np.array(kernel.weights), products, axes=1)
    norms = np.diagonal(weighted)
    smooth = kernel.covariance(weighted, norms, norms)
    sides = np.stack([targets, np.ones_like(targets)], axis=1)
    found = []
    for noise in NOISES:
        root = np.linalg.cholesky(smooth + np.diag(noise * noises))
        whitened, ones = np.linalg.solve(root, sides).T
        errors = whitened - ones * (ones @ whitened) / (ones @ ones)
        variance = max(float(np.mean(errors**2)), 1e-12)
        likelihood = -0.5 * len(targets) * np.log(variance) - float(np.log(np.diagonal(root)).sum())
        found.append((likelihood, Kernel(kernel.weights, kernel.linear_share, kernel.squared_length, noise)))
    return max(found, key=lambda each: each[0])
