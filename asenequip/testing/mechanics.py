"""Checks of the derivatives: forces and stress are those of the energy, smooth, and add up to nothing."""

from __future__ import annotations

import itertools

import numpy as np
from ase import Atoms

from asenequip.testing.differences import finite_difference_forces, finite_difference_stress
from asenequip.testing.report import require
from asenequip.testing.subject import Subject, require_close


def forces_are_differences(subject: Subject) -> None:
    """Forces are minus the finite differences of the energy."""
    named = subject.systems()
    for name in ("cluster", "skewed TTT", "left-handed TFT", "one atom, small cell", "slab with vacuum"):
        atoms = subject.attach(named[name])
        chosen = sorted({0, len(atoms) - 1})
        found = atoms.get_forces()[chosen]
        expected = finite_difference_forces(atoms, subject.tolerances.step, chosen)
        require_close(found, expected, subject.tolerances.difference, f"{name}: forces")


def stress_is_differences(subject: Subject) -> None:
    """The stress is the finite difference of the energy with the strain, over |det cell|, tension positive."""
    subject.needs("stress")
    named = subject.systems()
    for name in ("skewed TTT", "left-handed TTT", "one atom, small cell", "slab with vacuum"):
        atoms = subject.attach(named[name])
        found = atoms.get_stress()
        expected = finite_difference_stress(atoms, subject.tolerances.step / 5)
        require_close(found, expected, subject.tolerances.difference, f"{name}: stress")


def no_net_force_or_torque(subject: Subject) -> None:
    """Forces of an isolated structure sum to nothing, and so do their torques."""
    for name, atoms in subject.systems().items():
        if len(atoms) and not atoms.pbc.any() and np.abs(atoms.positions).max() < 1e3:
            forces = subject.values(atoms)["forces"]
            scale = max(1.0, float(np.abs(forces).max()))
            limit = len(atoms) * subject.tolerances.forces * scale
            require(np.abs(forces.sum(axis=0)).max() <= limit, f"{name}: net force {forces.sum(axis=0)}")
            torque = np.cross(atoms.positions - atoms.positions.mean(axis=0), forces).sum(axis=0)
            size = 1.0 + np.ptp(atoms.positions, axis=0).max()
            require(np.abs(torque).max() <= limit * size, f"{name}: net torque {torque}")


def no_net_force_in_a_crystal(subject: Subject) -> None:
    """Forces of a periodic structure sum to nothing."""
    for kind in ("orthorhombic", "rotated", "left-handed"):
        forces = subject.values(subject.crystal(kind))["forces"]
        limit = len(forces) * subject.tolerances.forces * max(1.0, float(np.abs(forces).max()))
        require(np.abs(forces.sum(axis=0)).max() <= limit, f"{kind}: net force {forces.sum(axis=0)}")


def smooth_at_the_cutoff(subject: Subject) -> None:
    """Force and its slope go to zero where two atoms leave each other's cutoff."""
    reach = subject.reach()
    steps = np.array([1e-2, 1e-3, 1e-4])
    symbols = [subject.symbols[0], subject.symbols[-1]]
    forces = []
    for gap in steps:
        pair = Atoms(symbols, positions=[[0, 0, 0], [0, 0, reach - gap]])
        forces.append(abs(float(subject.values(pair)["forces"][1, 2])))
    beyond = subject.values(Atoms(symbols, positions=[[0, 0, 0], [0, 0, reach * 1.000001]]))["forces"]
    require(not beyond.any(), "a force beyond the cutoff")
    noise = subject.tolerances.forces * 1e-3
    for larger, smaller in itertools.pairwise(forces):
        # a force that vanishes as gap^2 falls by 100 for a tenth of the gap; one with a slope, by 10 only
        require(smaller <= larger / 30 + noise, f"forces {forces} at {steps.tolist()} A before the cutoff")


CHECKS = (
    forces_are_differences,
    stress_is_differences,
    no_net_force_or_torque,
    no_net_force_in_a_crystal,
    smooth_at_the_cutoff,
)
