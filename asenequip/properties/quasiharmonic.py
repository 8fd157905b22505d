"""Phonons at several volumes: Gruneisen parameters and the quasi-harmonic approximation, through phonopy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from numpy.typing import ArrayLike

from asenequip.errors import parameter_error
from asenequip.files import refuse_existing
from asenequip.properties.checks import check_crystal
from asenequip.properties.equation_of_state import scaled
from asenequip.properties.evaluation import labelled, relaxed
from asenequip.properties.phonons import TEMPERATURES, Phonons, phonons
from asenequip.properties.tables import write_csv, write_json

STRAINS = (-0.06, -0.04, -0.02, 0.0, 0.02, 0.04, 0.06)


@dataclass(frozen=True)
class QuasiHarmonic:
    """Thermodynamics at constant pressure from harmonic phonons at each volume.

    Attributes
    ----------
    temperatures : (t,) float64
        K.
    volumes : (t,) float64
        Volumes of lowest Gibbs energy, Angstrom^3 per primitive cell.
    expansion : (t,) float64
        Volume expansion, 1/K.
    gibbs : (t,) float64
        Gibbs energy, eV per primitive cell.
    bulk_modulus : (t,) float64
        Isothermal, GPa.
    heat_capacity : (t,) float64
        At constant pressure, J/K per mole of primitive cells.
    cell_volumes, cell_energies : (v,) float64
        Volumes that were calculated and their static energies, Angstrom^3 and eV per primitive cell.
    imaginary : float
        Largest part of imaginary modes among these volumes; they are left out.
    pressure : float
        GPa.
    """

    temperatures: np.ndarray
    volumes: np.ndarray
    expansion: np.ndarray
    gibbs: np.ndarray
    bulk_modulus: np.ndarray
    heat_capacity: np.ndarray
    cell_volumes: np.ndarray
    cell_energies: np.ndarray
    imaginary: float
    pressure: float

    def write(self, folder: str | Path) -> list[Path]:
        """Write ``quasiharmonic.csv``, ``quasiharmonic.json`` and a figure into a folder; no file may exist."""
        from asenequip.properties.figures import quasiharmonic_figure

        folder = Path(folder)
        paths = [folder / f"quasiharmonic.{ending}" for ending in ("json", "csv", "png")]
        refuse_existing(*paths)
        write_json(
            paths[0],
            {
                "units": "per primitive cell: Angstrom^3, eV",
                "pressure_GPa": self.pressure,
                "volumes": self.cell_volumes,
                "energies": self.cell_energies,
                "imaginary_modes": self.imaginary,
            },
        )
        write_csv(
            paths[1],
            {
                "temperature_K": self.temperatures,
                "volume_A3": self.volumes,
                "expansion_per_K": self.expansion,
                "gibbs_eV": self.gibbs,
                "bulk_modulus_GPa": self.bulk_modulus,
                "heat_capacity_J_per_K_mol": self.heat_capacity,
            },
        )
        quasiharmonic_figure(self, paths[2])
        return paths


@dataclass(frozen=True)
class Gruneisen:
    """Mode Gruneisen parameters -d ln(omega) / d ln(V) on a mesh.

    Attributes
    ----------
    qpoints : (q, 3) float64
    weights : (q,) int
        Multiplicities.
    frequencies : (q, 3p) float64
        THz.
    parameters : (q, 3p) float64
        NaN for the acoustic modes at the zone centre, which have none.
    """

    qpoints: np.ndarray
    weights: np.ndarray
    frequencies: np.ndarray
    parameters: np.ndarray

    def write(self, folder: str | Path) -> list[Path]:
        """Write ``gruneisen.csv`` and a figure into a folder; no file may exist."""
        from asenequip.properties.figures import gruneisen_figure

        folder = Path(folder)
        paths = [folder / "gruneisen.csv", folder / "gruneisen.png"]
        refuse_existing(*paths)
        modes = self.frequencies.shape[1]
        columns: dict[str, Any] = {f"q{axis + 1}": np.repeat(self.qpoints[:, axis], modes) for axis in range(3)}
        columns |= {
            "weight": np.repeat(self.weights, modes),
            "frequency_THz": self.frequencies.ravel(),
            "gruneisen": self.parameters.ravel(),
        }
        write_csv(paths[0], columns)
        gruneisen_figure(self, paths[1])
        return paths


def quasiharmonic(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    strains: Sequence[float] = STRAINS,
    temperatures: ArrayLike = TEMPERATURES,
    pressure: float = 0.0,
    mesh: int | Sequence[int] = 20,
    relax_ions: bool = True,
    fmax: float = 1e-4,
    **options: Any,
) -> QuasiHarmonic:
    """Thermal expansion and what goes with it, from phonons at several volumes.

    Parameters
    ----------
    atoms : ase.Atoms
        A crystal whose cell is relaxed; not changed.
    calculator : ASE calculator
    strains : sequence of float
        Relative changes of the volume, five or more; they must bracket the volumes at all temperatures.
    temperatures : (t,) floats
        K, ascending. The last is needed for derivatives and is not in the result.
    pressure : float
        GPa.
    mesh : int or (3,) ints
        Wave vectors along each axis.
    relax_ions : bool
        Whether atoms relax at each volume.
    fmax : float
        Largest force after that, eV/Angstrom.
    **options
        Parameters of `phonons`: supercell, method, distance, order, ...

    Returns
    -------
    QuasiHarmonic

    Raises
    ------
    ValueError, ase.calculators.calculator.CalculationFailed, ImportError
        As `phonons`; and if a volume falls outside of those calculated.
    """
    changes = np.unique(np.asarray(strains, np.float64))
    if len(changes) < 5 or np.abs(changes).max() >= 0.5:
        raise parameter_error("strains", "quasiharmonic", "five or more different numbers in (-0.5, 0.5)", strains)
    found = _at_volumes(atoms, calculator, changes, relax_ions, fmax, options)
    kelvin = np.asarray(temperatures, np.float64)
    thermal = [phonon.thermal_properties(kelvin, mesh) for _, phonon in found]
    cells = len(atoms) / len(found[0][1].phonopy.primitive)
    volumes = np.array([frame.get_volume() for frame, _ in found]) / cells
    energies = np.array([frame.get_potential_energy() for frame, _ in found]) / cells
    solved = _solve(volumes, energies, kelvin, thermal, pressure)
    kept = np.asarray(solved.volume_temperature)
    if not ((volumes.min() < kept) & (kept < volumes.max())).all():
        raise ValueError(
            "At some temperature the volume of lowest energy lies outside of the volumes that were calculated.\n"
            "Give strains that reach further, lower temperatures, or relax the cell first."
        )
    return QuasiHarmonic(
        kelvin[: len(kept)],
        kept,
        np.asarray(solved.thermal_expansion),
        np.asarray(solved.gibbs_temperature),
        np.asarray(solved.bulk_modulus_temperature),
        np.asarray(solved.heat_capacity_P_numerical),
        volumes,
        energies,
        max(part.imaginary for part in thermal),
        pressure,
    )


def gruneisen(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    strain: float = 0.01,
    mesh: int | Sequence[int] = 20,
    relax_ions: bool = True,
    fmax: float = 1e-4,
    **options: Any,
) -> Gruneisen:
    """Mode Gruneisen parameters by central differences in the volume.

    Parameters
    ----------
    atoms : ase.Atoms
        A crystal whose cell is relaxed; not changed.
    calculator : ASE calculator
    strain : float
        Relative change of the volume, up and down.
    mesh : int or (3,) ints
        Wave vectors along each axis.
    relax_ions, fmax, **options
        As in `quasiharmonic`.

    Returns
    -------
    Gruneisen
    """
    if not 0 < strain < 0.5:
        raise parameter_error("strain", "gruneisen", "a float in (0, 0.5)", strain)
    found = _at_volumes(atoms, calculator, np.array([0.0, strain, -strain]), relax_ions, fmax, options)
    from phonopy import PhonopyGruneisen  # after the phonons, which say it where phonopy is missing

    solver: Any = PhonopyGruneisen(*(phonon.phonopy for _, phonon in found))
    solver.set_mesh([int(n) for n in np.broadcast_to(np.asarray(mesh), 3)], is_gamma_center=True)
    qpoints, weights, frequencies, _, parameters = solver.get_mesh()
    acoustic = np.abs(frequencies) < 1e-2
    return Gruneisen(qpoints, np.asarray(weights), frequencies, np.where(acoustic, np.nan, parameters))


def _at_volumes(
    atoms: Atoms,
    calculator: BaseCalculator,
    changes: np.ndarray,
    relax_ions: bool,
    fmax: float,
    options: dict[str, Any],
) -> list[tuple[Atoms, Phonons]]:
    """The crystal at each change of its volume, relaxed where wanted, and its phonons."""
    check_crystal(atoms, "phonons")
    frames = [scaled(atoms, 1.0 + change) for change in changes]
    if relax_ions:
        frames = relaxed(frames, calculator, "volume", fmax=fmax, steps=500)
    else:
        frames = labelled(frames, calculator, "volume")
    return [(frame, phonons(frame, calculator, **options)) for frame in frames]


def _solve(
    volumes: np.ndarray, energies: np.ndarray, temperatures: np.ndarray, thermal: Sequence[Any], pressure: float
) -> Any:
    """Phonopy's solver, run; its units are kJ/mol, J/K/mol and GPa."""
    from ase.units import J, mol
    from phonopy.qha.core import QHA

    joule = mol / J  # eV to J/mol
    solver = QHA(
        volumes,
        energies,
        temperatures,
        np.array([part.heat_capacity for part in thermal]).T * joule,
        np.array([part.entropy for part in thermal]).T * joule,
        np.array([part.free_energy for part in thermal]).T * joule / 1000,
        pressure=pressure,
    )
    solver.run()
    return solver
