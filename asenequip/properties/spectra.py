"""What follows from force constants: bands, density of states, thermal properties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import units

_SMALLEST = 1e-2
"""THz; what lies below is an acoustic mode at the zone centre, up to rounding, and does not count in sums."""
_PER_MOL = 1000.0 * units.J / units.mol  # kJ/mol in eV


@dataclass(frozen=True)
class Bands:
    """Frequencies along the paths between the special points of the Brillouin zone.

    Attributes
    ----------
    qpoints : tuple of (k, 3) float64
        One array for each line; in units of the primitive cell's reciprocal vectors.
    distances : tuple of (k,) float64
        Along the whole path, 1/Angstrom (without 2 pi).
    frequencies : tuple of (k, 3p) float64
        THz, ascending; an imaginary one is negative.
    labels : tuple of (str, str)
        Names of the ends of each line.
    group_velocities : tuple of (k, 3p, 3) float64, or None
        Angstrom THz, that is 100 m/s.
    """

    qpoints: tuple[np.ndarray, ...]
    distances: tuple[np.ndarray, ...]
    frequencies: tuple[np.ndarray, ...]
    labels: tuple[tuple[str, str], ...]
    group_velocities: tuple[np.ndarray, ...] | None

    @property
    def ticks(self) -> tuple[list[float], list[str]]:
        """Where the special points stand on the axis of distances, and their names; "X|U" where the path jumps."""
        places, names = [float(self.distances[0][0])], [self.labels[0][0]]
        for number, (distances, (start, end)) in enumerate(zip(self.distances, self.labels, strict=True)):
            if number and start != names[-1]:
                names[-1] += f"|{start}"
            places.append(float(distances[-1]))
            names.append(end)
        return places, [name.replace("GAMMA", "Γ") for name in names]


@dataclass(frozen=True)
class DensityOfStates:
    """Density of states per primitive cell.

    Attributes
    ----------
    frequencies : (f,) float64
        THz.
    density : (f,) float64
        1/THz; its integral is the number of modes, 3p.
    """

    frequencies: np.ndarray
    density: np.ndarray


@dataclass(frozen=True)
class ThermalProperties:
    """Harmonic thermal properties at constant volume, per primitive cell.

    Attributes
    ----------
    temperatures : (t,) float64
        K.
    free_energy : (t,) float64
        Free energy of the vibrations, zero point included, eV.
    entropy : (t,) float64
        eV/K.
    heat_capacity : (t,) float64
        eV/K.
    imaginary : float
        Part of the modes that are imaginary; they are left out, and where there are any the rest means little.
    """

    temperatures: np.ndarray
    free_energy: np.ndarray
    entropy: np.ndarray
    heat_capacity: np.ndarray
    imaginary: float


def bands(phonopy: Any, points: int, group_velocities: bool) -> Bands:
    """Frequencies along the path of Hinuma and others (Comput. Mater. Sci. 128, 140 (2017)), found by seekpath."""
    try:
        import seekpath
    except ImportError:
        raise ImportError("Band paths need seekpath. Install it: pip install 'asenequip[properties]'") from None
    primitive = phonopy.primitive
    cell = (primitive.cell, primitive.scaled_positions, primitive.numbers)
    path = seekpath.get_path_orig_cell(cell)  # in this cell's own axes, whichever setting it has
    ends, places = [tuple(line) for line in path["path"]], path["point_coords"]
    lines = [np.linspace(places[start], places[end], points) for start, end in ends]
    phonopy.run_band_structure(lines, with_group_velocities=group_velocities)
    found = phonopy.band_structure
    velocities = tuple(np.array(v) for v in found.group_velocities) if group_velocities else None
    return Bands(
        tuple(lines),
        tuple(np.array(d) for d in found.distances),
        tuple(np.array(f) for f in found.frequencies),
        tuple(ends),
        velocities,
    )


def density_of_states(phonopy: Any, mesh: Sequence[int], width: float | None) -> DensityOfStates:
    """Density of states on a mesh, by tetrahedra or, with a width in THz, by Gaussians."""
    phonopy.run_mesh(mesh, is_gamma_center=True)
    phonopy.run_total_dos(sigma=width)
    found = phonopy.total_dos
    return DensityOfStates(np.array(found.frequency_points), np.array(found.dos))


def thermal_properties(phonopy: Any, mesh: Sequence[int], temperatures: np.ndarray) -> ThermalProperties:
    """Thermal properties summed over a mesh."""
    phonopy.run_mesh(mesh, is_gamma_center=True)
    sampled = phonopy.mesh
    phonopy.run_thermal_properties(temperatures=temperatures, cutoff_frequency=_SMALLEST)
    found = phonopy.thermal_properties
    weights = np.asarray(sampled.weights, np.float64)
    imaginary = float(weights @ (np.asarray(sampled.frequencies) < -_SMALLEST).mean(axis=1) / weights.sum())
    _, free_energy, entropy, heat_capacity = (np.asarray(values, np.float64) for values in found.thermal_properties)
    return ThermalProperties(
        np.asarray(temperatures, np.float64),
        free_energy * _PER_MOL,
        entropy * _PER_MOL / 1000,
        heat_capacity * _PER_MOL / 1000,
        imaginary,
    )
