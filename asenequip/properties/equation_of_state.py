"""Equation of state: energy against volume, and the bulk modulus that follows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator
from numpy.typing import ArrayLike

from asenequip.errors import parameter_error
from asenequip.files import refuse_existing
from asenequip.properties.checks import check_choice, check_crystal, check_positive
from asenequip.properties.evaluation import labelled, relaxed
from asenequip.properties.tables import write_csv, write_json


@dataclass(frozen=True)
class EquationOfState:
    """Third-order Birch-Murnaghan equation of state (F. Birch, Phys. Rev. 71, 809 (1947)), fitted by ASE.

    Attributes
    ----------
    volumes, energies : (v,) float64
        Angstrom^3 and eV, per atom.
    volume : float
        Volume of lowest energy, Angstrom^3 per atom.
    energy : float
        Energy at that volume, eV per atom.
    bulk_modulus : float
        Bulk modulus at that volume, GPa.
    bulk_derivative : float
        Derivative of the bulk modulus with respect to the pressure, at that volume.
    misfit : float
        Root mean square of the energies about the curve, eV per atom.
    """

    volumes: np.ndarray
    energies: np.ndarray
    volume: float
    energy: float
    bulk_modulus: float
    bulk_derivative: float
    misfit: float

    def energy_at(self, volumes: ArrayLike) -> np.ndarray:
        """Energy of the fitted curve, eV per atom, at volumes in Angstrom^3 per atom."""
        from ase.eos import birchmurnaghan

        bulk = self.bulk_modulus * units.GPa
        return np.asarray(birchmurnaghan(np.asarray(volumes), self.energy, bulk, self.bulk_derivative, self.volume))

    def write(self, folder: str | Path) -> list[Path]:
        """Write ``eos.json``, ``eos.csv`` and a figure into a folder; no file may exist."""
        from asenequip.properties.figures import energy_volume_figure

        folder = Path(folder)
        paths = [folder / name for name in ("eos.json", "eos.csv", "eos.png")]
        refuse_existing(*paths)
        values: dict[str, Any] = {
            "units": "per atom: Angstrom^3, eV; bulk modulus GPa",
            "volume": self.volume,
            "energy": self.energy,
            "bulk_modulus": self.bulk_modulus,
            "bulk_derivative": self.bulk_derivative,
            "misfit": self.misfit,
        }
        write_json(paths[0], values)
        curve = self.energy_at(self.volumes)
        write_csv(
            paths[1],
            {"volume_A3_per_atom": self.volumes, "energy_eV_per_atom": self.energies, "fit_eV_per_atom": curve},
        )
        energy_volume_figure(self, paths[2])
        return paths


def equation_of_state(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    span: float = 0.06,
    points: int = 11,
    relax: str = "ions",
    fmax: float = 1e-3,
    steps: int = 500,
) -> EquationOfState:
    """Equation of state of a crystal about its volume.

    Parameters
    ----------
    atoms : ase.Atoms
        A crystal near its equilibrium; not changed.
    calculator : ASE calculator
        All volumes are evaluated, or relaxed, together where it can.
    span : float
        Volumes go from (1 - span) to (1 + span) times that of ``atoms``.
    points : int
        Number of volumes, five or more.
    relax : {"none", "ions", "shape"}
        What relaxes at each volume: nothing, the atoms, or the atoms and the cell's shape at its volume.
    fmax : float
        Largest force after that, eV/Angstrom.
    steps : int
        Most steps of a relaxation.

    Returns
    -------
    EquationOfState

    Raises
    ------
    ValueError
        If a parameter is out of range, or the lowest energy is not inside the volumes.
    ase.calculators.calculator.CalculationFailed
        If a volume could not be evaluated or relaxed.
    """
    check_crystal(atoms, "equation_of_state")
    check_positive("fmax", "equation_of_state", fmax)
    check_choice("relax", "equation_of_state", relax, ("none", "ions", "shape"))
    if not 0 < span < 0.5:
        raise parameter_error("span", "equation_of_state", "a float in (0, 0.5)", span)
    if not isinstance(points, (int, np.integer)) or points < 5:
        raise parameter_error("points", "equation_of_state", "an integer >= 5", points)
    frames = [scaled(atoms, factor) for factor in np.linspace(1 - span, 1 + span, points)]
    if relax == "none":
        frames = labelled(frames, calculator, "volume")
    else:
        cell = "shape" if relax == "shape" else "fixed"
        frames = relaxed(frames, calculator, "volume", fmax=fmax, steps=steps, cell=cell)
    energies = np.array([frame.get_potential_energy() for frame in frames])
    volumes = np.array([frame.get_volume() for frame in frames])
    return fit_equation_of_state(volumes / len(atoms), energies / len(atoms))


def scaled(atoms: Atoms, factor: float) -> Atoms:
    """A copy without constraints with ``factor`` times the volume."""
    copy = atoms.copy()
    copy.set_constraint()
    copy.set_cell(np.asarray(atoms.cell) * factor ** (1 / 3), scale_atoms=True)
    return copy


def fit_equation_of_state(volumes: ArrayLike, energies: ArrayLike) -> EquationOfState:
    """Fit volumes (Angstrom^3 per atom) and energies (eV per atom).

    Raises
    ------
    ValueError
        If the lowest energy is not inside the volumes: the fit would be an extrapolation.
    """
    from ase.eos import EquationOfState as Fit

    volumes, energies = np.asarray(volumes, np.float64), np.asarray(energies, np.float64)
    remedy = "Relax the cell first (asenequip relax --cell full), or give a larger span."
    lowest = int(np.argmin(energies))
    if lowest in (0, len(energies) - 1):
        raise ValueError(f"The energy has no minimum between the volumes; it is lowest at the end of them.\n{remedy}")
    zero = energies[lowest]  # the fit's tolerances are relative: far from zero they would be loose
    fit = Fit(volumes, energies - zero, eos="birchmurnaghan")
    fit.fit(warn=False)
    energy, bulk, derivative, volume = (float(value) for value in fit.eos_parameters)
    if not volumes.min() < volume < volumes.max() or bulk <= 0:
        raise ValueError(f"The fitted equation of state has its minimum outside of the volumes.\n{remedy}")
    state = EquationOfState(volumes, energies, volume, energy + zero, bulk / units.GPa, derivative, 0.0)
    misfit = float(np.sqrt(np.mean((state.energy_at(volumes) - energies) ** 2)))
    return replace(state, misfit=misfit)
