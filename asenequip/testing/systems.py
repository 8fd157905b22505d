"""Named structures that every calculator must get right: from no atoms at all to 10^7 Angstrom of vacuum."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

CELLS = ("orthorhombic", "skewed", "rotated", "left-handed")


def systems(symbols: Sequence[str], seed: int = 0, cutoff: float = 5.0) -> dict[str, Atoms]:
    """The named structures, of the given elements.

    Parameters
    ----------
    symbols : sequence of str
        Chemical symbols that the calculator knows.
    seed : int
    cutoff : float
        Angstrom; the length that "far", "on the cutoff" and "small cell" refer to.

    Returns
    -------
    dict of str to ase.Atoms
        Structures by name, without calculators.
    """
    rng = np.random.default_rng(seed)
    bond = bond_length(symbols)
    cluster = random_cluster(symbols, 5, rng)
    crystal = random_crystal(symbols, "skewed", rng)
    named = {
        "no atoms": Atoms(),
        "no atoms in a cell": Atoms(cell=np.eye(3) * cutoff, pbc=True),
        "one atom": Atoms(symbols[0]),
        "one atom in a large cell": Atoms(symbols[-1], cell=np.eye(3) * 3 * cutoff, pbc=True),
        "two far atoms": Atoms([symbols[0], symbols[-1]], positions=[[0, 0, 0], [0, 0, 3 * cutoff]]),
        "last atom isolated": _with_guest(cluster, symbols[0], 4 * cutoff),
        "first atom isolated": _with_guest(cluster, symbols[0], 4 * cutoff)[::-1],
        "cluster": cluster,
        "one atom, small cell": Atoms(symbols[0], cell=_small_cell(bond), pbc=True),
        "one atom, chain": Atoms(symbols[0], cell=[0.9 * bond, 0, 0], pbc=[True, False, False]),
        "negative coordinates": _moved(cluster, [-137.3, -29.1, -0.7]),
        "a million Angstrom away": _moved(cluster, [1e6, -1e6, 1e6]),
        "vacuum of ten million Angstrom": _in_cell(cluster, np.eye(3) * 1e7, True),
        "slab with vacuum": _slab(symbols, rng),
        "atoms on the cutoff": _on_the_cutoff(symbols, cutoff),
        "atoms on cell faces": _on_faces(symbols, bond),
        "overlapping atoms": Atoms([symbols[0]] * 2, positions=[[0, 0, 0], [0, 0, 0.35 * bond]]),
        "species permuted": _permuted(cluster, rng),
        "lattice shifts": _shifted(crystal, rng),
        "supercell": crystal.repeat((2, 1, 2)),
        "crystal": crystal,
    }
    for kind in CELLS:
        full = random_crystal(symbols, kind, rng)
        for pbc in itertools.product([False, True], repeat=3):
            label = "".join("FT"[p] for p in pbc)
            named[f"{kind} {label}"] = _in_cell(full, np.asarray(full.cell), pbc)
    return named


def bond_length(symbols: Sequence[str]) -> float:
    """A length, Angstrom, at which any two of the elements are near but not too near: twice the largest radius."""
    return 2.0 * max(float(covalent_radii[atomic_numbers[s]]) for s in symbols)


def random_cluster(symbols: Sequence[str], count: int, rng: np.random.Generator) -> Atoms:
    """A cluster without symmetry, each atom about a bond length from an earlier one; every element if there is room."""
    bond = bond_length(symbols)
    points = [np.zeros(3)]
    while len(points) < count:
        step = rng.standard_normal(3)
        point = points[rng.integers(len(points))] + rng.uniform(1.0, 1.2) * bond * step / np.linalg.norm(step)
        if (np.linalg.norm(np.array(points) - point, axis=1) > 0.95 * bond).all():
            points.append(point)
    return Atoms([symbols[k % len(symbols)] for k in range(count)], positions=points)


def random_crystal(symbols: Sequence[str], kind: str, rng: np.random.Generator) -> Atoms:
    """Four atoms in a cell of the named kind (see ``CELLS``), smaller than most cutoffs."""
    edge = 1.45 * bond_length(symbols)
    cell = np.eye(3) * edge * np.array([1.0, 1.04, 1.1])
    if kind != "orthorhombic":
        cell += 0.12 * edge * rng.uniform(-1, 1, (3, 3))
    if kind == "rotated":
        cell = cell @ random_rotation(rng)
    if kind == "left-handed":
        cell = cell[[1, 0, 2]]
    sites = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    positions = sites @ cell + 0.06 * edge * rng.uniform(-1, 1, (4, 3))
    return Atoms([symbols[k % len(symbols)] for k in range(4)], positions=positions, cell=cell, pbc=True)


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """A proper rotation, (3, 3) float64."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


def _small_cell(bond: float) -> np.ndarray:
    return bond * np.array([[1.0, 0.1, 0.0], [0.0, 1.05, 0.1], [0.1, 0.0, 0.95]])


def _with_guest(atoms: Atoms, symbol: str, distance: float) -> Atoms:
    return atoms + Atoms(symbol, positions=[atoms.positions.max(axis=0) + distance])


def _moved(atoms: Atoms, vector: Sequence[float]) -> Atoms:
    atoms = atoms.copy()
    atoms.positions += np.asarray(vector)
    return atoms


def _in_cell(atoms: Atoms, cell: np.ndarray, pbc: bool | Sequence[bool]) -> Atoms:
    return Atoms(atoms.symbols, positions=atoms.positions, cell=cell, pbc=pbc)


def _slab(symbols: Sequence[str], rng: np.random.Generator) -> Atoms:
    slab = random_crystal(symbols, "orthorhombic", rng).repeat((1, 2, 1))
    slab.center(vacuum=12.0, axis=2)
    return slab


def _on_the_cutoff(symbols: Sequence[str], cutoff: float) -> Atoms:
    return Atoms([symbols[0]] * 3, positions=[[0, 0, 0], [0, 0, cutoff], [0.5 * cutoff, 0, 0.5 * cutoff]])


def _on_faces(symbols: Sequence[str], bond: float) -> Atoms:
    edge = 2.0 * bond
    corners = [[0, 0, 0], [edge, edge / 2, edge / 2], [edge / 2, edge, 0], [0, 0, edge / 2]]
    return Atoms([symbols[k % len(symbols)] for k in range(4)], positions=corners, cell=np.eye(3) * edge, pbc=True)


def _permuted(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    return atoms[rng.permutation(len(atoms))]


def _shifted(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    return _moved(atoms, rng.integers(-5, 6, (len(atoms), 3)) @ np.asarray(atoms.cell))
