"""Forces and stress as differences of energies: the oracle for every analytic derivative."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

_NODES = (-2, -1, 1, 2)
_WEIGHTS = (1 / 12, -8 / 12, 8 / 12, -1 / 12)
"""f'(0) ~ sum_k w_k f(k h) / h, exact for polynomials of degree four (Abramowitz and Stegun, 25.3.6)."""


def finite_difference_forces(atoms: Atoms, step: float = 1e-3, indices: Sequence[int] | None = None) -> np.ndarray:
    """Forces from central differences of the energy, of fourth order in the step.

    Parameters
    ----------
    atoms : ase.Atoms
        Atoms with a calculator; not changed.
    step : float
        Angstrom.
    indices : sequence of int, optional
        Atoms to displace; all by default.

    Returns
    -------
    (len(indices), 3) float64, eV/Angstrom
    """
    chosen = range(len(atoms)) if indices is None else indices
    forces = np.zeros((len(chosen), 3))
    for row, atom in enumerate(chosen):
        for axis in range(3):
            for node, weight in zip(_NODES, _WEIGHTS, strict=True):
                moved = _copy(atoms)
                moved.positions[atom, axis] += node * step
                forces[row, axis] -= weight / step * moved.get_potential_energy()
    return forces


def finite_difference_stress(atoms: Atoms, step: float = 1e-4) -> np.ndarray:
    """Stress from central differences of the energy with respect to a symmetric strain, of fourth order in the step.

    Parameters
    ----------
    atoms : ase.Atoms
        Atoms with a calculator and a cell of rank 3; not changed.
    step : float
        Strain, dimensionless.

    Returns
    -------
    (6,) float64, eV/Angstrom^3, xx yy zz yz xz xy, tension positive

    Raises
    ------
    ValueError
        If the cell has no volume.
    """
    if atoms.cell.rank < 3:
        raise ValueError(f"A stress needs a cell with three lattice vectors. Got rank {atoms.cell.rank} instead.")
    derivative = np.zeros((3, 3))
    for i in range(3):
        for j in range(i, 3):
            for node, weight in zip(_NODES, _WEIGHTS, strict=True):
                strain = np.zeros((3, 3))
                strain[i, j] += node * step / 2
                strain[j, i] += node * step / 2
                moved = _copy(atoms)
                moved.set_cell(np.asarray(atoms.cell) @ (np.eye(3) + strain))
                moved.positions = atoms.positions @ (np.eye(3) + strain)
                derivative[i, j] += weight / step * moved.get_potential_energy()
            derivative[j, i] = derivative[i, j]
    return full_3x3_to_voigt_6_stress(derivative / abs(np.linalg.det(np.asarray(atoms.cell))))


def _copy(atoms: Atoms) -> Atoms:
    copy = atoms.copy()
    copy.set_constraint()
    copy.calc = atoms.calc
    return copy
