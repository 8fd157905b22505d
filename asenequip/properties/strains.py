"""Strains, their rotations, and the elastic tensors that a point group allows.

Voigt order xx yy zz yz xz xy throughout; strains with engineering shears (e_4 = 2 e_yz), stresses without.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms

PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""Cartesian indices of the six Voigt components."""
MANDEL = np.sqrt([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
"""Weights that make the six components of a stress orthonormal."""


def strain_matrix(strain: np.ndarray) -> np.ndarray:
    """Symmetric (3, 3) strain of a Voigt vector (6,)."""
    matrix = np.zeros((3, 3))
    for value, (i, j) in zip(strain, PAIRS, strict=True):
        matrix[i, j] = matrix[j, i] = value if i == j else value / 2
    return matrix


def strained(atoms: Atoms, strain: np.ndarray) -> Atoms:
    """A copy without constraints under a homogeneous strain (6,): every vector x becomes (1 + e) x."""
    copy = atoms.copy()
    copy.set_constraint()
    deformation = np.eye(3) + strain_matrix(strain)
    copy.set_cell(np.asarray(atoms.cell) @ deformation.T, scale_atoms=True)
    return copy


def rotate_stresses(rotations: np.ndarray) -> np.ndarray:
    """Matrices (g, 6, 6) that turn the Voigt stress s into that of R s R^T."""
    turned = np.zeros((len(rotations), 6, 6))
    for column, (k, l) in enumerate(PAIRS):
        unit = np.zeros((3, 3))
        unit[k, l] = unit[l, k] = 1.0
        image = rotations @ unit @ rotations.transpose(0, 2, 1)
        for row, (i, j) in enumerate(PAIRS):
            turned[:, row, column] = image[:, i, j]
    return turned


def invariant_tensors(rotations: np.ndarray) -> np.ndarray:
    """Basis of the elastic tensors that a point group leaves as they are.

    They are the symmetric (6, 6) matrices C with M C M^T = C for every M of `rotate_stresses`; the group's mean of
    M C M^T is the projection on them. A cubic group has 3, a hexagonal one 5, the trivial one 21.

    Parameters
    ----------
    rotations : (g, 3, 3)

    Returns
    -------
    (b, 6, 6) float64
    """
    turns = rotate_stresses(rotations) * MANDEL[:, None] / MANDEL  # orthogonal in this form
    projected = np.zeros((21, 36))
    for number, (row, column) in enumerate(zip(*np.triu_indices(6), strict=True)):
        unit = np.zeros((6, 6))
        unit[row, column] = unit[column, row] = 1.0 if row == column else 0.5**0.5
        projected[number] = np.einsum("gij,jk,glk->il", turns, unit, turns).ravel() / len(turns)
    _, values, vectors = np.linalg.svd(projected)  # the values are 1 and 0, as far as the symmetry is exact
    return vectors[: int((values > 0.5).sum())].reshape(-1, 6, 6) / MANDEL[:, None] / MANDEL


def needed_directions(basis: np.ndarray) -> list[int]:
    """Unit strains, as few as possible of the six, whose stresses determine all constants of the tensors.

    Parameters
    ----------
    basis : (b, 6, 6)
        As `invariant_tensors` gives it.
    """
    chosen: list[int] = []
    rank = 0
    for direction in range(6):
        design = np.concatenate([basis[:, :, k].T for k in [*chosen, direction]])
        larger = int(np.linalg.matrix_rank(design, tol=1e-6))
        if larger > rank:
            chosen, rank = [*chosen, direction], larger
    return chosen
