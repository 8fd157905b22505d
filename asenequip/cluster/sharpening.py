"""Correction of mean-shift gradients for the width of the neighbourhoods they are taken over."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster.gradients import Graph
from asenequip.cluster.neighbours import Neighbours

__all__ = ["exponential_slope", "sharpening"]

STEEPEST = 0.98
"""Largest mean shift, in units of the radius, that is inverted: at 1 all neighbours sit on one point."""


def exponential_slope(shift: NDArray, dimension: float) -> NDArray:
    """Give the slope kappa of an exponential density in the unit ball from its mean.

    For a density exp(kappa x) in the unit ball of `dimension` dimensions the mean of x is
    I_{d/2+1}(kappa) / I_{d/2}(kappa), with I the modified Bessel functions; this inverts the relation. It starts as
    (d + 2) shift, the mean-shift estimate, and grows faster.

    Parameters
    ----------
    shift : ndarray of float64
        Means, in [0, 1).
    dimension : float
        Intrinsic dimension.

    Returns
    -------
    ndarray of float64, like `shift`
    """
    from scipy.special import ive

    slopes = np.concatenate([[0.0], np.geomspace(1e-3, 100 * (dimension + 2), 8000)])
    means = np.zeros_like(slopes)
    with np.errstate(invalid="ignore", divide="ignore"):
        means[1:] = ive(0.5 * dimension + 1, slopes[1:]) / ive(0.5 * dimension, slopes[1:])
    small = ~np.isfinite(means) | (means <= 0) | (slopes < 1e-2)
    means[small] = slopes[small] / (dimension + 2)
    # the ratio kappa / mean is smooth and starts at d + 2: interpolate that
    ratio = np.full_like(slopes, dimension + 2.0)
    ratio[1:] = slopes[1:] / means[1:]
    return shift * np.interp(shift, means, ratio)


def sharpening(
    gradient: NDArray, graph: Graph, neighbours: Neighbours, dimension: float, total: NDArray | None = None
) -> NDArray:
    """Give the factor by which each mean-shift gradient is too small.

    The mean shift c <dx> is the gradient of a density linear in the ball; where the density is exponential it is too
    small, by a third where it changes e^4-fold across a ball in six dimensions. The maximum-likelihood slope of an
    exponential density follows from the squared mean shift, from which the variance of the mean is subtracted and
    which is averaged over the neighbourhood so that noise is not amplified. The radius is that of the k*-th neighbour,
    within which the first k* - 1 are distributed as the density, where the reference takes the last of them.

    Parameters
    ----------
    gradient : ndarray of float64, shape (n_points, n_features)
        Mean-shift gradients.
    graph : Graph
        Neighbourhoods.
    neighbours : Neighbours
        Distances, at least max(k*) neighbours.
    dimension : float
        Intrinsic dimension.
    total : ndarray of float64, shape (n_points,), optional
        Points each mean is taken over, k* - 1 unless given.

    Returns
    -------
    ndarray of float64, shape (n_points,)
        Factors on `gradient`.
    """
    from scipy.sparse import csr_matrix

    k, rows = graph.k_star, np.arange(len(graph.k_star))
    inner, outer = neighbours.distances[rows, k - 1], neighbours.distances[rows, k]
    width = int(k.max())
    inside = np.arange(1, width) < k[:, None]
    count = k - 1.0 if total is None else total
    spread = np.where(inside, neighbours.distances[:, 1:width] ** 2, 0.0).sum(axis=1) / (k - 1.0)
    mean_square = (gradient * gradient).sum(axis=1) * (inner**2 / (dimension + 2)) ** 2
    noise = (spread - mean_square) / np.maximum(count - 1, 1)
    shift = (mean_square - noise) / outer**2
    links = csr_matrix((np.ones(len(graph.target)), graph.target, graph.start), shape=(len(k), len(k)))
    shift = np.sqrt(np.clip((links @ shift + shift) / k, 1e-12, STEEPEST**2))
    return exponential_slope(shift, dimension) / (shift * (dimension + 2)) * (inner / outer) ** 2
