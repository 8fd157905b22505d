"""The fitted density of a set of points, and how it is found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster.bmti import assemble, edge_weights, preconditioner, solve
from asenequip.cluster.density import knn_log_density, pak_log_density
from asenequip.cluster.edges import edge_differences
from asenequip.cluster.gradients import mean_shifts
from asenequip.cluster.graph import neighbour_graph, thin_graph
from asenequip.cluster.neighbourhoods import Neighbourhoods, adaptive_neighbourhoods, k_star
from asenequip.cluster.neighbours import Method, Neighbours, NeighbourSearch, minimum_image, spatial_order
from asenequip.cluster.sharpening import sharpening
from asenequip.cluster.support import Support, distinct_points

__all__ = [
    "FEWEST",
    "Landscape",
    "bmti_landscape",
    "knn_landscape",
    "new_points",
    "pak_landscape",
    "predict_log_density",
    "survey",
]

FEWEST = 8
"""With fewer distinct points than this there is no density to estimate: each is a state of its own."""


@dataclass(frozen=True)
class Landscape:
    """A set of distinct points with neighbourhoods, and the log density at each.

    Attributes
    ----------
    support : Support
        Distinct points, near in order where they are near in space.
    period : ndarray of float64, shape (n_features,), or None
    neighbourhoods : Neighbourhoods or None
        None where there are fewer than 8 distinct points.
    significance : float
        Significance of the test that set k*.
    log_density, error : ndarray of float64, shape (n_distinct,)
    gradient : ndarray of float64, shape (n_distinct, n_features), or None
        Gradient of the log density, where the estimate has one.
    resolution : float
        Points closer than this are one.
    """

    support: Support
    period: NDArray | None
    neighbourhoods: Neighbourhoods | None
    significance: float
    log_density: NDArray[np.float64]
    error: NDArray[np.float64]
    gradient: NDArray[np.float64] | None = None
    resolution: float = 0.0

    @property
    def counts(self) -> NDArray | None:
        """Points each distinct one stands for, None where all are 1."""
        return None if self.support.is_distinct else self.support.counts

    @cached_property
    def search(self) -> NeighbourSearch:
        """The points, prepared for the neighbours of new ones."""
        return NeighbourSearch(self.support.points, period=self.period)

    def __getstate__(self) -> dict[str, Any]:
        """Give what a copy needs: not the prepared search."""
        return {name: value for name, value in vars(self).items() if name != "search"}

    def hood(self) -> Neighbourhoods:
        """Give the neighbourhoods of a landscape that has them."""
        if self.neighbourhoods is None:
            raise ValueError(
                f"The set has {len(self.support.points)} distinct points, too few for neighbourhoods.\n"
                f"Give at least {FEWEST} distinct points."
            )
        return self.neighbourhoods


def survey(
    points: NDArray,
    *,
    dimension: float | None = None,
    max_neighbours: int | None = None,
    significance: float = 1e-6,
    period: NDArray | None = None,
    resolution: float = 0.0,
    least: int = 0,
    method: Method = "auto",
    device: str = "cpu",
) -> Landscape:
    """Merge identical points, put them in an order near in space, find neighbours and k*.

    Parameters
    ----------
    points : ndarray of float64, shape (n_points, n_features)
    dimension, max_neighbours, significance, period, least, method, device
        As for `adaptive_neighbourhoods`.
    resolution : float
        As for `distinct_points`.

    Returns
    -------
    Landscape
        With the density of the discrete distribution, ln(count / N), until one is estimated.
    """
    support = distinct_points(points, resolution, period)
    order = spatial_order(support.points)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    support = Support(support.points[order], support.counts[order], place[support.inverse], support.first[order])
    hood = None
    if len(order) >= FEWEST:
        hood = adaptive_neighbourhoods(
            support.points,
            dimension=dimension,
            max_neighbours=max_neighbours,
            significance=significance,
            period=period,
            least=least,
            method=method,
            device=device,
        )
    value = np.log(support.counts / support.n_points)
    return Landscape(support, period, hood, significance, value, 1 / np.sqrt(support.counts), resolution=resolution)


def _ball_counts(landscape: Landscape, k: NDArray) -> NDArray:
    """Points other than the centre within the first k distinct neighbours, shape (n_distinct,)."""
    if landscape.counts is None:
        return k.astype(np.float64)
    lists = landscape.hood().neighbours
    inside = np.add.reduceat(landscape.counts[lists.gather(lists.indices, 1, k)], np.cumsum(k) - k)
    return inside + landscape.counts - 1


def knn_landscape(landscape: Landscape, k: NDArray | None = None) -> Landscape:
    """Estimate the log density from `k` neighbours of each point, k* unless given."""
    if landscape.neighbourhoods is None:
        return landscape
    hood = landscape.neighbourhoods
    k = hood.k_star if k is None else k
    radii = hood.neighbours.distance(k)
    value, error = knn_log_density(radii, _ball_counts(landscape, k), hood.dimension, landscape.support.n_points)
    return replace(landscape, log_density=value, error=error)


def pak_landscape(landscape: Landscape) -> Landscape:
    """Estimate the log density by PAk with k*."""
    if landscape.neighbourhoods is None:
        return landscape
    hood = landscape.neighbourhoods
    value, error = pak_log_density(
        hood.neighbours, hood.k_star, hood.dimension, landscape.support.n_points, landscape.counts
    )
    return replace(landscape, log_density=value, error=error)


def bmti_landscape(
    landscape: Landscape,
    *,
    alpha: float = 1.0,
    weights: str = "uncorrelated",
    sharpen: bool = True,
    max_edges: int | None = 40,
    samples: int = 0,
    tolerance: float = 1e-10,
    seed: int = 0,
) -> tuple[Landscape, int]:
    """Estimate the log density by BMTI.

    Parameters
    ----------
    landscape : Landscape
        What `survey` gives.
    alpha, weights
        As for `assemble` and `edge_weights`; the prior is the k*-nearest-neighbour estimate.
    sharpen : bool
        Whether gradients are corrected for the width of the neighbourhoods.
    max_edges : int or None
        Most edges of each point.
    samples : int
        Samples of the multiplier bootstrap the errors are taken from; 0 keeps those of the k* estimate.
    tolerance : float
        Tolerance of the solver.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    landscape : Landscape
    iterations : int
        Iterations of the solver.
    """
    prior = knn_landscape(landscape)
    if landscape.neighbourhoods is None:
        return prior, 0
    hood, points, counts = landscape.neighbourhoods, landscape.support.points, landscape.counts
    graph = neighbour_graph(hood.neighbours, hood.k_star)
    links = thin_graph(graph, max_edges)
    options: dict[str, Any] = {"period": landscape.period, "counts": counts}
    plain = mean_shifts(points, graph, hood.dimension, **options)
    factor = sharpening(plain, graph, hood.neighbours, hood.dimension) if sharpen else None
    shifts = plain if factor is None else plain.scaled(factor)
    edges = edge_differences(points, graph, shifts, links=links, **options)
    system = assemble(
        links,
        edges,
        edge_weights(links, edges, weights),
        alpha=alpha,
        prior=prior.log_density,
        prior_error=prior.error,
    )
    apply = preconditioner(system)
    value, iterations = solve(system, prior.log_density, tolerance=tolerance, precondition=apply)
    error = prior.error
    if samples:
        from asenequip.cluster.bootstrap import bootstrap_errors

        error = bootstrap_errors(
            landscape, graph, links, system, prior, plain, factor, samples=samples, seed=seed, precondition=apply
        )
    return replace(landscape, log_density=value, error=error, gradient=shifts.gradient), iterations


def new_points(landscape: Landscape, queries: NDArray) -> tuple[Neighbours, NDArray, NDArray]:
    """Find the neighbourhoods of new points among the distinct points of a fit.

    Parameters
    ----------
    landscape : Landscape
    queries : ndarray of float64, shape (n_queries, n_features)

    Returns
    -------
    neighbours : Neighbours
        Column 0 stands for the new point itself and must not be used as an index.
    k : ndarray of int64, shape (n_queries,)
        k* of each new point.
    twin : ndarray of int64, shape (n_queries,)
        The point of the fit that a new point is identical to, -1 if none; it is not among the neighbours.
    """
    hood = landscape.hood()
    lists = hood.neighbours
    width = min(int(hood.k_star.max()) + 2, len(landscape.support.points) - 1)
    found, index = landscape.search.cross(queries, width)
    # a point of the fit is its own first neighbour: looked at as the others see it, it is not
    same = found[:, 0] <= np.maximum(landscape.resolution, 1e-12 * found[:, -1])
    rows, twin = np.flatnonzero(same), index[same, 0]
    distances = np.hstack([np.zeros((len(queries), 1)), found])
    indices = np.hstack([index[:, :1], index])
    distances[rows, :-1], indices[rows, :-1] = found[rows], index[rows]
    last = lists.place(twin, np.minimum(width, lists.size[twin] - 1))
    distances[rows, -1] = np.maximum(lists.distances[last], found[rows, -1])
    indices[rows, -1] = lists.indices[last]
    k = k_star(distances, indices, hood.dimension, landscape.significance, lists)
    return Neighbours(distances, indices), k, np.where(same, index[:, 0], -1)


def predict_log_density(
    landscape: Landscape, queries: NDArray, kind: str, found: tuple[Neighbours, NDArray, NDArray] | None = None
) -> tuple[NDArray, NDArray]:
    """Estimate the log density and its error at new points, as `kind` of estimate ("knn", "pak", "bmti") does.

    For BMTI each neighbour j predicts ln rho_j + (g + g_j) . (x - x_j) / 2 with the gradient g interpolated from the
    neighbours; predictions are averaged with weights 1 / r_j^2, so that at a point of the fit its value is returned.
    """
    hood = landscape.hood()
    neighbours, k, twin = found or new_points(landscape, queries)
    rows = np.arange(len(queries))
    if kind == "knn":
        radii = neighbours.distances[rows, k]
        value, error = knn_log_density(radii, k, hood.dimension, landscape.support.n_points)
    elif kind == "pak":
        lists = neighbours.lists()
        value, error = pak_log_density(lists, k, hood.dimension, landscape.support.n_points)
    else:
        value, error = _integrate(landscape, queries, neighbours, k)
    known = twin >= 0
    value[known], error[known] = landscape.log_density[twin[known]], landscape.error[twin[known]]
    return value, error


def _integrate(landscape: Landscape, queries: NDArray, neighbours: Neighbours, k: NDArray) -> tuple[NDArray, NDArray]:
    """Average what the neighbours of each new point predict for it along their gradients."""
    value, error = np.empty(len(queries)), np.empty(len(queries))
    points, gradient = landscape.support.points, landscape.gradient
    chunk = max(1, 4_000_000 // (int(k.max()) * points.shape[1]))
    for start in range(0, len(queries), chunk):
        block = slice(start, start + chunk)
        width = int(k[block].max()) + 1
        inside = np.arange(1, width) < np.maximum(k[block, None], 2)
        index = np.where(inside, neighbours.indices[block, 1:width], 0)
        weight = np.where(inside, (neighbours.distances[block, 1:2] / neighbours.distances[block, 1:width]) ** 2, 0.0)
        weight /= weight.sum(axis=1, keepdims=True)
        predicted = landscape.log_density[index]
        if gradient is not None:
            vectors = minimum_image(queries[block, None, :] - points[index], landscape.period)
            slope = gradient[index]
            own = np.einsum("nk,nkd->nd", weight, slope)
            predicted = predicted + 0.5 * np.einsum("nkd,nkd->nk", slope + own[:, None, :], vectors)
        value[block] = (weight * predicted).sum(axis=1)
        error[block] = (weight * landscape.error[index]).sum(axis=1)
    return value, error
