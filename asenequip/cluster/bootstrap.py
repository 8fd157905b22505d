"""Errors of BMTI from a multiplier bootstrap of the points."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster.bmti import BMTISystem, solve
from asenequip.cluster.gradients import Graph, edge_vectors, gradients, row_blocks

if TYPE_CHECKING:
    from asenequip.cluster.landscape import Landscape

__all__ = ["bootstrap_errors"]

SOLVER_TOLERANCE = 1e-3
"""Relative error of the bootstrap's solutions: far below the sampling error of a standard deviation."""


def bootstrap_errors(
    landscape: Landscape,
    graph: Graph,
    links: Graph,
    system: BMTISystem,
    prior: Landscape,
    gradient: NDArray,
    factor: NDArray | None,
    *,
    samples: int,
    seed: int,
    precondition: Callable[[NDArray], NDArray],
) -> NDArray:
    """Estimate the standard deviation of the BMTI log density from the scatter of the points themselves.

    Every point m gets a random multiplier xi_m ~ N(0, 1), the same wherever m is a neighbour, and the mean shift of i
    varies by sum_m xi_m (dx_m - <dx>) / k. This keeps the correlations between gradients that share neighbours, which
    the inverse of the system's matrix leaves out. The variance of the free constant, that of the k* estimate's mean
    over the component, is added, and half the sharpening of the gradients counts as a systematic error.

    Parameters
    ----------
    landscape, prior : Landscape
        Neighbourhoods, and the k* estimate.
    graph, links : Graph
        Neighbourhoods and edges.
    system : BMTISystem
    gradient : ndarray of float64, shape (n_points, n_features)
        Gradients, sharpened where `factor` is given.
    factor : ndarray of float64, shape (n_points,), or None
        Factors of the sharpening.
    samples : int
        Number of samples; the error of the errors is 1 / sqrt(2 samples).
    seed : int
    precondition : callable

    Returns
    -------
    ndarray of float64, shape (n_points,)
    """
    hood, points, counts = landscape.hood(), landscape.support.points, landscape.counts
    n = len(points)
    generator = np.random.default_rng(seed)
    options = {"period": landscape.period, "counts": counts}
    plain, scale, total, _ = gradients(points, graph, hood.dimension, covariance=False, **options)
    factor = np.ones(n) if factor is None else factor
    multipliers = generator.normal(size=(n, samples))
    if counts is not None:
        multipliers *= np.sqrt(counts)[:, None]
    right = np.zeros((n, samples + 1))
    for column in range(samples):
        change = _shifted(points, graph, plain, scale, total, factor, multipliers[:, column], landscape.period)
        right[:, column] = _flow(points, links, system, change, landscape.period)
    right[:, -1] = _flow(points, links, system, gradient - plain, landscape.period)
    right *= system.alpha
    scatter, _ = solve(system, np.zeros_like(right), right=right, tolerance=SOLVER_TOLERANCE, precondition=precondition)
    systematic = 0.5 * scatter[:, -1]
    variance = scatter[:, :-1].var(axis=1, ddof=0) * samples / (samples - 1) + systematic**2
    if system.alpha == 1.0:
        sizes = np.bincount(system.component, counts)
        variance = variance + (1 / sizes)[system.component]
    else:
        variance = variance + ((1 - system.alpha) / system.matrix.diagonal() / prior.error) ** 2
    return np.sqrt(variance)


def _shifted(
    points: NDArray,
    graph: Graph,
    plain: NDArray,
    scale: NDArray,
    total: NDArray,
    factor: NDArray,
    multiplier: NDArray,
    period: NDArray | None,
) -> NDArray:
    """Change of every gradient under one set of multipliers, shape (n_points, n_features)."""
    change = np.empty_like(points)
    size = (scale * factor / total)[:, None]

    def work(first: int, last: int) -> None:
        block = slice(graph.start[first], graph.start[last])
        vectors = edge_vectors(points, graph, first, last, period)
        weight = multiplier[graph.target[block]]
        offsets = graph.start[first:last] - graph.start[first]
        vectors *= weight[:, None]
        shift = np.add.reduceat(vectors, offsets, axis=0)
        shift -= np.add.reduceat(weight, offsets)[:, None] * plain[first:last] / scale[first:last, None]
        change[first:last] = shift * size[first:last]

    row_blocks(graph.start, 2 * points.shape[1], work)
    return change


def _flow(points: NDArray, links: Graph, system: BMTISystem, change: NDArray, period: NDArray | None) -> NDArray:
    """Right-hand side that a change of the gradients makes, shape (n_points,)."""
    n = len(points)
    flow = np.empty(len(links.target))
    outgoing = np.empty(n)

    def work(first: int, last: int) -> None:
        block = slice(links.start[first], links.start[last])
        vectors = edge_vectors(points, links, first, last, period)
        both = change.take(links.target[block], axis=0)
        both += np.repeat(change[first:last], np.diff(links.start[first : last + 1]), axis=0)
        flow[block] = 0.5 * system.weights[block] * np.einsum("ed,ed->e", both, vectors)
        outgoing[first:last] = np.add.reduceat(flow[block], links.start[first:last] - links.start[first])

    row_blocks(links.start, 3 * points.shape[1], work)
    return np.bincount(links.target, flow, minlength=n) - outgoing
