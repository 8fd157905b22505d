"""Gradients of the log density from the mean shift of neighbours."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster import native
from asenequip.cluster.graph import Graph, edge_vectors, row_blocks
from asenequip.cluster.neighbours import threads

__all__ = ["COVARIANCE_FLOOR", "MeanShifts", "mean_shifts", "space_arguments"]

COVARIANCE_FLOOR = 1e-10
"""Added to the variance of every gradient component, as in the reference."""
MOMENT_FEATURES = 24
"""Up to this many coordinates second moments are kept packed; above, neighbours' Gram products replace them."""


@dataclass(frozen=True)
class MeanShifts:
    """Gradients of the log density and what their errors follow from.

    Attributes
    ----------
    gradient : ndarray of float64, shape (n_points, n_features)
        Per unit of the coordinates.
    scale : ndarray of float64, shape (n_points,)
        c, in inverse squared units of the coordinates.
    total : ndarray of float64, shape (n_points,)
        m, the points averaged over.
    spread : ndarray of float64, shape (n_points,)
        Mean squared distance of the neighbours.
    covariance : ndarray of float64, shape (n_points, n_features (n_features + 1) / 2), or None
        Upper triangles, off-diagonal entries doubled so that v^T C v is a scalar product with the packed v v^T.
    """

    gradient: NDArray[np.float64]
    scale: NDArray[np.float64]
    total: NDArray[np.float64]
    spread: NDArray[np.float64]
    covariance: NDArray[np.float64] | None

    def scaled(self, factor: NDArray) -> MeanShifts:
        """Give the same with every gradient multiplied by `factor`, shape (n_points,)."""
        return replace(
            self,
            gradient=self.gradient * factor[:, None],
            scale=self.scale * factor,
            covariance=None if self.covariance is None else self.covariance * factor[:, None] ** 2,
        )


def space_arguments(
    points: NDArray, dimension: float, period: NDArray | None, counts: NDArray | None
) -> native.Arguments:
    """Give coordinates, periods and counts as compiled code takes them."""
    period = None if period is None else np.ascontiguousarray(period, np.float64)
    return native.Arguments(np.ascontiguousarray(points), period, counts, *points.shape, float(dimension), threads())


def mean_shifts(
    points: NDArray,
    graph: Graph,
    dimension: float,
    *,
    period: NDArray | None = None,
    counts: NDArray | None = None,
    covariance: bool | None = None,
) -> MeanShifts:
    """Estimate the gradient of the log density at every point by the mean shift of its neighbours.

    With m = k* - 1 neighbours within R, c = (d + 2) / R^2: g = c <dx>, and the covariance of g is
    [c^2 <dx dx^T> - g g^T] / m * k* / (k* - 1) + 1e-10 (Carli et al. 2024, arXiv:2407.08094, eq. 9 and 12).

    Parameters
    ----------
    points : ndarray of float64, shape (n_points, n_features)
        Coordinates.
    graph : Graph
        Neighbourhoods.
    dimension : float
        Intrinsic dimension.
    period : ndarray of float64, shape (n_features,), optional
        Periods.
    counts : ndarray of float64, shape (n_points,), optional
        How many points each stands for, 1 unless given.
    covariance : bool, optional
        Whether to keep packed covariances; up to 24 coordinates unless given.

    Returns
    -------
    MeanShifts
    """
    n, features = points.shape
    if covariance is None:
        covariance = features <= MOMENT_FEATURES
    gradient, scale, total, spread = np.empty((n, features)), np.empty(n), np.empty(n), np.empty(n)
    packed = np.empty((n, features * (features + 1) // 2)) if covariance else None
    found = MeanShifts(gradient, scale, total, spread, packed)
    if native.library() is not None:
        space = space_arguments(points, dimension, period, counts)
        out = native.Arguments(gradient, scale, total, spread, packed)
        native.run("mean_shifts", space, graph.arguments(), COVARIANCE_FLOOR, out)
    else:
        _by_blocks(points, graph, dimension, period, counts, found)
    return found


def _by_blocks(
    points: NDArray,
    graph: Graph,
    dimension: float,
    period: NDArray | None,
    counts: NDArray | None,
    found: MeanShifts,
) -> None:
    """Fill `found`, blocks of points at a time."""
    upper = np.triu_indices(points.shape[1])
    doubled = np.where(upper[0] == upper[1], 1.0, 2.0)

    def work(first: int, last: int) -> None:
        vectors = edge_vectors(points, graph, first, last, period)
        offsets = graph.start[first:last] - graph.start[first]
        ends = graph.start[first + 1 : last + 1] - 1 - graph.start[first]
        squares = np.einsum("nd,nd->n", vectors, vectors)
        c = (dimension + 2) / squares[ends]
        found.spread[first:last] = np.add.reduceat(squares, offsets) / np.diff(graph.start[first : last + 1])
        if counts is None:
            m, weighted = graph.k_star[first:last] - 1.0, vectors
        else:
            weight = counts[graph.target[graph.start[first] : graph.start[last]]]
            m = np.add.reduceat(weight, offsets) + counts[first:last] - 1.0
            weighted = vectors * weight[:, None]
        g = np.add.reduceat(weighted, offsets, axis=0) * (c / m)[:, None]
        found.gradient[first:last], found.scale[first:last], found.total[first:last] = g, c, m
        if found.covariance is not None:
            products = weighted[:, upper[0]] * vectors[:, upper[1]]
            second = np.add.reduceat(products, offsets, axis=0) * (c**2 / m)[:, None]
            second -= g[:, upper[0]] * g[:, upper[1]]
            second *= ((m + 1) / m**2)[:, None]
            second[:, upper[0] == upper[1]] += COVARIANCE_FLOOR
            found.covariance[first:last] = second * doubled

    row_blocks(graph.start, points.shape[1] + len(doubled), work)
