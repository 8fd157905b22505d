"""Exploration: pressure compresses, a bias leads to where the potential is unsure, structures are well made."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from asenequip import AllegroCalculator
from asenequip.active.exploration import dynamics, random_structures, rattled, surfaces
from asenequip.active.settings import Dynamics, Random, Rattle, Surfaces

GPA = 160.21766208
"""eV/A^3 in GPa."""


def static_volumes(pressures: list[float]) -> np.ndarray:
    """Volume per atom of fcc copper at 0 K, A^3, from differences of EMT energies."""
    volumes = np.linspace(9.5, 12.5, 61)
    energies = []
    for volume in volumes:
        atoms = bulk("Cu", a=(4 * volume) ** (1 / 3))
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy())
    found = -GPA * np.gradient(energies, volumes)
    return np.interp(pressures, found[::-1], volumes[::-1])


@pytest.mark.slow
def test_a_pressure_ramp_compresses_as_much_as_the_energy_says():
    pressures = [0.0, 20.0]
    ramp = Dynamics(temperatures=[50.0, 50.0], pressures=pressures, steps=240, timestep=10.0, interval=6)
    frames = dynamics(bulk("Cu", cubic=True), EMT(), ramp, seed=0)
    assert [frame.info["origin"] for frame in frames[::40]] == ["50 K 0 GPa, step 6", "50 K 20 GPa, step 6"]
    volumes = np.array([frame.get_volume() for frame in frames]).reshape(2, 40)[:, 20:].mean(axis=1) / 4
    static = static_volumes(pressures)
    assert volumes[1] / volumes[0] == pytest.approx(static[1] / static[0], abs=0.02)  # of 0.11; the cell still rings


def test_a_bias_leads_to_where_the_potential_is_unsure(tmp_path):
    sys.path.append(str(Path(__file__).parents[1] / "train"))
    from train_frames import label_with_emt, small_settings

    from asenequip.train import fit

    path = fit(label_with_emt(8, seed=0), small_settings(tmp_path, uncertainty={"directions": 1})).path
    calculator = AllegroCalculator(path, dtype="float64", device="cpu")
    start = bulk("Cu", cubic=True) * (2, 1, 1)
    start.rattle(0.05, seed=0)

    def doubt(bias: float) -> float:
        settings = Dynamics(temperatures=[300.0], steps=60, interval=20, timestep=2.0, bias=bias)
        frames = dynamics(start, calculator, settings, seed=1)
        assert ("bias" in frames[0].info["origin"]) == (bias > 0)
        return calculator.uncertainty(frames[-1]).energy

    assert doubt(10.0) > 1.5 * doubt(0.0)


def test_structures_are_what_they_are_called():
    copper = bulk("Cu", cubic=True) * (2, 1, 1)
    slabs = list(surfaces([copper], Surfaces(count=4, amplitude=0.0, vacuum=7.0), 0))
    assert len(slabs) == 4
    for slab in slabs:
        height = slab.cell.volume / np.linalg.norm(np.cross(*slab.cell.array[:2]))
        assert (
            height - np.ptp(slab.positions @ (np.cross(*slab.cell[:2]) / np.linalg.norm(np.cross(*slab.cell[:2]))))
            >= 13.9
        )
        assert min(slab.get_all_distances(mic=True)[np.triu_indices(len(slab), 1)]) > 2.5
    for atoms in random_structures([copper], Random(count=3, separation=0.7), 0):
        distances = atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)]
        assert distances.min() > 0.7 * 2 * 1.32 - 1e-9
        assert set(atoms.symbols) == {"Cu"}
    first, second = (next(iter(rattled([copper], Rattle(count=1), seed))) for seed in (0, 1))
    assert not np.allclose(first.positions, second.positions)
    np.testing.assert_array_equal(first.positions, next(iter(rattled([copper], Rattle(count=1), 0))).positions)
