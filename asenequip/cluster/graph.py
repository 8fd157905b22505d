"""The graph of neighbourhoods: rows of edges, loops over them, and the points that two neighbourhoods share."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster import native
from asenequip.cluster.lists import NeighbourLists
from asenequip.cluster.neighbours import minimum_image, threads

__all__ = ["Graph", "common_neighbours", "edge_vectors", "neighbour_graph", "row_blocks", "thin_graph"]

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

    def arguments(self) -> native.Arguments:
        """Give the rows as compiled code takes them."""
        return native.Arguments(self.start, self.target)


def neighbour_graph(lists: NeighbourLists, k_star: NDArray) -> Graph:
    """Build the graph of each point's first k* - 1 neighbours.

    Parameters
    ----------
    lists : NeighbourLists
    k_star : ndarray of int, shape (n_points,)
        Sizes of the neighbourhoods, no longer than the lists.

    Returns
    -------
    Graph
    """
    counts = k_star.astype(np.int64) - 1
    start = np.concatenate([[0], np.cumsum(counts)])
    return Graph(start, lists.gather(lists.indices, 1, counts), counts + 1)


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


def common_neighbours(graph: Graph, links: Graph | None = None) -> NDArray[np.int32]:
    """Count, for every edge, the points that the neighbourhoods of its two ends share, the ends included.

    Points that are near in space should be near in order.

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
    links = graph if links is None else links
    if native.library() is not None:
        result = np.empty(len(links.target), np.int32)
        native.run("shared_points", graph.arguments(), links.arguments(), len(graph.k_star), result, threads())
        return result
    return _common_by_products(graph, links)


def _common_by_products(graph: Graph, links: Graph) -> NDArray[np.int32]:
    """Count shared points by sparse products.

    The neighbourhoods of a cell of 64 points are columns of a matrix of 0 and 1, which the graph's own sparse matrix
    multiplies: one pass over the rows that the cell's edges lead to.
    """
    from scipy.sparse import csr_matrix

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
