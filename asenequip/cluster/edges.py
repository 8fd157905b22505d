"""What the gradients predict along the edges of the neighbour graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster import native
from asenequip.cluster.gradients import COVARIANCE_FLOOR, MeanShifts, space_arguments
from asenequip.cluster.graph import Graph, common_neighbours, edge_vectors, row_blocks
from asenequip.cluster.neighbours import minimum_image

__all__ = ["Edges", "edge_differences"]


@dataclass(frozen=True)
class Edges:
    """What the gradients predict along each edge of a graph.

    Attributes
    ----------
    difference : ndarray of float64, shape (n_edges,)
        Predicted ln rho_j - ln rho_i.
    variance : ndarray of float64, shape (n_edges,)
        Its variance.
    at_source, at_target : ndarray of float64, shape (n_edges,)
        Standard deviations of g . v at either end, with the sign of g . v.
    overlap : ndarray of float64, shape (n_edges,)
        Jaccard index of the two neighbourhoods.
    """

    difference: NDArray[np.float64]
    variance: NDArray[np.float64]
    at_source: NDArray[np.float64]
    at_target: NDArray[np.float64]
    overlap: NDArray[np.float64]


def edge_differences(
    points: NDArray,
    graph: Graph,
    shifts: MeanShifts,
    *,
    period: NDArray | None = None,
    counts: NDArray | None = None,
    links: Graph | None = None,
) -> Edges:
    """Predict the difference of the log density along every edge, with its variance.

    For an edge v = x_j - x_i: F = (g_i + g_j) . v / 2 and variance (e_i^2 + e_j^2 + 2 p e_i e_j) / 4, with
    e^2 = v^T C v at either end and p the Jaccard index of the neighbourhoods with the sign of (g_i . v)(g_j . v)
    (Carli et al. 2024, eq. 13-16). No n_features x n_features matrix is formed per edge.

    Parameters
    ----------
    points, graph, period, counts
        As for `mean_shifts`.
    shifts : MeanShifts
        Gradients; where they hold no covariances, v^T C v is taken from products of neighbour vectors. The two are
        identical up to rounding.
    links : Graph, optional
        The edges to predict, where they are fewer than those of `graph`, as `thin_graph` gives them.

    Returns
    -------
    Edges
    """
    links = graph if links is None else links
    common = common_neighbours(graph, links)
    if native.library() is not None:
        n_edges = len(links.target)
        found = Edges(*(np.empty(n_edges) for _ in range(5)))
        native.run(
            "predict_links",
            space_arguments(points, 0.0, period, counts),
            graph.arguments(),
            links.arguments(),
            native.Arguments(shifts.gradient, shifts.scale, shifts.total, shifts.covariance, COVARIANCE_FLOOR),
            graph.k_star,
            common,
            native.Arguments(*vars(found).values()),
        )
        return found
    slopes, variances = _projections(points, links, shifts, period)
    if shifts.covariance is None:
        _gram_variances(points, graph, links, shifts, variances, period, counts)
    deviations = np.sqrt(np.maximum(variances, 0.0))
    sizes = graph.k_star
    overlap = common / (np.repeat(sizes, np.diff(links.start)) + sizes[links.target] - common)
    signed = np.copysign(deviations, slopes) * (slopes != 0)
    variance = 0.25 * (deviations[0] ** 2 + deviations[1] ** 2 + 2 * overlap * signed[0] * signed[1])
    return Edges(0.5 * (slopes[0] + slopes[1]), variance, signed[0], signed[1], overlap)


def _projections(points: NDArray, links: Graph, shifts: MeanShifts, period: NDArray | None) -> tuple[NDArray, NDArray]:
    """Give g . v, and from packed covariances v^T C v, at both ends of every link, shape (2, n_edges)."""
    slopes, variances = np.empty((2, len(links.target))), np.empty((2, len(links.target)))
    upper = np.triu_indices(points.shape[1])
    gradient, packed = shifts.gradient, shifts.covariance

    def project(first: int, last: int) -> None:
        block = slice(links.start[first], links.start[last])
        vectors = edge_vectors(points, links, first, last, period)
        spread = np.diff(links.start[first : last + 1])
        target = links.target[block]
        np.einsum("ed,ed->e", np.repeat(gradient[first:last], spread, axis=0), vectors, out=slopes[0, block])
        np.einsum("ed,ed->e", gradient.take(target, axis=0), vectors, out=slopes[1, block])
        if packed is not None:
            products = vectors[:, upper[0]] * vectors[:, upper[1]]
            source = np.repeat(packed[first:last], spread, axis=0)
            np.einsum("ep,ep->e", source, products, out=variances[0, block])
            np.einsum("ep,ep->e", packed.take(target, axis=0), products, out=variances[1, block])

    row_blocks(links.start, points.shape[1] if packed is None else 3 * len(upper[0]), project)
    return slopes, variances


def _gram_variances(
    points: NDArray,
    graph: Graph,
    links: Graph,
    shifts: MeanShifts,
    variances: NDArray,
    period: NDArray | None,
    counts: NDArray | None,
) -> None:
    """Fill v^T C v at both ends of every edge from products of neighbour vectors, one point at a time."""
    order = np.argsort(links.target, kind="stable")
    source = links.source
    inward = np.concatenate([[0], np.cumsum(np.bincount(links.target, minlength=len(points)))])

    def work(first: int, last: int) -> None:
        for i in range(first, last):
            near = graph.target[graph.start[i] : graph.start[i + 1]]
            out = slice(links.start[i], links.start[i + 1])
            coming = order[inward[i] : inward[i + 1]]
            around = minimum_image(points[near] - points[i], period)
            away = minimum_image(points[links.target[out]] - points[i], period)
            towards = minimum_image(points[i] - points[source[coming]], period)
            both = np.concatenate([away, towards])
            squares = (both @ around.T) ** 2
            weight = np.ones(len(near)) if counts is None else counts[near]
            factor, m = shifts.scale[i] ** 2 / shifts.total[i], shifts.total[i]
            value = (factor * (squares @ weight) - (both @ shifts.gradient[i]) ** 2) * ((m + 1) / m**2)
            value += COVARIANCE_FLOOR * np.einsum("ed,ed->e", both, both)
            variances[0, out] = value[: len(away)]
            variances[1, coming] = value[len(away) :]

    row_blocks(graph.start, points.shape[1], work)
