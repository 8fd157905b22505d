"""The Li6PS5Cl frames that the package ships: what the file holds, and whether its labels are those of GFN1-xTB."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import iread

SIZE_LIMIT = 1_000_000  # bytes: the file travels in the wheel
COMPOSITION = {"Li": 24, "P": 4, "S": 20, "Cl": 4}  # four formula units
BLOCK_DISTANCE = 20.0  # fs: kept frames are 10 fs apart, and one is left out between blocks

# Half of the last stored digit, eV, eV/A, eV/A^3.
ENERGY_ROUNDING, FORCE_ROUNDING, STRESS_ROUNDING = 0.5e-6, 0.5e-5, 0.5e-8
# What another build of tblite may add at LABEL_ACCURACY: its self-consistent cycle stops at about 1e-6 eV/A.
ENERGY_NOISE, FORCE_NOISE, STRESS_NOISE = 1e-6, 1e-5, 1e-7
LABEL_ACCURACY = 0.01

STRAIN_STEP = 1e-3  # linear strain of the finite difference
PRESSURE_TOLERANCE = 2e-5  # eV/A^3: second-order error of the step, and the energies' noise over the volume change


@pytest.fixture(scope="module")
def frames() -> list[Atoms]:
    with as_file(files("asenequip.data") / "li6ps5cl_gfn1.extxyz.gz") as path:
        return list(iread(path, index=":", format="extxyz"))


def gfn1_xtb() -> Calculator:
    reason = "needs tblite (pip install tblite), which computed the labels"
    return pytest.importorskip("tblite.ase", reason=reason).TBLite(
        method="GFN1-xTB", accuracy=LABEL_ACCURACY, verbosity=0
    )


def unlabelled(frame: Atoms) -> Atoms:
    return Atoms(frame.symbols, positions=frame.positions, cell=frame.cell, pbc=True)


def test_file_is_small() -> None:
    with as_file(files("asenequip.data") / "li6ps5cl_gfn1.extxyz.gz") as path:
        assert path.stat().st_size <= SIZE_LIMIT


def test_number_of_frames(frames: list[Atoms]) -> None:
    assert 150 <= len(frames) <= 320


def test_every_frame_is_four_formula_units(frames: list[Atoms]) -> None:
    for frame in frames:
        symbols = frame.get_chemical_symbols()
        assert {symbol: symbols.count(symbol) for symbol in set(symbols)} == COMPOSITION
        assert frame.pbc.all()


def test_labels_are_finite_single_point_results(frames: list[Atoms]) -> None:
    for frame in frames:
        assert isinstance(frame.calc, SinglePointCalculator)
        for name, shape in (("energy", ()), ("forces", (52, 3)), ("stress", (6,))):
            value = np.asarray(frame.calc.results[name])
            assert value.shape == shape
            assert np.isfinite(value).all()


def test_net_force_vanishes(frames: list[Atoms]) -> None:
    for frame in frames:
        assert np.abs(frame.get_forces().sum(axis=0)).max() <= len(frame) * FORCE_ROUNDING


def test_no_frame_is_stored_twice(frames: list[Atoms]) -> None:
    assert len({frame.positions.tobytes() for frame in frames}) == len(frames)


def test_frames_of_different_splits_are_apart_in_time(frames: list[Atoms]) -> None:
    for first in frames:
        for second in frames:
            same_trajectory = first.info["trajectory"] == second.info["trajectory"]
            if same_trajectory and first.info["split"] != second.info["split"]:
                assert abs(first.info["time_fs"] - second.info["time_fs"]) >= BLOCK_DISTANCE


def test_one_trajectory_is_for_testing_only(frames: list[Atoms]) -> None:
    seen: dict[int, set[str]] = {}
    for frame in frames:
        seen.setdefault(frame.info["trajectory"], set()).add(frame.info["split"])
    assert sorted(map(sorted, seen.values())) == [["test"]] + [["test", "train", "valid"]] * (len(seen) - 1)


def test_held_out_combination_is_new_at_a_trained_temperature(frames: list[Atoms]) -> None:
    trained = {(f.info["temperature"], f.info["strain"]) for f in frames if f.info["split"] == "train"}
    tested = {(f.info["temperature"], f.info["strain"]) for f in frames if f.info["split"] == "test"}
    (temperature, _), *others = tested - trained
    assert not others
    assert temperature in {trained_temperature for trained_temperature, _ in trained}


def test_tblite_reproduces_the_labels(frames: list[Atoms]) -> None:
    frame = frames[len(frames) // 2]
    again = unlabelled(frame)
    again.calc = gfn1_xtb()
    assert again.get_potential_energy() == pytest.approx(
        frame.get_potential_energy(), rel=0, abs=ENERGY_ROUNDING + ENERGY_NOISE
    )
    np.testing.assert_allclose(again.get_forces(), frame.get_forces(), rtol=0, atol=FORCE_ROUNDING + FORCE_NOISE)
    np.testing.assert_allclose(again.get_stress(), frame.get_stress(), rtol=0, atol=STRESS_ROUNDING + STRESS_NOISE)


@pytest.mark.slow
def test_stress_is_the_derivative_of_the_energy_with_volume(frames: list[Atoms]) -> None:
    """A third of the trace of ASE's stress is dE/dV: minus the pressure."""
    frame = max(frames, key=lambda f: abs(f.get_stress()[:3].sum()))
    energies, volumes = [], []
    for sign in (-1, 1):
        strained = unlabelled(frame)
        strained.set_cell(frame.cell.array * (1 + sign * STRAIN_STEP), scale_atoms=True)
        strained.calc = gfn1_xtb()
        energies.append(strained.get_potential_energy())
        volumes.append(strained.get_volume())
    slope = (energies[1] - energies[0]) / (volumes[1] - volumes[0])
    assert frame.get_stress()[:3].mean() == pytest.approx(slope, rel=0, abs=PRESSURE_TOLERANCE)
