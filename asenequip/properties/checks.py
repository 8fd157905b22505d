"""What structures and numbers must be, said in one sentence where they are not."""

from __future__ import annotations

import math

import numpy as np
from ase import Atoms

from asenequip.errors import parameter_error


def check_crystal(atoms: Atoms, owner: str) -> None:
    """Refuse what is no crystal: atoms in a cell of three vectors, periodic along all of them."""
    if not isinstance(atoms, Atoms) or len(atoms) == 0:
        raise parameter_error("atoms", owner, "ase.Atoms with at least one atom", atoms)
    if atoms.cell.rank < 3 or not atoms.pbc.all():
        wanted = "a crystal: three lattice vectors, periodic along all of them"
        got = f"rank {atoms.cell.rank}, pbc {atoms.pbc.tolist()}"
        raise parameter_error("atoms", owner, wanted, got, "Set the cell and pbc=True.")


def check_positive(name: str, owner: str, value: float) -> None:
    """Refuse a number that is not in (0, inf)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < math.inf:
        raise parameter_error(name, owner, "a number in (0, inf)", value)


def check_choice(name: str, owner: str, value: object, choices: tuple[object, ...]) -> None:
    """Refuse a value that is not among the choices."""
    if value not in choices:
        raise parameter_error(name, owner, "one of " + ", ".join(map(repr, choices)), value)


def check_stress(results: dict[str, object], owner: str) -> None:
    """Refuse a calculator that gave no stress."""
    if "stress" not in results:
        raise ValueError(
            f"{owner} needs the stress, which the calculator does not give.\nUse a calculator that implements it."
        )
