"""What a dynamics is made of: its settings, its start velocities, ASE's integrator for it, and the numbers it shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.md import MolecularDynamics

from asenequip.errors import parameter_error

ENSEMBLES = ("nvt", "nve", "npt")
THERMOSTATS = {"nvt": ("langevin", "nose-hoover", "bussi"), "npt": ("nose-hoover",), "nve": ("none",)}
COLUMNS = (
    "step",
    "time_ps",
    "temperature_K",
    "kinetic_eV",
    "potential_eV",
    "total_eV",
    "conserved_eV",
    "pressure_GPa",
    "volume_A3",
    "max_force_eV_A",
)
"""Columns of the table of numbers; empty where the ensemble or the cell has no such number."""

PARTS = ("_thermostat", "_barostat")
"""Objects inside ASE's chain integrators that hold variables too."""


@dataclass(frozen=True)
class Settings:
    """What defines the dynamics; kept in the state, and the same after a restart.

    Attributes
    ----------
    ensemble : {"nvt", "nve", "npt"}
    thermostat : {"langevin", "nose-hoover", "bussi"}, optional
        "langevin" for nvt and "nose-hoover" for npt if None.
    cell : {"isotropic", "full"}
        What of the cell moves at constant pressure: its volume alone, or all three vectors.
    temperature : float
        Kelvin; for nve, the temperature of the velocities drawn at the start.
    pressure : float
        GPa, for npt.
    timestep : float
        fs.
    damping, pressure_damping : float
        Time constants of thermostat and barostat, fs; Langevin's friction is 1/damping.
    seed : int
        Seed of the initial velocities and of the random forces.
    interval : int
        Steps from one frame, table row and state to the next.
    """

    ensemble: str = "nvt"
    thermostat: str | None = None
    cell: str = "isotropic"
    temperature: float = 300.0
    pressure: float = 0.0
    timestep: float = 1.0
    damping: float = 100.0
    pressure_damping: float = 1000.0
    seed: int = 0
    interval: int = 10

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, np.generic):  # JSON, which keeps the settings, knows Python's numbers alone
                object.__setattr__(self, name, value.item())
        if self.ensemble not in ENSEMBLES:
            raise parameter_error("ensemble", "run_md", _one_of(ENSEMBLES), self.ensemble)
        known = THERMOSTATS[self.ensemble]
        if self.thermostat is None:
            object.__setattr__(self, "thermostat", known[0])
        if self.thermostat not in known:
            wanted = f"{_one_of(known)} for the {self.ensemble} ensemble"
            raise parameter_error("thermostat", "run_md", wanted, self.thermostat)
        if self.cell not in ("isotropic", "full"):
            raise parameter_error("cell", "run_md", _one_of(("isotropic", "full")), self.cell)
        for name in ("timestep", "damping", "pressure_damping"):
            self._positive(name)
        if self.ensemble != "nve" or self.temperature != 0:
            self._positive("temperature")
        if not math.isfinite(self.pressure):
            raise parameter_error("pressure", "run_md", "a finite number of GPa", self.pressure)
        for name, low in (("seed", 0), ("interval", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < low:
                raise parameter_error(name, "run_md", f"an integer >= {low}", value)

    def _positive(self, name: str) -> None:
        value = getattr(self, name)
        if not (isinstance(value, (int, float)) and 0 < value < math.inf):
            raise parameter_error(name, "run_md", "a float in (0, inf)", value)


def _one_of(choices: tuple[str, ...]) -> str:
    return "one of " + ", ".join(f'"{choice}"' for choice in choices)


def draw_velocities(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Give atoms Maxwell-Boltzmann momenta at a temperature in K, the drift of the whole taken off."""
    masses = atoms.get_masses()[:, None]
    velocities = rng.standard_normal((len(atoms), 3)) * np.sqrt(units.kB * temperature / masses)
    if len(atoms) > 1:
        velocities -= (masses * velocities).sum(axis=0) / masses.sum()
    atoms.set_momenta(masses * velocities)


def make_integrator(atoms: Atoms, settings: Settings, rng: np.random.Generator) -> MolecularDynamics:
    """ASE's integrator for the settings, in ASE's units."""
    step, damping = settings.timestep * units.fs, settings.damping * units.fs
    if settings.ensemble == "nve":
        from ase.md.verlet import VelocityVerlet

        return VelocityVerlet(atoms, step)
    if settings.ensemble == "npt":
        from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT

        kind = IsotropicMTKNPT if settings.cell == "isotropic" else MTKNPT
        return kind(
            atoms,
            step,
            temperature_K=settings.temperature,
            pressure_au=settings.pressure * units.GPa,
            tdamp=damping,
            pdamp=settings.pressure_damping * units.fs,
        )
    if settings.thermostat == "nose-hoover":
        from ase.md.nose_hoover_chain import NoseHooverChainNVT

        return NoseHooverChainNVT(atoms, step, temperature_K=settings.temperature, tdamp=damping)
    if settings.thermostat == "bussi":
        from ase.md.bussi import Bussi

        return Bussi(atoms, step, temperature_K=settings.temperature, taut=damping, rng=rng)
    from ase.md.langevin import Langevin

    return Langevin(atoms, step, temperature_K=settings.temperature, friction=1 / damping, fixcm=False, rng=rng)


def measure(atoms: Atoms, integrator: MolecularDynamics) -> tuple[dict[str, Any], dict[str, Any]]:
    """The numbers of a table row (None where there is none), and the results that go with a frame."""
    kinetic, potential = float(atoms.get_kinetic_energy()), float(atoms.get_potential_energy())
    forces = atoms.get_forces(apply_constraint=False)
    results = {"energy": potential, "forces": forces}
    pressure = volume = None
    if atoms.cell.rank == 3:
        volume = float(atoms.get_volume())
        if "stress" in getattr(atoms.calc, "implemented_properties", ()):
            results["stress"] = atoms.get_stress(apply_constraint=False)
            total = atoms.get_stress(include_ideal_gas=True, apply_constraint=False)
            pressure = float(-total[:3].mean() / units.GPa)
    numbers = {
        "step": integrator.nsteps,
        "time_ps": integrator.nsteps * integrator.dt / (1000 * units.fs),
        "temperature_K": float(atoms.get_temperature()),
        "kinetic_eV": kinetic,
        "potential_eV": potential,
        "total_eV": potential + kinetic,
        "conserved_eV": _conserved(integrator, potential + kinetic),
        "pressure_GPa": pressure,
        "volume_A3": volume,
        "max_force_eV_A": float(np.linalg.norm(forces, axis=1).max()),
    }
    return numbers, results


def _conserved(integrator: MolecularDynamics, total: float) -> float | None:
    """The quantity, eV, that the equations of motion keep; None where there is none."""
    if hasattr(integrator, "get_conserved_energy"):
        try:
            return float(integrator.get_conserved_energy())
        except PropertyNotImplementedError:  # a calculator without free_energy
            return None
    if hasattr(integrator, "transferred_energy"):
        return total - float(integrator.transferred_energy)
    return total if type(integrator).__name__ == "VelocityVerlet" else None
