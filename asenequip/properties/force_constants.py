"""Force constants of a supercell: from forces of displaced supercells, or exactly from the Hessian.

Both give Phi_ij = d^2 E / du_i du_j in phonopy's compact form: rows of the atoms of the primitive cell only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from asenequip.properties.evaluation import results_of

ORDERS = {2: (1.0,), 4: (4 / 3, -1 / 3), 6: (3 / 2, -3 / 5, 1 / 10)}
"""Weights of the central differences at one, two and three times the distance, by their order of accuracy."""


def to_ase(cell: Any) -> Atoms:
    """Structure of phonopy's as ASE's, periodic."""
    return Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, masses=cell.masses, pbc=True)


def to_phonopy(atoms: Atoms) -> Any:
    """Structure of ASE's as phonopy's, with its masses."""
    from phonopy.structure.atoms import PhonopyAtoms

    return PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        cell=np.asarray(atoms.cell),
        scaled_positions=atoms.get_scaled_positions(),
        masses=atoms.get_masses(),
    )


def displaced_supercells(phonopy: Any, distance: float, order: int) -> list[Atoms]:
    """Supercells that the finite differences need: phonopy's, at one and more times the distance.

    Displacements are along and against each direction unless a symmetry turns one into the other, so that even orders
    of the displacement cancel.

    Parameters
    ----------
    phonopy : phonopy.Phonopy
        Gets the displacements of the single distance.
    distance : float
        Angstrom.
    order : {2, 4, 6}
    """
    frames = []
    for multiple in range(len(ORDERS[order]), 0, -1):  # the single distance comes last and stays with phonopy
        phonopy.generate_displacements(distance=multiple * distance)
        frames.append([to_ase(cell) for cell in phonopy.supercells_with_displacements])
    return [atoms for part in reversed(frames) for atoms in part]


def difference_constants(phonopy: Any, calculator: BaseCalculator, distance: float, order: int) -> int:
    """Force constants from finite differences, put into ``phonopy`` together with the forces they come from.

    With an order above 2 the forces are those of Richardson's extrapolation, sum_m w_m F(m h) / m, at the displacements
    of the single distance: what phonopy, or anyone who reads the file of forces, makes of them has that order.

    Returns
    -------
    int
        Supercells evaluated.
    """
    frames = displaced_supercells(phonopy, distance, order)
    results = results_of(frames, calculator, "displaced supercell")
    forces = np.array([result["forces"] for result in results]).reshape(
        len(ORDERS[order]), -1, *frames[0].positions.shape
    )
    shares = [weight / multiple for multiple, weight in enumerate(ORDERS[order], start=1)]
    phonopy.forces = np.einsum("m,msia->sia", shares, forces)
    phonopy.produce_force_constants(calculate_full_force_constants=False)
    return len(frames)


def exact_constants(phonopy: Any, calculator: BaseCalculator) -> None:
    """Force constants from the calculator's Hessian, put into ``phonopy``.

    Only the rows of the primitive cell's atoms are computed where ``calculator.hessian(atoms, rows)`` takes rows.

    Raises
    ------
    ValueError
        If the calculator has no Hessian.
    """
    supercell = to_ase(phonopy.supercell)
    rows = [int(index) for index in phonopy.primitive.p2s_map]
    shape = (len(rows), 3, len(supercell), 3)
    if hasattr(calculator, "hessian"):
        found = calculator.hessian(supercell, rows).reshape(shape)
    elif hasattr(calculator, "get_hessian"):  # calculators of MACE give all rows, (3n, n, 3)
        whole = np.asarray(calculator.get_hessian(supercell)).reshape(len(supercell), 3, len(supercell), 3)
        found = whole[rows]
    else:
        raise ValueError(
            f"{type(calculator).__name__} has no Hessian for exact force constants.\nUse method='displacements'."
        )
    phonopy.force_constants = np.ascontiguousarray(found.transpose(0, 2, 1, 3))


def drift(force_constants: np.ndarray) -> float:
    """Largest violation of the acoustic sum rule sum_j Phi_ij = 0, eV/Angstrom^2."""
    return float(np.abs(force_constants.sum(axis=1)).max())
