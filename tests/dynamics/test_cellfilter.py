"""The filter for moving cells against ASE's."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter

from asenequip.cellfilter import CellFilter

pytestmark = pytest.mark.filterwarnings("ignore:logm result may be inaccurate")

OPTIONS = [
    {},
    {"hydrostatic_strain": True},
    {"constant_volume": True},
    {"scalar_pressure": 0.05},
]


def strained(seed: int = 0) -> Atoms:
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    rng = np.random.default_rng(seed)
    atoms.rattle(0.1, seed=seed)
    atoms.set_cell(atoms.cell @ (np.eye(3) + rng.uniform(-0.05, 0.05, (3, 3))), scale_atoms=True)
    atoms.calc = EMT()
    return atoms


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_coordinates_moved_alike_give_ases_atoms_and_forces(options):
    """Both walk by the same steps in their coordinates, which differ in their origin only."""
    mine, theirs = CellFilter(strained(), **options), FrechetCellFilter(strained(), **options)
    rng = np.random.default_rng(1)
    for _ in range(5):
        step = rng.normal(0.0, 0.05, (len(mine), 3))
        mine.set_positions(mine.get_positions() + step)
        theirs.set_positions(theirs.get_positions() + step)
        assert np.abs(mine.atoms.positions - theirs.atoms.positions).max() < 1e-11
        assert np.abs(mine.atoms.cell.array - theirs.atoms.cell.array).max() < 1e-11
        assert np.abs(mine.get_forces() - theirs.get_forces()).max() < 1e-10
        assert np.abs(mine.stress - theirs.stress).max() < 1e-12


def test_forces_are_the_gradient_in_the_filters_coordinates():
    moved = CellFilter(strained(), scalar_pressure=0.03)
    rng = np.random.default_rng(2)
    moved.set_positions(moved.get_positions() + rng.normal(0.0, 0.1, (len(moved), 3)))
    forces, start = moved.get_forces(), moved.get_positions()
    direction = rng.normal(size=start.shape)
    energies = []
    for k in (-1, 1):
        moved.set_positions(start + k * 1e-4 * direction)
        energies.append(moved.get_potential_energy())
    slope = (energies[1] - energies[0]) / 2e-4
    assert slope == pytest.approx(-np.sum(forces * direction), rel=1e-5)


def test_a_cell_changed_by_others_is_noticed():
    mine, theirs = CellFilter(strained()), FrechetCellFilter(strained())
    for target in (mine, theirs):
        target.atoms.set_cell(target.atoms.cell.array * [[1.02], [1.0], [0.99]], scale_atoms=True)
    assert np.abs(mine.get_forces() - theirs.get_forces()).max() < 1e-10


def test_a_symmetry_that_is_kept_has_its_word():
    pytest.importorskip("spglib")
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell([3.7, 3.7, 3.6], scale_atoms=True)
    atoms.calc = EMT()
    atoms.set_constraint(FixSymmetry(atoms))
    mine = CellFilter(atoms)
    step = np.zeros((7, 3))
    step[4:] = [[0.05, 0.02, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, -0.05]]
    mine.set_positions(mine.get_positions() + step)
    lengths = atoms.cell.lengths()
    assert lengths[0] == pytest.approx(lengths[1], abs=1e-12)
    assert mine.get_positions()[4:].sum() != 0.0
