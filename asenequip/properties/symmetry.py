"""Rotations of a crystal and its inequivalent atoms, from spglib."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms


def dataset(atoms: Atoms, tolerance: float) -> Any:
    """Symmetry data set of spglib, whose entries are its attributes.

    Raises
    ------
    ImportError
        If spglib is not installed.
    ValueError
        If spglib finds no symmetry, not even the identity.
    """
    from ase.spacegroup.symmetrize import check_symmetry

    try:
        return check_symmetry(atoms, tolerance)
    except ImportError:
        raise ImportError("Symmetry needs spglib. Install it: pip install 'asenequip[properties]'") from None
    except Exception as error:
        if not type(error).__module__.startswith("spglib"):
            raise
        raise ValueError(
            f"spglib finds no symmetry in the structure, not even the identity: {error}\n"
            "Look for atoms that coincide, or give a smaller tolerance."
        ) from error


def rotations(atoms: Atoms, tolerance: float) -> np.ndarray:
    """Point group of a crystal as Cartesian matrices acting on column vectors, (g, 3, 3) float64."""
    lattice = np.asarray(atoms.cell).T
    fractional = np.unique(dataset(atoms, tolerance).rotations, axis=0)
    found = lattice @ fractional @ np.linalg.inv(lattice)
    # a cell that is symmetric only within the tolerance gives matrices that are orthogonal only within it
    left, _, right = np.linalg.svd(found)
    return left @ right


def inequivalent(atoms: Atoms, tolerance: float) -> list[int]:
    """Index of one atom of each set of equivalent ones, ascending."""
    return sorted({int(index) for index in dataset(atoms, tolerance).equivalent_atoms})


def space_group(atoms: Atoms, tolerance: float) -> str:
    """Space group as "Fm-3m (225)"."""
    found = dataset(atoms, tolerance)
    return f"{found.international} ({found.number})"
