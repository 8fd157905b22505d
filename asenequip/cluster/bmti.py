"""Binless multidimensional thermodynamic integration: the log density that fits all predicted differences."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster import native
from asenequip.cluster._checks import check
from asenequip.cluster.edges import Edges
from asenequip.cluster.graph import Graph
from asenequip.cluster.multigrid import conjugate_gradients, multigrid

__all__ = ["BMTISystem", "assemble", "component_means", "edge_weights", "preconditioner", "solve"]

WEIGHTS = ("uncorrelated", "identity", "lsdi")
LEAST_VARIANCE = 1e-8
"""Least variance of an edge: points that nearly coincide are as good as joined, and the system stays solvable."""
ROUNDING = 1e-6
"""Relative error below which the solver may stop for rounding without a warning."""


@dataclass(frozen=True)
class BMTISystem:
    """The linear system alpha L + (1 - alpha) diag(1 / sigma^2).

    Attributes
    ----------
    matrix : scipy.sparse.csr_matrix, shape (n_points, n_points)
        Symmetric and positive (semi)definite.
    right : ndarray of float64, shape (n_points,)
        Right-hand side.
    component : ndarray of int32, shape (n_points,)
        Connected component of each point in the neighbour graph.
    weights : ndarray of float64, shape (n_edges,)
        Weight of each edge, in the order of the graph.
    alpha : float
        Share of the edges in the likelihood.
    """

    matrix: Any
    right: NDArray[np.float64]
    component: NDArray[np.int32]
    weights: NDArray[np.float64]
    alpha: float


def edge_weights(graph: Graph, edges: Edges, kind: str = "uncorrelated") -> NDArray:
    """Give the weight of each edge in the likelihood.

    Parameters
    ----------
    graph : Graph
    edges : Edges
    kind : {"uncorrelated", "identity", "lsdi"}
        1 / (variance sqrt(k_i k_j)), 1, or the diagonal that brings the edges' correlation matrix closest to the
        identity (Carli et al. 2024, eq. 22-24).

    Returns
    -------
    ndarray of float64, shape (n_edges,)
    """
    check(kind in WEIGHTS, "weights", "BMTI", f"one of {WEIGHTS}", kind, "The usual choice is 'uncorrelated'.")
    if kind == "identity":
        return np.ones(len(graph.target))
    if kind == "lsdi":
        return _lsdi(graph, edges)
    root = np.sqrt(graph.k_star.astype(np.float64))
    redundancy = np.repeat(root, np.diff(graph.start)) * root[graph.target]
    return 1.0 / (np.maximum(edges.variance, LEAST_VARIANCE) * redundancy)


def _lsdi(graph: Graph, edges: Edges) -> NDArray:
    """Diagonal least-squares inverse of the correlations cov(F_ij, F_lm) = s P s^T / 4."""
    from scipy.sparse import csr_matrix, eye

    n, n_edges = len(graph.k_star), len(graph.target)
    rows = np.repeat(np.arange(n_edges), 2)
    columns = np.stack([graph.source, graph.target], axis=1).ravel()
    values = np.stack([edges.at_source, edges.at_target], axis=1).ravel()
    signed = csr_matrix((values, (rows, columns)), shape=(n_edges, n))
    overlap = csr_matrix((edges.overlap, graph.target, graph.start), shape=(n, n))
    overlap = (overlap.maximum(overlap.T) + eye(n)).tocsr()
    square = (signed.T @ signed).tocsr()
    result = np.empty(n_edges)
    for start in range(0, n_edges, 20_000):
        block = slice(start, min(n_edges, start + 20_000))
        spread = signed[block] @ overlap
        result[block] = np.asarray((spread @ square).multiply(spread).sum(axis=1)).ravel() / 16
    return edges.variance / np.maximum(result, np.finfo(np.float64).tiny)


def assemble(
    graph: Graph,
    edges: Edges,
    weights: NDArray,
    *,
    alpha: float = 1.0,
    prior: NDArray | None = None,
    prior_error: NDArray | None = None,
) -> BMTISystem:
    """Assemble the normal equations of the weighted least-squares problem.

    With W = w + w^T: L = diag(W 1) - W and b_j = sum_i w_ij F_ij - sum_i w_ji F_ji (Carli et al. 2024, eq. 20).

    Parameters
    ----------
    graph, edges : Graph, Edges
    weights : ndarray of float64, shape (n_edges,)
    alpha : float
        1 uses the edges alone; below 1, 1 - alpha is the share of the prior estimate.
    prior, prior_error : ndarray of float64, shape (n_points,), optional
        The prior log density and its error; needed where alpha < 1.

    Returns
    -------
    BMTISystem
    """
    from scipy.sparse.csgraph import connected_components

    matrix, right = _normal_equations(graph, weights, edges.difference)
    component = connected_components(matrix, directed=False)[1]
    if alpha < 1:
        if prior is None or prior_error is None:
            raise ValueError("assemble needs a prior where alpha is below 1.\nGive `prior` and `prior_error`.")
        precision = (1 - alpha) / prior_error**2
        matrix.data *= alpha
        matrix.setdiag(matrix.diagonal() + precision)
        right = alpha * right + precision * prior
    return BMTISystem(matrix, right, component, weights, alpha)


def _normal_equations(graph: Graph, weights: NDArray, difference: NDArray) -> tuple[Any, NDArray]:
    """Give the Laplacian of the weights, a csr_matrix, and the right-hand side."""
    from scipy.sparse import csr_matrix, diags

    n, n_edges = len(graph.k_star), len(graph.target)
    if native.library() is not None:
        start, column = np.empty(n + 1, np.int64), np.empty(n + 2 * n_edges, np.int32)
        value, right = np.empty(len(column)), np.empty(n)
        used = native.run("normal_equations", graph.arguments(), n, weights, difference, start, column, value, right)
        place = start.astype(np.int32) if used < 2**31 else start
        return csr_matrix((value[:used], column[:used], place), shape=(n, n)), right
    directed = csr_matrix((weights, graph.target, graph.start), shape=(n, n))
    turned = directed.T.tocsr()  # a counting sort: columns in order
    symmetric = turned + turned.T.tocsr()
    flow = csr_matrix((weights * difference, graph.target, graph.start), shape=(n, n))
    ones = np.ones(n)
    return (diags(symmetric @ ones) - symmetric).tocsr(), flow.T @ ones - flow @ ones


def solve(
    system: BMTISystem,
    start: NDArray,
    *,
    right: NDArray | None = None,
    tolerance: float = 1e-10,
    max_iterations: int = 1000,
    precondition: Callable[[NDArray], NDArray] | None = None,
) -> tuple[NDArray, int]:
    """Solve the system by conjugate gradients with a multigrid preconditioner.

    Parameters
    ----------
    system : BMTISystem
    start : ndarray of float64, shape (n_points,) or (n_points, n_columns)
        First guess. Where alpha = 1 its mean over each component is the mean of the solution.
    right : ndarray, like `start`, optional
        Right-hand side(s) other than the system's own.
    tolerance : float
        Relative error, in the energy norm, at which to stop.
    max_iterations : int
        Iterations after which to stop with a warning.
    precondition : callable, optional
        What `preconditioner` gives; built here unless given.

    Returns
    -------
    solution : ndarray of float64, like `start`
    iterations : int
    """
    apply = precondition or preconditioner(system)
    b = system.right if right is None else right
    x, iterations, reached = conjugate_gradients(system.matrix, b, start, apply, tolerance, max_iterations)
    if reached > max(tolerance, ROUNDING):
        warnings.warn(
            f"BMTI stopped after {iterations} iterations at a relative error of {reached:.1e}, above its tolerance "
            f"of {tolerance:.1e}. Loosen the tolerance or allow more iterations.",
            RuntimeWarning,
            stacklevel=2,
        )
    if system.alpha == 1.0:
        shift = component_means(system.component, start) - component_means(system.component, x)
        x = x + shift[system.component]
    return x, iterations


def preconditioner(system: BMTISystem) -> Callable[[NDArray], NDArray]:
    """Build the multigrid preconditioner of a system, for one or several right-hand sides."""
    return multigrid(system.matrix, system.component if system.alpha == 1.0 else None)


def component_means(component: NDArray, values: NDArray) -> NDArray:
    """Give the mean of `values` over each component, shape (n_components,) or (n_components, n_columns)."""
    sizes = np.bincount(component)
    if values.ndim == 1:
        return np.bincount(component, values) / sizes
    sums = np.zeros((len(sizes), values.shape[1]))
    np.add.at(sums, component, values)
    return sums / sizes[:, None]
