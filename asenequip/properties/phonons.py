"""Phonons of a crystal through phonopy, from batched forces or from the exact Hessian."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from numpy.typing import ArrayLike

from asenequip.errors import parameter_error
from asenequip.properties.checks import check_choice, check_crystal, check_positive
from asenequip.properties.evaluation import results_of
from asenequip.properties.force_constants import ORDERS, difference_constants, drift, exact_constants, to_phonopy
from asenequip.properties.spectra import (
    Bands,
    DensityOfStates,
    ThermalProperties,
    bands,
    density_of_states,
    thermal_properties,
)

Supercell = int | Sequence[int] | Sequence[Sequence[int]] | None
TEMPERATURES = np.arange(0.0, 1001.0, 10.0)
LEAST_WIDTH = 12.0
"""Distance of opposite faces of a supercell that nobody has chosen, Angstrom."""


@dataclass(frozen=True)
class Phonons:
    """Harmonic lattice dynamics of a crystal.

    Attributes
    ----------
    phonopy : phonopy.Phonopy
        With force constants, and with displacements and forces where these were used; for everything else that phonopy
        can do.
    method : str
        "displacements" or "hessian".
    evaluations : int
        Structures evaluated besides the crystal itself.
    residual_force : float
        Largest force in the crystal itself, eV/Angstrom; the harmonic picture supposes that there is none.
    drift, enforced_drift : float
        Largest violation of the acoustic sum rule as calculated and as it is now, eV/Angstrom^2.
    """

    phonopy: Any
    method: str
    evaluations: int
    residual_force: float
    drift: float
    enforced_drift: float

    def frequencies(self, qpoints: ArrayLike) -> np.ndarray:
        """Frequencies at wave vectors.

        Parameters
        ----------
        qpoints : (q, 3) or (3,)
            In units of the primitive cell's reciprocal vectors.

        Returns
        -------
        (q, 3p) float64
            THz, ascending; an imaginary one is negative.
        """
        self.phonopy.run_qpoints(np.atleast_2d(np.asarray(qpoints, np.float64)))
        return np.array(self.phonopy.qpoints.frequencies)

    def bands(self, points: int = 51, *, group_velocities: bool = False) -> Bands:
        """Frequencies along the lines between special points, ``points`` on each."""
        return bands(self.phonopy, points, group_velocities)

    def density_of_states(self, mesh: int | Sequence[int] = 20, *, width: float | None = None) -> DensityOfStates:
        """Density of states on a mesh of wave vectors; ``width`` in THz smears it, tetrahedra otherwise."""
        return density_of_states(self.phonopy, _mesh(mesh), width)

    def thermal_properties(
        self, temperatures: ArrayLike = TEMPERATURES, mesh: int | Sequence[int] = 20
    ) -> ThermalProperties:
        """Free energy, entropy and heat capacity at temperatures in K."""
        return thermal_properties(self.phonopy, _mesh(mesh), np.asarray(temperatures, np.float64))

    def write(
        self,
        folder: str | Path,
        *,
        mesh: int | Sequence[int] = 20,
        temperatures: ArrayLike = TEMPERATURES,
        points: int = 51,
    ) -> list[Path]:
        """Write phonopy's files, tables and figures into a folder; see `asenequip.properties.phonon_files.write`."""
        from asenequip.properties.phonon_files import write

        return write(self, Path(folder), mesh=mesh, temperatures=temperatures, points=points)


def phonons(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    supercell: Supercell = None,
    method: str = "displacements",
    distance: float = 0.01,
    order: int = 2,
    sum_rule: bool = True,
    born: str | os.PathLike[str] | None = None,
    tolerance: float = 1e-5,
) -> Phonons:
    """Force constants of a crystal, and with them its phonons.

    Parameters
    ----------
    atoms : ase.Atoms
        A crystal in mechanical equilibrium (`asenequip.relax.relax`); not changed. Symmetry reduces the work, so relax
        with ``keep_symmetry=True``.
    calculator : ASE calculator
        All displaced supercells are evaluated together where it can.
    supercell : int, (3,) or (3, 3) ints, optional
        Repeats, or phonopy's matrix; by default repeats that put opposite faces 12 Angstrom or more apart. Force
        constants of an Allegro potential reach as far as two cutoffs.
    method : {"displacements", "hessian"}
        Finite differences of forces, or second derivatives by automatic differentiation, which are exact.
    distance : float
        Displacement of the finite differences, Angstrom.
    order : {2, 4, 6}
        Order of accuracy of the finite differences; 4 and 6 evaluate two and three times as many supercells.
    sum_rule : bool
        Enforce the acoustic sum rule and the symmetry of the force constants; both drifts are told in any case.
    born : path, optional
        File of phonopy's with Born charges and dielectric constant, for the split of optical modes in polar crystals:
        it shows at wave vectors near the zone centre, and depends on their direction.
    tolerance : float
        Tolerance of the search for symmetry, Angstrom.

    Returns
    -------
    Phonons

    Raises
    ------
    ImportError
        If phonopy is not installed.
    ValueError
        If the atoms are no crystal or a parameter is out of range.
    ase.calculators.calculator.CalculationFailed
        If a supercell could not be evaluated.
    """
    phonopy = make_phonopy(atoms, supercell, tolerance=tolerance)
    check_choice("method", "phonons", method, ("displacements", "hessian"))
    check_choice("order", "phonons", order, tuple(ORDERS))
    check_positive("distance", "phonons", distance)
    still = results_of([atoms], calculator, "crystal")[0]
    evaluations = 0
    if method == "hessian":
        exact_constants(phonopy, calculator)
    else:
        evaluations = difference_constants(phonopy, calculator, distance, order)
    before = drift(phonopy.force_constants)
    if sum_rule:
        phonopy.symmetrize_force_constants(show_drift=False)
    if born is not None:
        phonopy.nac_params = _read_born(phonopy, born)
    residual = float(np.linalg.norm(still["forces"], axis=1).max())
    return Phonons(phonopy, method, evaluations, residual, before, drift(phonopy.force_constants))


def make_phonopy(atoms: Atoms, supercell: Supercell, *, tolerance: float = 1e-5) -> Any:
    """A ``phonopy.Phonopy`` of a crystal and a supercell, without displacements yet.

    Raises
    ------
    ImportError
        If phonopy is not installed.
    ValueError
        If the atoms are no crystal, or the supercell no repeats.
    """
    try:
        from phonopy import Phonopy
        from phonopy.structure.cells import guess_primitive_matrix
    except ImportError:
        raise ImportError("Phonons need phonopy. Install it: pip install 'asenequip[properties]'") from None
    check_crystal(atoms, "phonons")
    check_positive("tolerance", "phonons", tolerance)
    matrix = supercell_matrix(atoms, supercell)
    cell = to_phonopy(atoms)
    primitive = guess_primitive_matrix(cell, symprec=tolerance)
    return Phonopy(cell, supercell_matrix=matrix, primitive_matrix=primitive, symprec=tolerance)


def supercell_matrix(atoms: Atoms, supercell: Supercell) -> np.ndarray:
    """Matrix (3, 3) of a supercell given as repeats, as a matrix, or not at all."""
    if supercell is None:
        heights = 1.0 / np.linalg.norm(np.linalg.inv(np.asarray(atoms.cell)), axis=0)
        return np.diag([math.ceil(LEAST_WIDTH / height - 1e-9) for height in heights])
    found = np.asarray(supercell)
    whole = np.issubdtype(found.dtype, np.integer) and found.shape in ((), (3,), (3, 3))
    matrix = np.diag(np.broadcast_to(found, 3)) if whole and found.ndim < 2 else found
    if not whole or round(float(np.linalg.det(matrix))) < 1 or (found.ndim < 2 and found.min() < 1):
        wanted = "a positive integer, three of them, or a (3, 3) matrix of integers with a positive determinant"
        raise parameter_error("supercell", "phonons", wanted, supercell)
    return np.asarray(matrix)


def _mesh(mesh: int | Sequence[int]) -> list[int]:
    found = [int(n) for n in np.broadcast_to(np.asarray(mesh), 3)]
    if min(found) < 1:
        raise parameter_error("mesh", "Phonons", "a positive integer or three of them", mesh)
    return found


def _read_born(phonopy: Any, path: str | os.PathLike[str]) -> Any:
    from phonopy.file_IO import parse_BORN
    from phonopy.physical_units import get_physical_units

    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file '{path}' with Born charges. Check the path.")
    found = parse_BORN(phonopy.primitive, filename=str(path))
    units = get_physical_units()
    return {"factor": units.Hartree * units.Bohr, **{k: v for k, v in dict(found).items() if v is not None}}
