"""Covariance of the objectives of two genotypes, and its selection by marginal likelihood.

The kernel is a * linear + (1 - a) * exp(-distance^2 / (2 l^2)) over weighted groups of features. Source: Rasmussen and
Williams, "Gaussian Processes for Machine Learning" (2006), chapters 2 and 5.

Shapes: N results, C candidates, G groups, W weights of a prior.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spinenas.controller.predictor.features import GROUPS, Floats

LINEAR_SHARES = (0.0, 0.3, 0.7, 1.0)
SQUARED_LENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
NOISES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Candidates for the variance of a single result about its network's mean, relative to the variance of the means."""


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


def fitted_kernel(kernel: Kernel, products: Floats, residuals: Floats, noises: Floats) -> Kernel:
    """Return the kernel of the highest marginal likelihood, selected one part after the other.

    Args:
        kernel: where the selection begins.
        products: (G, N, N), inner products by group.
        residuals: (W, N), targets less what each weight of the prior explains; the best of these counts.
        noises: (N,), variance of each target in units of the kernel's noise.
    """
    best = _noise_fitted(kernel, products, residuals, noises)
    for linear_share in LINEAR_SHARES:
        for squared_length in SQUARED_LENGTHS if linear_share < 1 else (kernel.squared_length,):
            candidate = Kernel(kernel.weights, linear_share, squared_length)
            best = max(best, _noise_fitted(candidate, products, residuals, noises), key=lambda found: found[0])
    for group in range(len(GROUPS)):
        for factor in (0.0, 0.4, 2.5):
            shares = np.array(best[1].weights)
            shares[group] = shares[group] * factor if factor < 1 else max(shares[group], 0.05) * factor
            if shares.sum() < 1e-6:
                continue
            shares /= shares.sum()
            candidate = Kernel(tuple(shares.tolist()), best[1].linear_share, best[1].squared_length)
            best = max(best, _noise_fitted(candidate, products, residuals, noises), key=lambda found: found[0])
    return best[1]


def _noise_fitted(kernel: Kernel, products: Floats, residuals: Floats, noises: Floats) -> tuple[float, Kernel]:
    """Return a kernel with the best of NOISES, and its log marginal likelihood with amplitude and mean profiled out.

    Args:
        kernel: all parameters but the noise.
        products: (G, N, N), inner products by group.
        residuals: (W, N), targets less what each weight of the prior explains; the best of these counts.
        noises: (N,), variance of each target in units of the kernel's noise.
    """
    weighted = np.tensordot(np.array(kernel.weights), products, axes=1)
    norms = np.diagonal(weighted)
    smooth = kernel.covariance(weighted, norms, norms)
    sides = np.vstack([residuals, np.ones_like(noises)]).T
    found = []
    for noise in NOISES:
        root = np.linalg.cholesky(smooth + np.diag(noise * noises))
        *whitened, ones = np.linalg.solve(root, sides).T
        errors = [each - ones * (ones @ each) / (ones @ ones) for each in whitened]
        variance = max(min(float(np.mean(each**2)) for each in errors), 1e-12)
        likelihood = -0.5 * len(noises) * np.log(variance) - float(np.log(np.diagonal(root)).sum())
        found.append((likelihood, Kernel(kernel.weights, kernel.linear_share, kernel.squared_length, noise)))
    return max(found, key=lambda each: each[0])
