"""Structures into LAMMPS and numbers out of it, for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

ELEMENTS = ("Cu", "O")


def write_data(folder: Path, atoms: Atoms, atom_style: str = "atomic") -> Path:
    """A data file of LAMMPS; the cell is rotated where LAMMPS needs it."""
    path = folder / "atoms.data"
    options = {"specorder": list(ELEMENTS), "masses": True, "units": "metal", "atom_style": atom_style}
    write(path, atoms, format="lammps-data", **options)
    return path


def preamble(data: Path, model: str | Path, style: str = "", boundary: str = "p p p") -> str:
    """Lines of an input file up to the potential."""
    return (
        f"units metal\natom_style atomic\natom_modify map yes\nboundary {boundary}\nread_data {data}\n"
        f"pair_style asenequip {style}\npair_coeff * * {model} {' '.join(ELEMENTS)}\n"
    )


def current_atoms(lmp: Any, pbc: bool = True) -> Atoms:
    """What LAMMPS holds, in its own frame, sorted by identifier."""
    low, high, xy, yz, xz, _, _ = lmp.extract_box()
    edge = np.subtract(high, low)
    cell = np.array([[edge[0], 0, 0], [xy, edge[1], 0], [xz, yz, edge[2]]])
    types = np.array(lmp.gather_atoms("type", 0, 1))
    positions = gathered(lmp, "x")
    return Atoms([ELEMENTS[t - 1] for t in types], positions=positions, cell=cell, pbc=pbc)


def gathered(lmp: Any, name: str, width: int = 3) -> np.ndarray:
    """A property of all atoms, sorted by identifier."""
    return np.array(lmp.gather_atoms(name, 1, width)).reshape(-1, width)


def per_atom(lmp: Any, identifier: str, width: int) -> np.ndarray:
    """A compute of all atoms of one process, sorted by identifier."""
    values = np.array(lmp.numpy.extract_compute(identifier, 1, 2 if width > 1 else 1))
    tags = np.array(lmp.numpy.extract_atom("id"))
    return values[np.argsort(tags[: len(values)])]
