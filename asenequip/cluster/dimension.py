"""Intrinsic dimension: 2NN and Gride, over scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster._checks import check

__all__ = ["DimensionScaling", "gride", "gride_scaling", "two_nn", "two_nn_scaling"]

GRIDE_TAIL = 20.0
"""Ratios beyond this many times (95 % quantile - median) above the median are dropped, as in Gride."""


@dataclass(frozen=True)
class DimensionScaling:
    """Intrinsic dimension against the scale it is seen at.

    Attributes
    ----------
    dimensions : ndarray of float64, shape (n_scales,)
    errors : ndarray of float64, shape (n_scales,)
        One standard deviation.
    scales : ndarray of float64, shape (n_scales,)
        Mean distance of the neighbours used, in the unit of the coordinates.
    ranks : ndarray of int64, shape (n_scales,)
        Rank of the farther neighbour.
    """

    dimensions: NDArray[np.float64]
    errors: NDArray[np.float64]
    scales: NDArray[np.float64]
    ranks: NDArray[np.int64]


def two_nn(distances: NDArray, fraction: float = 0.9) -> tuple[float, float]:
    """Estimate the intrinsic dimension from the distances of the first two neighbours.

    With mu = r_2 / r_1, -ln(1 - F(mu)) = d ln mu; d is the slope through the origin fitted to the lowest `fraction`
    of the points (Facco et al. 2017, Scientific Reports 7, 12140, eq. 5).

    Parameters
    ----------
    distances : ndarray of float64, shape (n_points, k + 1), k >= 2
        Distances, column 0 the point itself.
    fraction : float
        Share of the points, those of lowest mu, that is fitted; 1 gives the maximum-likelihood estimate.

    Returns
    -------
    dimension : float
    error : float
        Its standard deviation, d / sqrt(n) with n the points used.
    """
    check(0 < fraction <= 1, "fraction", "two_nn", "a float in (0, 1]", fraction, "The usual value is 0.9.")
    n = len(distances)
    # contiguous: numpy 1.26 rounds the logarithms of a strided column by its address
    first, second = np.log(np.ascontiguousarray(distances[:, 1:3].T))
    log_mu = second - first
    if fraction == 1:
        dimension = (n - 1) / log_mu.sum()
        return float(dimension), float(dimension / np.sqrt(n))
    kept = max(1, int(n * fraction))
    x = np.sort(log_mu)[:kept]
    y = -np.log1p(-np.arange(1, kept + 1) / n)
    dimension = (x @ y) / (x @ x)
    return float(dimension), float(dimension / np.sqrt(kept))


def two_nn_scaling(
    points: NDArray, *, fraction: float = 0.9, smallest: int = 32, period: NDArray | None = None, seed: int = 0
) -> DimensionScaling:
    """Estimate the dimension by 2NN on ever smaller random parts of the points, hence at ever larger scales.

    Parameters
    ----------
    points : ndarray of float64, shape (n_points, n_features)
        Coordinates.
    fraction : float
        As for `two_nn`.
    smallest : int
        Size of the smallest part.
    period : ndarray of float64, shape (n_features,), optional
        Periods of the coordinates.
    seed : int
        Seed of the parts.

    Returns
    -------
    DimensionScaling
        Means over disjoint parts, and the standard error of each mean.
    """
    from asenequip.cluster.neighbours import nearest_neighbours

    generator = np.random.default_rng(seed)
    rows = []
    parts = 1
    while len(points) // parts >= smallest:
        pieces = np.array_split(generator.permutation(len(points)), parts)
        found = [nearest_neighbours(points[np.sort(p)], 2, period=period).distances for p in pieces]
        values = np.array([two_nn(d, fraction) for d in found])
        spread = values[:, 0].std(ddof=1) / np.sqrt(parts) if parts > 1 else values[0, 1]
        rows.append((values[:, 0].mean(), spread, np.mean([d[:, 1:].mean() for d in found]), 2 * parts))
        parts *= 2
    table = np.array(rows)
    return DimensionScaling(table[:, 0], table[:, 1], table[:, 2], table[:, 3].astype(np.int64))


def gride(ratios: NDArray, n1: int, n2: int) -> tuple[float, float]:
    """Estimate the intrinsic dimension from the ratio of two neighbour distances.

    Solves (N - 1) / d = sum [(1 - n2 + n1) / (1 - mu^-d) + n2 - 1] ln mu (Denti et al. 2022, Scientific Reports 12,
    20005); the left side falls and the right side rises with d, so the root is unique and bracketed.

    Parameters
    ----------
    ratios : ndarray of float64, shape (n_points,)
        mu = r_n2 / r_n1, at least 1.
    n1, n2 : int
        Ranks of the two neighbours.

    Returns
    -------
    dimension, error : float
        Root, and its standard deviation from the Fisher information.
    """
    from scipy.optimize import brentq

    epsilon = np.finfo(np.float64).eps
    mu = np.where(ratios == 1, 1 + 10 * epsilon, ratios)
    high, middle = np.percentile(mu, [95, 50])
    log_mu = np.log(mu[mu < GRIDE_TAIL * (high - middle) + middle])
    if len(log_mu) < 2:
        log_mu = np.log(mu)
    n = len(log_mu)

    def slope(d: float) -> float:
        complement = np.maximum(-np.expm1(-d * log_mu), 2 * epsilon)
        return (n - 1) / d - float((((1 - n2 + n1) / complement + n2 - 1) * log_mu).sum())

    low, top = 1e-3, 1e3
    if slope(low) <= 0 or slope(top) >= 0:
        dimension = low if slope(low) <= 0 else top
    else:
        dimension = brentq(slope, low, top, xtol=1e-13, rtol=8 * epsilon)
    complement = np.maximum(-np.expm1(-dimension * log_mu), 5 * epsilon)
    information = n / dimension**2 + (n2 - n1 - 1) * ((log_mu / complement) ** 2 * (1 - complement)).sum()
    return float(dimension), float(1 / np.sqrt(information))


def gride_scaling(distances: NDArray, largest: int = 64) -> DimensionScaling:
    """Estimate the dimension by Gride at neighbour ranks 1|2, 2|4, 4|8, .. up to `largest`.

    Parameters
    ----------
    distances : ndarray of float64, shape (n_points, k + 1)
        Distances, column 0 the point itself.
    largest : int
        Largest rank; cut to k.

    Returns
    -------
    DimensionScaling
    """
    top = min(largest, distances.shape[1] - 1)
    check(top >= 2, "largest", "gride_scaling", "an int of at least 2", largest, "Give at least two neighbours.")
    rows = []
    n1 = 1
    while 2 * n1 <= top:
        near, far = distances[:, n1], distances[:, 2 * n1]
        dimension, error = gride(far / near, n1, 2 * n1)
        rows.append((dimension, error, 0.5 * (near.mean() + far.mean()), 2 * n1))
        n1 *= 2
    table = np.array(rows)
    return DimensionScaling(table[:, 0], table[:, 1], table[:, 2], table[:, 3].astype(np.int64))
