"""Algebraic multigrid for graph Laplacians: aggregates of strongest links, V-cycles inside conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asenequip.cluster import native

__all__ = ["conjugate_gradients", "multigrid"]

COARSEST = 400
"""Unknowns below which a level is solved by a dense Cholesky factorisation."""
PATIENCE = 60
"""Iterations without progress after which rounding is taken to be reached."""
DAMPING = 0.66
"""Damping of the Jacobi smoother."""


def _strongest_link(matrix: Any) -> NDArray:
    """Give, for each unknown, the neighbour it is coupled to most, relative to that one's diagonal; itself if none."""
    n = matrix.shape[0]
    if _compiled(matrix):
        link = np.empty(n, np.int64)
        native.run("strongest_links", _arguments(matrix), matrix.diagonal(), n, link)
        return link
    rows = np.repeat(np.arange(n), np.diff(matrix.indptr))
    strength = -matrix.data / np.sqrt(matrix.diagonal())[matrix.indices]
    strength[matrix.indices == rows] = -np.inf
    best = np.maximum.reduceat(strength, matrix.indptr[:-1])
    hit = np.flatnonzero(strength == np.repeat(best, np.diff(matrix.indptr)))
    link = np.arange(n)
    link[rows[hit]] = matrix.indices[hit]
    alone = best <= 0
    link[alone] = np.flatnonzero(alone)
    return link


def _compiled(matrix: Any) -> bool:
    return matrix.indices.dtype == np.int32 and native.library() is not None


def _arguments(matrix: Any) -> native.Arguments:
    return native.Arguments(matrix.indptr, matrix.indices, matrix.data)


def _coarse(matrix: Any, expand: Any, collect: Any) -> Any:
    """Give the matrix between aggregates, collect @ matrix @ expand."""
    from scipy.sparse import csr_matrix

    if not _compiled(matrix):
        return (collect @ (matrix @ expand)).tocsr()
    count = expand.shape[1]
    start, column = np.empty(count + 1, np.int32), np.empty(matrix.nnz, np.int32)
    value = np.empty(matrix.nnz)
    members, begin = collect.indices.astype(np.int64), collect.indptr.astype(np.int64)
    label = expand.indices.astype(np.int32)
    used = native.run("coarse_matrix", _arguments(matrix), label, members, begin, count, start, column, value)
    return csr_matrix((value[:used], column[:used], start), shape=(count, count))


def multigrid(matrix: Any, component: NDArray | None = None) -> Callable[[NDArray], NDArray]:
    """Build a symmetric V-cycle for the Laplacian of a weighted graph, plus any diagonal.

    Each level joins every unknown with its strongest neighbour, so that links stronger than all others (points that
    nearly coincide) vanish at the first level; this keeps the number of iterations small where Jacobi preconditioning
    needs thousands.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix, shape (n, n)
        Symmetric, positive (semi)definite, with off-diagonal entries at most 0.
    component : ndarray of int, shape (n,), optional
        Connected component of each unknown; given where the matrix is singular, one constant per component.

    Returns
    -------
    callable
        Applies the preconditioner to an array (n,) or (n, n_columns).
    """
    from scipy.linalg import cho_factor, cho_solve
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    levels = []
    while matrix.shape[0] > COARSEST:
        n = matrix.shape[0]
        link = csr_matrix((np.ones(n), (np.arange(n), _strongest_link(matrix))), shape=(n, n))
        count, label = connected_components(link, directed=False)
        if count > 0.95 * n:
            break
        expand = csr_matrix((np.ones(n), label, np.arange(n + 1)), shape=(n, count))
        collect = expand.T.tocsr()
        levels.append((matrix, expand, collect, DAMPING / matrix.diagonal()))
        matrix = _coarse(matrix, expand, collect)
        if component is not None:
            coarse = np.empty(count, component.dtype)
            coarse[label] = component
            component = coarse
    dense = matrix.toarray()
    scale = np.trace(dense) / len(dense) or 1.0
    if component is not None:  # fill the null space: the answer along it is set afterwards
        for index in range(int(component.max()) + 1):
            inside = np.flatnonzero(component == index)
            dense[np.ix_(inside, inside)] += scale / max(1, len(inside))
    dense[np.diag_indices(len(dense))] += 1e-14 * scale
    factor = cho_factor(dense)

    def cycle(level: int, residual: NDArray) -> NDArray:
        if level == len(levels):
            return cho_solve(factor, residual)
        fine, expand, collect, smooth = levels[level]
        damping = smooth if residual.ndim == 1 else smooth[:, None]
        correction = damping * residual
        coarse = cycle(level + 1, collect @ (residual - fine @ correction))
        correction += expand @ coarse
        correction += damping * (residual - fine @ correction)
        return correction

    return lambda residual: cycle(0, residual)


def conjugate_gradients(
    matrix: Any,
    right: NDArray,
    start: NDArray,
    precondition: Callable[[NDArray], NDArray],
    tolerance: float,
    max_iterations: int,
) -> tuple[NDArray, int, float]:
    """Solve by preconditioned conjugate gradients, for one or several right-hand sides at once.

    The error is measured in the norm of the preconditioned residual, relative to that of the right-hand side: it
    estimates the error of the solution in the energy norm, and few edges of huge weight do not hide the others.

    Parameters
    ----------
    matrix : scipy.sparse matrix, shape (n, n)
    right, start : ndarray of float64, shape (n,) or (n, n_columns)
    precondition : callable
    tolerance : float
    max_iterations : int

    Returns
    -------
    solution : ndarray of float64
    iterations : int
    error : float
        The relative error reached, the largest of all columns.
    """
    x = np.array(start, np.float64)
    residual = right - matrix @ x
    direction = z = precondition(residual)
    product = (residual * z).sum(axis=0)
    scale = np.sqrt(np.abs((right * precondition(right)).sum(axis=0)))
    bound = tolerance * np.where(scale > 0, scale, 1.0)
    iterations = 0
    error = float(np.max(np.sqrt(np.abs(product)) / bound))
    best, reached, found = x, error, 0
    while iterations < max_iterations and error > 1 and iterations - found < PATIENCE:
        image = matrix @ direction
        curvature = (direction * image).sum(axis=0)
        length = np.divide(product, curvature, out=np.zeros_like(product), where=curvature > 0)
        x = x + length * direction
        residual = residual - length * image
        z = precondition(residual)
        previous, product = product, (residual * z).sum(axis=0)
        ratio = np.divide(product, previous, out=np.zeros_like(product), where=previous > 0)
        direction = z + ratio * direction
        iterations += 1
        error = float(np.max(np.sqrt(np.abs(product)) / bound))
        if error < reached:
            best, reached, found = x, error, iterations
    return best, iterations, reached * tolerance
