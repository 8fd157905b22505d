"""Correction of mean-shift gradients for the width of the neighbourhoods they are taken over."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster.gradients import MeanShifts
from asenequip.cluster.graph import Graph, row_blocks
from asenequip.cluster.lists import NeighbourLists

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

    slopes = np.concatenate([[0.0], np.geomspace(1e-3, 100 * (dimension + 2), 2000)])
    means = np.zeros_like(slopes)
    with np.errstate(invalid="ignore", divide="ignore"):
        means[1:] = ive(0.5 * dimension + 1, slopes[1:]) / ive(0.5 * dimension, slopes[1:])
    small = ~np.isfinite(means) | (means <= 0) | (slopes < 1e-2)
    means[small] = slopes[small] / (dimension + 2)
    # the ratio kappa / mean is smooth and starts at d + 2: interpolate that
    ratio = np.full_like(slopes, dimension + 2.0)
    ratio[1:] = slopes[1:] / means[1:]
    return shift * np.interp(shift, means, ratio)


def sharpening(shifts: MeanShifts, graph: Graph, lists: NeighbourLists, dimension: float) -> NDArray:
    """Give the factor by which each mean-shift gradient is too small.

    The mean shift c <dx> is the gradient of a density linear in the ball; where the density is exponential it is too
    small, by a third where it changes e^4-fold across a ball in six dimensions. The maximum-likelihood slope of an
    exponential density follows from the squared mean shift, from which the variance of the mean is subtracted and
    which is averaged over the neighbourhood so that noise is not amplified. The radius is that of the k*-th neighbour,
    within which the first k* - 1 are distributed as the density, where the reference takes the last of them.

    Parameters
    ----------
    shifts : MeanShifts
        Mean-shift gradients.
    graph : Graph
        Neighbourhoods.
    lists : NeighbourLists
        At least k* neighbours of each point.
    dimension : float
        Intrinsic dimension.

    Returns
    -------
    ndarray of float64, shape (n_points,)
        Factors on the gradients.
    """
    k = graph.k_star
    inner, outer = lists.distance(k - 1), lists.distance(k)
    mean_square = (shifts.gradient**2).sum(axis=1) * (inner**2 / (dimension + 2)) ** 2
    noise = (shifts.spread - mean_square) / np.maximum(shifts.total - 1, 1)
    shift = (mean_square - noise) / outer**2
    around = np.empty_like(shift)

    def add(first: int, last: int) -> None:
        begin = graph.start[first]
        near = shift[graph.target[begin : graph.start[last]]]
        around[first:last] = np.add.reduceat(near, graph.start[first:last] - begin)

    row_blocks(graph.start, 1, add)
    shift = np.sqrt(np.clip((around + shift) / k, 1e-12, STEEPEST**2))
    return exponential_slope(shift, dimension) / (shift * (dimension + 2)) * (inner / outer) ** 2
