"""Gradients of the log density and the differences they predict along the edges of the neighbour graph."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster.neighbours import minimum_image, threads

__all__ = [
    "Edges",
    "Graph",
    "common_neighbours",
    "edge_differences",
    "edge_vectors",
    "gradients",
    "neighbour_graph",
    "row_blocks",
    "thin_graph",
]

COVARIANCE_FLOOR = 1e-10
"""Added to the variance of every gradient component, as in the reference."""
MOMENT_FEATURES = 24
"""Up to this many coordinates second moments are kept packed; above, neighbours' Gram products replace them."""
BLOCK_NUMBERS = 1_000_000
"""Numbers per work array of one block."""
CELL = 64
"""Points whose neighbourhoods are intersected together."""


@dataclass(frozen=True)
class Graph:
    """The directed neighbour graph: an edge from each point to its first k* - 1 neighbours.

    Attributes
    ----------
    start : ndarray of int64, shape (n_points + 1,)
        Edges of point i are start[i] .. start[i + 1] - 1.
    target : ndarray of int32, shape (n_edges,)
        The neighbour each edge points to, nearest first.
    k_star : ndarray of int64, shape (n_points,)
        Size of each neighbourhood, the point itself included.
    """

    start: NDArray[np.int64]
    target: NDArray[np.int32]
    k_star: NDArray[np.int64]

    @property
    def source(self) -> NDArray[np.int32]:
        """The point each edge starts from, shape (n_edges,)."""
        return np.repeat(np.arange(len(self.k_star), dtype=np.int32), np.diff(self.start))


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


def neighbour_graph(indices: NDArray, k_star: NDArray) -> Graph:
    """Build the graph of each point's first k* - 1 neighbours.

    Parameters
    ----------
    indices : ndarray of int32, shape (n_points, k + 1)
        Neighbours, column 0 the point itself.
    k_star : ndarray of int, shape (n_points,)
        Sizes of the neighbourhoods, at most k.

    Returns
    -------
    Graph
    """
    start = np.concatenate([[0], np.cumsum(k_star - 1)]).astype(np.int64)
    width = int(k_star.max())
    inside = np.arange(1, width) < k_star[:, None]
    return Graph(start, indices[:, 1:width][inside].astype(np.int32), k_star.astype(np.int64))


def thin_graph(graph: Graph, most: int | None) -> Graph:
    """Keep at most `most` edges of every point, spread evenly over the ranks, the last one included.

    Parameters
    ----------
    graph : Graph
    most : int or None
        None keeps every edge.

    Returns
    -------
    Graph
        With the same `k_star`, hence the same neighbourhoods.
    """
    counts = np.diff(graph.start)
    if most is None or counts.max(initial=0) <= most:
        return graph
    kept = np.minimum(counts, most)
    start = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    place = np.arange(start[-1]) - np.repeat(start[:-1], kept)
    # the p-th of q kept edges of c has rank ceil((p + 1) c / q) - 1
    rank = -(-(place + 1) * np.repeat(counts, kept) // np.repeat(kept, kept)) - 1
    return Graph(start, graph.target[np.repeat(graph.start[:-1], kept) + rank], graph.k_star)


def row_blocks(start: NDArray, per_edge: int, function: Callable[[int, int], None]) -> None:
    """Call `function(first, last)` over blocks of rows, in threads.

    Parameters
    ----------
    start : ndarray of int64, shape (n_rows + 1,)
        Row pointers.
    per_edge : int
        Numbers of working memory per edge, which sets the size of a block.
    function : callable
        Works on rows first .. last - 1 and writes only what belongs to them.
    """
    target = max(1, BLOCK_NUMBERS // max(1, per_edge))
    marks = np.arange(0, start[-1] + target, target)
    last = len(start) - 1
    cuts = np.unique(np.concatenate([[0], np.minimum(np.searchsorted(start, marks), last), [last]]))
    with ThreadPoolExecutor(threads()) as pool:
        list(pool.map(lambda pair: function(int(pair[0]), int(pair[1])), pairwise(cuts)))


def edge_vectors(points: NDArray, graph: Graph, first: int, last: int, period: NDArray | None) -> NDArray:
    """Vectors from source to target of the edges of rows first .. last - 1, shape (n_edges, n_features)."""
    low, high = graph.start[first], graph.start[last]
    counts = np.diff(graph.start[first : last + 1])
    vectors = points.take(graph.target[low:high], axis=0)
    vectors -= np.repeat(points[first:last], counts, axis=0)
    return minimum_image(vectors, period)


def gradients(
    points: NDArray,
    graph: Graph,
    dimension: float,
    *,
    period: NDArray | None = None,
    counts: NDArray | None = None,
    covariance: bool = True,
) -> tuple[NDArray, NDArray, NDArray, NDArray | None]:
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
    covariance : bool
        Whether to return the packed covariance.

    Returns
    -------
    gradient : ndarray of float64, shape (n_points, n_features)
        Per unit of the coordinates.
    scale : ndarray of float64, shape (n_points,)
        c, in inverse squared units of the coordinates.
    total : ndarray of float64, shape (n_points,)
        m, the points averaged over.
    covariance : ndarray of float64, shape (n_points, n_features (n_features + 1) / 2), or None
        Upper triangles, off-diagonal entries doubled so that v^T C v is a scalar product with the packed v v^T.
    """
    n, features = points.shape
    upper = np.triu_indices(features)
    doubled = np.where(upper[0] == upper[1], 1.0, 2.0)
    gradient, scale, total = np.empty((n, features)), np.empty(n), np.empty(n)
    packed = np.empty((n, len(upper[0]))) if covariance else None

    def work(first: int, last: int) -> None:
        vectors = edge_vectors(points, graph, first, last, period)
        offsets = graph.start[first:last] - graph.start[first]
        ends = graph.start[first + 1 : last + 1] - 1 - graph.start[first]
        radius = np.einsum("nd,nd->n", vectors[ends], vectors[ends])
        c = (dimension + 2) / radius
        if counts is None:
            m, weighted = graph.k_star[first:last] - 1.0, vectors
        else:
            weight = counts[graph.target[graph.start[first] : graph.start[last]]]
            m = np.add.reduceat(weight, offsets) + counts[first:last] - 1.0
            weighted = vectors * weight[:, None]
        g = np.add.reduceat(weighted, offsets, axis=0) * (c / m)[:, None]
        gradient[first:last], scale[first:last], total[first:last] = g, c, m
        if packed is not None:
            products = weighted[:, upper[0]] * vectors[:, upper[1]]
            second = np.add.reduceat(products, offsets, axis=0) * (c**2 / m)[:, None]
            second -= g[:, upper[0]] * g[:, upper[1]]
            second *= ((m + 1) / m**2)[:, None]
            second[:, upper[0] == upper[1]] += COVARIANCE_FLOOR
            packed[first:last] = second * doubled

    row_blocks(graph.start, features + (len(doubled) if covariance else 0), work)
    return gradient, scale, total, packed


def edge_differences(
    points: NDArray,
    graph: Graph,
    dimension: float,
    *,
    period: NDArray | None = None,
    counts: NDArray | None = None,
    links: Graph | None = None,
    sharpening: NDArray | None = None,
    gram: bool | None = None,
) -> tuple[Edges, NDArray]:
    """Predict the difference of the log density along every edge, with its variance.

    For an edge v = x_j - x_i: F = (g_i + g_j) . v / 2 and variance (e_i^2 + e_j^2 + 2 p e_i e_j) / 4, with
    e^2 = v^T C v at either end and p the Jaccard index of the neighbourhoods with the sign of (g_i . v)(g_j . v)
    (Carli et al. 2024, eq. 13-16). No n_features x n_features matrix is formed per edge.

    Parameters
    ----------
    points, graph, dimension, period, counts
        As for `gradients`.
    links : Graph, optional
        The edges to predict, where they are fewer than those of `graph`, as `thin_graph` gives them.
    sharpening : ndarray of float64, shape (n_points,), optional
        Factors on the gradients, as `sharpening` gives them.
    gram : bool, optional
        Whether v^T C v is taken from products of neighbour vectors rather than from packed covariances; above 24
        coordinates unless given. The two are identical up to rounding.

    Returns
    -------
    edges : Edges
    gradient : ndarray of float64, shape (n_points, n_features)
    """
    features = points.shape[1]
    if gram is None:
        gram = features > MOMENT_FEATURES
    gradient, scale, total, packed = gradients(
        points, graph, dimension, period=period, counts=counts, covariance=not gram
    )
    if sharpening is not None:
        gradient *= sharpening[:, None]
        scale *= sharpening
        if packed is not None:
            packed *= sharpening[:, None] ** 2
    links = graph if links is None else links
    n_edges = len(links.target)
    slopes = np.empty((2, n_edges))
    variances = np.empty((2, n_edges))
    upper = np.triu_indices(features)

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

    row_blocks(links.start, features if gram else 3 * len(upper[0]), project)
    if gram:
        _gram_variances(points, graph, links, gradient, scale, total, variances, period, counts)
    deviations = np.sqrt(np.maximum(variances, 0.0))
    overlap = _jaccard(graph, links)
    signed = np.copysign(deviations, slopes) * (slopes != 0)
    variance = 0.25 * (variances[0] + variances[1] + 2 * overlap * signed[0] * signed[1])
    return Edges(0.5 * (slopes[0] + slopes[1]), variance, signed[0], signed[1], overlap), gradient


def _gram_variances(
    points: NDArray,
    graph: Graph,
    links: Graph,
    gradient: NDArray,
    scale: NDArray,
    total: NDArray,
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
            factor, m = scale[i] ** 2 / total[i], total[i]
            value = (factor * (squares @ weight) - (both @ gradient[i]) ** 2) * ((m + 1) / m**2)
            value += COVARIANCE_FLOOR * np.einsum("ed,ed->e", both, both)
            variances[0, out] = value[: len(away)]
            variances[1, coming] = value[len(away) :]

    row_blocks(graph.start, points.shape[1], work)


def common_neighbours(graph: Graph, links: Graph | None = None) -> NDArray[np.int32]:
    """Count, for every edge, the points that the neighbourhoods of its two ends share, the ends included.

    The neighbourhoods of a cell of 64 points are columns of a matrix of 0 and 1, which the graph's own sparse matrix
    multiplies: one pass over the rows that the cell's edges lead to. Points that are near in space should be near in
    order.

    Parameters
    ----------
    graph : Graph
        The neighbourhoods.
    links : Graph, optional
        The edges, those of `graph` unless given.

    Returns
    -------
    ndarray of int32, shape (n_edges,)
    """
    from scipy.sparse import csr_matrix

    links = graph if links is None else links

    n = len(graph.k_star)
    full = np.concatenate([[0], np.cumsum(graph.k_star)])
    member = np.empty(full[-1], np.int32)
    own = np.zeros(full[-1], bool)
    own[full[:-1]] = True
    member[own] = np.arange(n)
    member[~own] = graph.target
    kind = np.int16 if graph.k_star.max() < 2**15 else np.int32
    matrix = csr_matrix((np.ones(len(member), kind), member, full), shape=(n, n))
    result = np.empty(len(links.target), np.int32)

    def work(first: int, last: int) -> None:
        marks = np.zeros((n, CELL), kind)
        place = np.empty(n, np.int32)
        for low in range(first, last, CELL):
            high = min(low + CELL, last)
            inside = member[full[low] : full[high]]
            column = np.repeat(np.arange(high - low), graph.k_star[low:high])
            marks[inside, column] = 1
            edges = slice(links.start[low], links.start[high])
            target = links.target[edges]
            rows = np.unique(target)
            place[rows] = np.arange(len(rows))
            product = matrix[rows] @ marks
            outgoing = np.diff(links.start[low : high + 1])
            result[edges] = product[place[target], np.repeat(np.arange(high - low), outgoing)]
            marks[inside, column] = 0

    workers = threads()
    size = -(-n // (workers * CELL * 4)) * CELL
    bounds = [(a, min(a + size, n)) for a in range(0, n, size)]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda pair: work(*pair), bounds))
    return result


def _jaccard(graph: Graph, links: Graph) -> NDArray:
    """Jaccard index of the neighbourhoods at the ends of every edge, shape (n_edges,)."""
    common, sizes = common_neighbours(graph, links), graph.k_star
    return common / (np.repeat(sizes, np.diff(links.start)) + sizes[links.target] - common)
