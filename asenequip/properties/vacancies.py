"""Formation energies of vacancies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from ase.calculators.calculator import BaseCalculator

from asenequip.errors import parameter_error
from asenequip.properties.checks import check_crystal, check_positive
from asenequip.properties.evaluation import relaxed, results_of
from asenequip.properties.phonons import Supercell, supercell_matrix
from asenequip.properties.symmetry import inequivalent


@dataclass(frozen=True)
class VacancyEnergy:
    """Formation energy of a vacancy.

    Attributes
    ----------
    site : int
        Index of the atom in the crystal that was given; equivalent sites are not repeated.
    symbol : str
        The element that is missing.
    energy : float
        Formation energy with all atoms relaxed in the cell of the crystal, eV.
    unrelaxed : float
        Formation energy with all other atoms where they were, eV.
    structure : ase.Atoms
        Relaxed supercell; its calculator holds the results.
    """

    site: int
    symbol: str
    energy: float
    unrelaxed: float
    structure: Atoms


def vacancy_energies(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    supercell: Supercell = None,
    chemical_potentials: Mapping[str, float] | None = None,
    fmax: float = 0.01,
    steps: int = 500,
    tolerance: float = 1e-3,
) -> list[VacancyEnergy]:
    """Formation energy of a vacancy at each inequivalent site, E_f = E(N - 1) - E(N) + mu.

    The supercells relax together at constant volume.

    Parameters
    ----------
    atoms : ase.Atoms
        A crystal whose cell is relaxed; not changed.
    calculator : ASE calculator
    supercell : int, (3,) or (3, 3) ints, optional
        Repeats, or the matrix of `ase.build.make_supercell`; by default repeats that put opposite faces 12 Angstrom or
        more apart.
    chemical_potentials : mapping, optional
        Energy of an atom in its reservoir, eV, for each element. A crystal of one element is its own reservoir.
    fmax : float
        Largest force after relaxation, eV/Angstrom.
    steps : int
        Most steps of a relaxation.
    tolerance : float
        Tolerance of spglib's search for symmetry, Angstrom.

    Returns
    -------
    list of VacancyEnergy

    Raises
    ------
    ValueError
        If the atoms are no crystal, or a chemical potential is missing.
    ase.calculators.calculator.CalculationFailed
        If a supercell could not be evaluated or relaxed.
    """
    check_crystal(atoms, "vacancy_energies")
    check_positive("fmax", "vacancy_energies", fmax)
    matrix = supercell_matrix(atoms, supercell)
    sites = inequivalent(atoms, tolerance)
    # ASE repeats the crystal cell by cell: the first len(atoms) atoms are those of one cell, in their order
    whole = make_supercell(atoms, matrix)
    if len(whole) < 2:
        raise parameter_error("supercell", "vacancy_energies", "a supercell of two or more atoms", supercell)
    holes = []
    for site in sites:
        hole = whole.copy()
        del hole[site]
        holes.append(hole)
    perfect = results_of([whole], calculator, "perfect supercell")[0]
    cut = results_of(holes, calculator, "supercell with a vacancy")
    potentials = _reservoir(atoms, perfect["energy"] / len(whole), chemical_potentials)
    moved = relaxed(holes, calculator, "supercell with a vacancy", fmax=fmax, steps=steps)
    found = []
    for site, hole, before in zip(sites, moved, cut, strict=True):
        symbol = atoms[site].symbol
        offset = potentials[symbol] - perfect["energy"]
        energy = hole.get_potential_energy() + offset
        found.append(VacancyEnergy(site, symbol, energy, before["energy"] + offset, hole))
    return found


def _reservoir(atoms: Atoms, energy_per_atom: float, given: Mapping[str, float] | None) -> dict[str, float]:
    """Chemical potential of each element, eV."""
    elements = set(atoms.get_chemical_symbols())
    energies = dict(given or {})
    if len(elements) == 1:
        energies.setdefault(next(iter(elements)), energy_per_atom)
    missing = sorted(elements - set(energies))
    if missing or not np.isfinite(list(energies.values())).all():
        wanted = f"the energy of an atom of each element, eV, {', '.join(missing) or 'finite'} among them"
        remedy = "Take those of the elements' crystals, or of another reservoir."
        raise parameter_error("chemical_potentials", "vacancy_energies", wanted, given, remedy)
    return energies
