"""Face-centred cubic crystals of a pair potential: energies, elastic constants and phonons in closed form."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.lj import LennardJones

EPSILON, SIGMA = 0.0104, 3.4
"""Argon-like, eV and Angstrom."""
CUTOFF = 1.3 * SIGMA
"""Angstrom, between the first and the second neighbours: the potential acts between nearest neighbours alone."""
NEAREST = 2 ** (1 / 6) * SIGMA
"""Distance of nearest neighbours in equilibrium, where all pairs are at the minimum."""
MASS = 39.95


def calculator() -> LennardJones:
    return LennardJones(epsilon=EPSILON, sigma=SIGMA, rc=CUTOFF)


def crystal(stretch: float = 1.0, cubic: bool = False) -> Atoms:
    """The crystal with its nearest neighbours at ``stretch`` times the equilibrium distance."""
    atoms = bulk("Ar", "fcc", a=2**0.5 * NEAREST * stretch, cubic=cubic)
    atoms.set_masses([MASS] * len(atoms))
    return atoms


def pair(r: float) -> tuple[float, float, float]:
    """Energy (eV) of a pair, shifted to vanish at the cutoff, and its first two derivatives."""
    x = (SIGMA / r) ** 6
    at_cutoff = (SIGMA / CUTOFF) ** 6
    energy = 4 * EPSILON * (x**2 - x - at_cutoff**2 + at_cutoff)
    return energy, 4 * EPSILON * (6 * x - 12 * x**2) / r, 4 * EPSILON * (156 * x**2 - 42 * x) / r**2


def neighbours(stretch: float = 1.0) -> np.ndarray:
    """Vectors to the twelve nearest neighbours, (12, 3)."""
    signs = [(a, b) for a in (1, -1) for b in (1, -1)]
    vectors = [(a, b, 0) for a, b in signs] + [(a, 0, b) for a, b in signs] + [(0, a, b) for a, b in signs]
    return np.array(vectors) * NEAREST * stretch / 2**0.5


def elastic_constants() -> tuple[float, float, float]:
    """C11, C12 = C44 in equilibrium, GPa: the sum over pairs phi'' x_i x_j x_k x_l / r^2, halved, over the volume."""
    vectors = neighbours()
    _, _, curvature = pair(NEAREST)
    volume = (2**0.5 * NEAREST) ** 3 / 4

    def constant(i: int, j: int, k: int, l: int) -> float:
        products = vectors[:, i] * vectors[:, j] * vectors[:, k] * vectors[:, l]
        return float(curvature * products.sum() / NEAREST**2 / (2 * volume) / units.GPa)

    return constant(0, 0, 0, 0), constant(0, 0, 1, 1), constant(1, 2, 1, 2)


def frequencies(wave_vector: np.ndarray, stretch: float = 1.0) -> np.ndarray:
    """Frequencies (THz, ascending) at a Cartesian wave vector (1/Angstrom, with 2 pi): M. Born's dynamical matrix."""
    vectors = neighbours(stretch)
    _, slope, curvature = pair(NEAREST * stretch)
    matrix = np.zeros((3, 3))
    for vector in vectors:
        along = np.outer(vector, vector) / (NEAREST * stretch) ** 2
        spring = curvature * along + slope / (NEAREST * stretch) * (np.eye(3) - along)
        matrix += spring * (1 - np.cos(vector @ wave_vector))
    squares = np.linalg.eigvalsh(matrix) / MASS
    return np.sqrt(squares) * units.fs * 1e3 / (2 * np.pi)
