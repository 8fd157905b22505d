"""Errors of BMTI from a multiplier bootstrap of the points."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster import native
from asenequip.cluster.bmti import BMTISystem, solve
from asenequip.cluster.gradients import MeanShifts, space_arguments
from asenequip.cluster.graph import Graph, edge_vectors, row_blocks
from asenequip.cluster.neighbours import threads

if TYPE_CHECKING:
    from asenequip.cluster.landscape import Landscape

__all__ = ["bootstrap_errors"]

SOLVER_TOLERANCE = 1e-3
"""Relative error of the bootstrap's solutions: far below the sampling error of a standard deviation."""
TOLERATED_BIAS = 0.5
"""Squared bias in units of the variance of the scatter: set on normal mixtures in two dimensions, where halving the
neighbourhoods shows it, and checked on the other sets of the benchmark."""
BATCH = 8
"""Samples worked on together."""


def bootstrap_errors(
    landscape: Landscape,
    graph: Graph,
    links: Graph,
    system: BMTISystem,
    prior: Landscape,
    shifts: MeanShifts,
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
    over the component, is added. A neighbourhood is as large as the test for one density lets it be, so its bias is of
    the order of its scatter: half the variance of the scatter counts as a systematic error, or half the sharpening of
    the gradients where that is more.

    Parameters
    ----------
    landscape, prior : Landscape
        Neighbourhoods, and the k* estimate.
    graph, links : Graph
        Neighbourhoods and edges.
    system : BMTISystem
    shifts : MeanShifts
        As they are before any sharpening.
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
    points, counts = landscape.support.points, landscape.counts
    n = len(points)
    multipliers = np.random.default_rng(seed).normal(size=(n, samples))
    if counts is not None:
        multipliers *= np.sqrt(counts)[:, None]
    kind = _Numpy if native.library() is None else _Compiled
    spread = kind(points, graph, links, system.weights, landscape.period)
    scaled = shifts if factor is None else shifts.scaled(factor)
    right = np.zeros((n, samples + 1))
    right[:, :-1] = spread.samples(scaled, multipliers)
    right[:, -1:] = spread.flows((scaled.gradient - shifts.gradient)[:, :, None])
    right *= system.alpha
    scatter, _ = solve(system, np.zeros_like(right), right=right, tolerance=SOLVER_TOLERANCE, precondition=precondition)
    statistical = scatter[:, :-1].var(axis=1, ddof=1)
    variance = statistical + np.maximum(TOLERATED_BIAS * statistical, (0.5 * scatter[:, -1]) ** 2)
    if system.alpha == 1.0:
        sizes = np.bincount(system.component, counts)
        variance = variance + (1 / sizes)[system.component]
    else:
        variance = variance + ((1 - system.alpha) / system.matrix.diagonal() / prior.error) ** 2
    return np.sqrt(variance)


class _Compiled:
    """How random multipliers of the points change the right-hand side, in compiled loops."""

    def __init__(self, points: NDArray, graph: Graph, links: Graph, weights: NDArray, period: NDArray | None) -> None:
        self.points, self.graph, self.links, self.weights, self.period = points, graph, links, weights, period
        self.space = space_arguments(points, 0.0, period, None)

    def samples(self, shifts: MeanShifts, multipliers: NDArray) -> NDArray:
        """Right-hand sides of every sample, shape (n_points, n_samples)."""

        def batch(first: int) -> NDArray:
            xi = np.ascontiguousarray(multipliers[:, first : first + BATCH])
            return self.flows(self.changes(shifts, xi))

        with ThreadPoolExecutor(threads()) as pool:
            return np.hstack(list(pool.map(batch, range(0, multipliers.shape[1], BATCH))))

    def changes(self, shifts: MeanShifts, multipliers: NDArray) -> NDArray:
        """Changes of the gradients, shape (n_points, n_features, n_columns)."""
        change = np.empty((*self.points.shape, multipliers.shape[1]))
        native.run(
            "random_shifts",
            self.space,
            self.graph.arguments(),
            shifts.gradient,
            shifts.scale,
            shifts.total,
            multipliers,
            multipliers.shape[1],
            change,
        )
        return change

    def flows(self, change: NDArray) -> NDArray:
        """Right-hand sides that changes of the gradients make, shape (n_points, n_columns)."""
        right = np.zeros((len(change), change.shape[2]))
        native.run(
            "link_flows",
            self.space,
            self.links.arguments(),
            self.weights,
            np.ascontiguousarray(change),
            change.shape[2],
            right,
        )
        return right


class _Numpy(_Compiled):
    """The same in numpy."""

    def changes(self, shifts: MeanShifts, multipliers: NDArray) -> NDArray:
        """Changes of the gradients, shape (n_points, n_features, n_columns)."""
        change = np.empty((*self.points.shape, multipliers.shape[1]))
        graph = self.graph

        def work(first: int, last: int) -> None:
            vectors = edge_vectors(self.points, graph, first, last, self.period)
            weight = multipliers[graph.target[graph.start[first] : graph.start[last]]]
            offsets = graph.start[first:last] - graph.start[first]
            shift = np.add.reduceat(vectors[:, :, None] * weight[:, None, :], offsets, axis=0)
            shift *= shifts.scale[first:last, None, None]
            shift -= np.add.reduceat(weight, offsets)[:, None, :] * shifts.gradient[first:last, :, None]
            change[first:last] = shift / shifts.total[first:last, None, None]

        row_blocks(graph.start, 2 * self.points.shape[1] * multipliers.shape[1], work)
        return change

    def flows(self, change: NDArray) -> NDArray:
        """Right-hand sides that changes of the gradients make, shape (n_points, n_columns)."""
        links, n = self.links, len(self.points)
        flow = np.empty((len(links.target), change.shape[2]))

        def work(first: int, last: int) -> None:
            block = slice(links.start[first], links.start[last])
            vectors = edge_vectors(self.points, links, first, last, self.period)
            both = change.take(links.target[block], axis=0)
            both += np.repeat(change[first:last], np.diff(links.start[first : last + 1]), axis=0)
            flow[block] = 0.5 * self.weights[block, None] * np.einsum("edb,ed->eb", both, vectors)

        row_blocks(links.start, 3 * self.points.shape[1] * change.shape[2], work)
        right = -np.add.reduceat(flow, links.start[:-1], axis=0)
        for column in range(change.shape[2]):
            right[:, column] += np.bincount(links.target, flow[:, column], minlength=n)
        return right
