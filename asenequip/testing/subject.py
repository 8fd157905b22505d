"""The calculator under test, with the elements, lengths and tolerances that the checks need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from asenequip.testing.report import NotApplicable, require
from asenequip.testing.systems import random_cluster, random_crystal, systems

Values = dict[str, Any]


@dataclass(frozen=True)
class Tolerances:
    """How far two numbers may differ that should be one; relative to 1 or the largest entry, if that is larger.

    Attributes
    ----------
    energy : float
        eV per atom.
    forces : float
        eV/Angstrom.
    stress : float
        eV/Angstrom^3.
    difference : float
        Between analytic derivatives and finite differences.
    step : float
        Displacement of the finite differences, Angstrom.
    """

    energy: float
    forces: float
    stress: float
    difference: float
    step: float


DOUBLE = Tolerances(energy=1e-10, forces=1e-9, stress=1e-10, difference=1e-7, step=1e-3)
"""For networks in float64: rounding of sums in another order; finite differences as exact as they can be."""

SINGLE = Tolerances(energy=1e-5, forces=5e-4, stress=5e-5, difference=2e-2, step=2e-2)
"""For networks in float32."""


@dataclass(frozen=True)
class Subject:
    """Calculator, elements, cutoff (None if unknown), tolerances, seed of all randomness."""

    calc: Calculator
    symbols: tuple[str, ...]
    cutoff: float | None
    tolerances: Tolerances
    seed: int

    def rng(self) -> np.random.Generator:
        """Randomness, the same for every check."""
        return np.random.default_rng(self.seed)

    def systems(self) -> dict[str, Atoms]:
        """The named structures."""
        return systems(self.symbols, self.seed, self.cutoff or 5.0)

    def cluster(self, count: int = 5) -> Atoms:
        """A cluster without a cell."""
        return random_cluster(self.symbols, count, self.rng())

    def crystal(self, kind: str = "skewed") -> Atoms:
        """Four atoms in a small periodic cell."""
        return random_crystal(self.symbols, kind, self.rng())

    def has(self, name: str) -> bool:
        """Whether the calculator says that it has a property."""
        return name in self.calc.implemented_properties

    def needs(self, *names: str) -> None:
        """Skip the check unless the calculator has these properties."""
        for name in names:
            if not self.has(name):
                raise NotApplicable(f"the calculator has no {name}")

    def reach(self) -> float:
        """The cutoff, or skip the check."""
        if self.cutoff is None:
            raise NotApplicable("no cutoff was given")
        return self.cutoff

    def attach(self, atoms: Atoms, calc: Calculator | None = None) -> Atoms:
        """A copy of the atoms that carries the calculator."""
        copy = atoms.copy()
        copy.calc = self.calc if calc is None else calc
        return copy

    def values(self, atoms: Atoms, calc: Calculator | None = None) -> Values:
        """All properties that the checks compare, of a copy of the atoms."""
        copy = self.attach(atoms, calc)
        found: Values = {"energy": copy.get_potential_energy(), "forces": copy.get_forces(apply_constraint=False)}
        if self.has("energies"):
            found["energies"] = copy.get_potential_energies()
        if self.has("stress") and atoms.cell.rank == 3:
            found["stress"] = copy.get_stress()
        return found

    def same(self, first: Values, second: Values, what: str) -> None:
        """Require equality within the tolerances."""
        count = max(1, len(first["forces"]))
        for name in first.keys() & second.keys():
            tolerance = {"energy": count * self.tolerances.energy, "energies": self.tolerances.energy}.get(
                name, getattr(self.tolerances, name, None)
            )
            if tolerance is not None:
                require_close(first[name], second[name], tolerance, f"{what}: {name}")

    @contextmanager
    def counting(self) -> Iterator[list[int]]:
        """Count the calls of ``calculate`` in the first entry of a list."""
        calc, calls = self.calc, [0]
        original = calc.calculate

        def calculate(*args: Any, **kwargs: Any) -> None:
            calls[0] += 1
            original(*args, **kwargs)

        calc.calculate = calculate  # type: ignore[method-assign]
        try:
            yield calls
        finally:
            del calc.calculate


def require_close(found: Any, expected: Any, tolerance: float, what: str) -> None:
    """Require equality within ``tolerance`` times the larger of 1 and the largest entry."""
    a, b = np.asarray(found, float), np.asarray(expected, float)
    require(a.shape == b.shape, f"{what}: shape {a.shape} in place of {b.shape}")
    scale = max(1.0, float(np.abs(b).max(initial=0.0)))
    error = float(np.abs(a - b).max(initial=0.0))
    require(error <= tolerance * scale, f"{what} differs by {error:.3e}, allowed {tolerance * scale:.1e}")


def require_identical(first: Values, second: Values, what: str) -> None:
    """Require equality bit for bit."""
    for name in first.keys() & second.keys():
        a, b = np.asarray(first[name]), np.asarray(second[name])
        same = a.shape == b.shape and np.array_equal(a, b)
        gap = np.abs(a - b).max(initial=0.0) if a.shape == b.shape else np.inf
        require(same, f"{what}: {name} is not the same bit for bit (off by {gap:.1e})")


def as_symbols(symbols: str | Sequence[str]) -> tuple[str, ...]:
    """A tuple of chemical symbols."""
    return (symbols,) if isinstance(symbols, str) else tuple(symbols)
