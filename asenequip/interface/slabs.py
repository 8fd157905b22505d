"""Slabs of a crystal: oriented along a plane, cut where no bond is broken."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from ase.data import atomic_numbers, covalent_radii

from asenequip.errors import parameter_error
from asenequip.interface.pairs import NeighbourSearch

_SYMBOLS = ("H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "As", "Se", "Br", "Te", "I")
NONMETALS = frozenset(atomic_numbers[symbol] for symbol in _SYMBOLS)
_BOND = 1.2
"""A pair of non-metals within this times the sum of their covalent radii is bound."""


@dataclass(frozen=True)
class Termination:
    """A place to cut.

    Attributes
    ----------
    height : float
        Of the cut above the cell's bottom, Angstrom; between two planes of atoms.
    cut_bonds : int
        Bonds between non-metals that it breaks, per surface cell.
    spacing : float
        Distance of the planes above and below, Angstrom.
    below, above : str
        Composition of these two planes.
    """

    height: float
    cut_bonds: int
    spacing: float
    below: str
    above: str


def orient(crystal: Atoms, miller: tuple[int, int, int]) -> Atoms:
    """Choose the cell of a crystal whose first two vectors lie in a plane.

    Parameters
    ----------
    crystal : ase.Atoms
        Periodic in three directions; not changed.
    miller : (int, int, int)
        The plane, in the crystal's own lattice vectors.

    Returns
    -------
    ase.Atoms
        The first vector along x, the second in the xy plane; one repeat of the crystal along the normal.

    Raises
    ------
    ValueError
    """
    plane = np.asarray(miller)
    if plane.shape != (3,) or plane.dtype.kind != "i" or not plane.any() or np.gcd.reduce(plane) != 1:
        raise parameter_error("miller", "orient", "three integers without a common factor, not all zero", miller)
    if not crystal.pbc.all() or crystal.cell.rank < 3:
        raise parameter_error("crystal", "orient", "periodic in three directions", crystal.pbc.tolist())
    turned = make_supercell(crystal, _basis(plane, crystal.cell.array))
    return _to_standard(turned)


def _basis(plane: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """The shortest lattice vectors in the plane, and the shortest one to the next plane; right-handed."""
    reach = max(2, int(np.abs(plane).max()))
    grid = np.array(list(itertools.product(range(-reach, reach + 1), repeat=3)))
    grid = grid[np.argsort(np.linalg.norm(grid @ cell, axis=1), kind="stable")]
    level = grid @ plane
    inside, above = grid[(level == 0) & grid.any(axis=1)], grid[level == 1]
    first = inside[0]
    second = next(v for v in inside if np.array_equal(np.abs(np.cross(first, v)), np.abs(plane)))
    basis = np.array([first, second, above[0]])
    return basis if np.linalg.det(basis @ cell) > 0 else np.array([first, -second, above[0]])


def _to_standard(atoms: Atoms) -> Atoms:
    cell = atoms.cell.standard_form()[0]
    atoms.set_cell(cell, scale_atoms=True)
    return atoms


def bonds(atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bonds between non-metals: numbers of both atoms, and the vector from one to the other; each bond once."""
    bound = np.isin(atoms.numbers, list(NONMETALS))
    if not bound.any():
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 3))
    radii = covalent_radii[atoms.numbers]
    search = NeighbourSearch(atoms, 2 * _BOND * radii[bound].max(), bound)
    one, two, vector = search.vectors(np.flatnonzero(bound))
    length = np.linalg.norm(vector, axis=1)
    near = (length < _BOND * (radii[one] + radii[two])) & ((one < two) | ((one == two) & (vector[:, 2] > 0)))
    return one[near], two[near], vector[near]


def terminations(oriented: Atoms, tolerance: float = 0.2) -> list[Termination]:
    """Places to cut an oriented crystal, the best first: fewest bonds broken, then the widest gap.

    Parameters
    ----------
    oriented : ase.Atoms
        From `orient`.
    tolerance : float
        Planes nearer than this are one, Angstrom.

    Returns
    -------
    list of Termination
    """
    height = oriented.cell.array[2, 2]
    level = np.mod(oriented.positions[:, 2], height)
    level[level > height - 1e-6] = 0.0
    order = np.argsort(level)
    split = np.flatnonzero(np.diff(level[order]) > tolerance) + 1
    planes = np.split(order, split)
    if len(planes) > 1 and level[planes[0][0]] + height - level[planes[-1][-1]] <= tolerance:
        planes[0] = np.concatenate([planes.pop(), planes[0]])
    one, _, vector = bonds(oriented)
    start = oriented.positions[one, 2]
    found = []
    for lower, upper in zip(planes, planes[1:] + planes[:1], strict=True):
        spacing = (level[upper[0]] - level[lower[-1]]) % height or height
        at = level[lower[-1]] + spacing / 2
        crossed = np.abs(np.floor((start + vector[:, 2] - at) / height) - np.floor((start - at) / height))
        names = (oriented[p].symbols.get_chemical_formula() for p in (lower, upper))
        found.append(Termination(float(at % height), int(crossed.sum()), float(spacing), *names))
    return sorted(found, key=lambda t: (t.cut_bonds, -round(t.spacing, 3), t.height))


def cut(periodic: Atoms, height: float) -> Atoms:
    """Open a crystal at a height; the slab stands on z = 0 and is periodic in the plane only.

    Parameters
    ----------
    periodic : ase.Atoms
        A crystal as `orient` gives it, repeated.
    height : float
        Of the cut, Angstrom.

    Returns
    -------
    ase.Atoms
        The third vector is along z and as long as the crystal's repeat.
    """
    slab = periodic.copy()
    slab.positions[:, 2] -= height
    slab.wrap(eps=1e-9)
    cell = slab.cell.array.copy()
    cell[2, :2] = 0.0
    slab.set_cell(cell)
    slab.pbc = (True, True, False)
    slab.wrap(eps=1e-9)
    slab.positions[:, 2] -= slab.positions[:, 2].min()
    return slab
