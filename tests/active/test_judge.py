"""Errors on fresh frames and the bound that ends a campaign, of a calculator whose errors are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from asenequip.active.judge import judge


@dataclass
class OffBy:
    """Labels plus an error that the frame names: of each force component (eV/A), and a tenth of it per atom (eV)."""

    rigidity: None = None

    def get_property(self, name: str, atoms: Atoms):
        error = atoms.info["error"]
        return atoms.calc.results[name] + (error if name == "forces" else 0.1 * error * len(atoms))


def fresh_frames(count: int) -> list[Atoms]:
    frames = []
    for k in range(count):
        atoms = bulk("Cu", cubic=True) * (1, 1, 1 + k % 2)
        atoms.info["error"] = 0.1 * (k + 1)
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((len(atoms), 3)))
        frames.append(atoms)
    return frames


def test_errors_are_over_all_atoms_and_the_bound_is_of_the_next_frame():
    frames = fresh_frames(9)
    found = judge(OffBy(), frames, 0.8)
    sizes, errors = np.array([len(atoms) for atoms in frames]), 0.1 * np.arange(1, 10)
    assert found["force_rmse"] == pytest.approx(np.sqrt((sizes * errors**2).sum() / sizes.sum()))
    assert found["energy_rmse"] == pytest.approx(0.1 * np.sqrt((errors**2).mean()))
    assert found["bound"] == pytest.approx(
        0.8
    )  # the tenth frame is as likely at any place: below the eighth in 8 of 10
    assert found["frames"] == 9


def test_too_few_fresh_frames_bound_nothing():
    assert judge(OffBy(), fresh_frames(3), 0.8)["bound"] == np.inf
    assert judge(OffBy(), fresh_frames(4), 0.8)["bound"] == pytest.approx(0.4)
