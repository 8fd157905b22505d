"""Phonons of a pair crystal against its closed form; thermal properties, expansion, Gruneisen parameters."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from pair_crystals import calculator, crystal, frequencies
from scipy.integrate import trapezoid

pytest.importorskip("phonopy")

from asenequip.properties import gruneisen, phonons, quasiharmonic
from asenequip.properties.phonons import supercell_matrix

POINTS = [[0.5, 0.5, 0.0], [0.5, 0.5, 0.5], [0.25, 0.25, 0.0], [0.5, 0.0, 0.0]]
"""Wave vectors that a 4 x 4 x 4 supercell holds exactly, in units of the primitive reciprocal vectors."""


def cartesian(atoms: Atoms, qpoint) -> np.ndarray:
    return 2 * np.pi * np.asarray(qpoint) @ np.asarray(atoms.cell.reciprocal())


@pytest.mark.parametrize("stretch", [1.0, 0.98], ids=["equilibrium", "compressed"])
def test_pair_crystal_has_the_phonons_of_its_closed_form(stretch):
    atoms = crystal(stretch)
    found = phonons(atoms, calculator(), supercell=4, order=6).frequencies(POINTS)
    expected = [frequencies(cartesian(atoms, qpoint), stretch) for qpoint in POINTS]
    np.testing.assert_allclose(found, expected, atol=1e-6)  # THz


def test_a_higher_order_is_nearer_to_the_closed_form():
    atoms = crystal()
    expected = np.array([frequencies(cartesian(atoms, qpoint)) for qpoint in POINTS])
    errors = [
        np.abs(
            phonons(atoms, calculator(), supercell=4, distance=0.05, order=order).frequencies(POINTS) - expected
        ).max()
        for order in (2, 4, 6)
    ]
    assert errors[1] < 0.1 * errors[0]
    assert errors[2] < 0.1 * errors[1]


def test_second_order_is_what_the_phonons_of_ase_give(tmp_path):
    from ase.phonons import Phonons as PhononsOfASE

    atoms = bulk("Al", a=4.0)
    theirs = PhononsOfASE(atoms, EMT(), supercell=(4, 4, 4), delta=1e-3, name=str(tmp_path / "phonon"))
    theirs.run()
    theirs.read(acoustic=True)
    mine = phonons(atoms, EMT(), supercell=4, distance=1e-3)
    for qpoint in POINTS:
        expected = np.sort(theirs.band_structure([qpoint])[0]) * units._e / units._hplanck * 1e-12
        # the displacements have other directions: second order in 0.001 Angstrom
        np.testing.assert_allclose(mine.frequencies(qpoint)[0], expected, atol=1e-5)


def test_thermal_properties_are_sums_over_modes():
    found = phonons(crystal(), calculator(), supercell=4)
    thermal = found.thermal_properties([0.0, 50.0, 2000.0], mesh=5)
    mesh = found.phonopy.mesh
    modes, weights = np.asarray(mesh.frequencies), np.asarray(mesh.weights) / np.sum(mesh.weights)
    energies = np.where(modes > 1e-2, modes, np.nan) * 1e12 * units._hplanck / units._e
    expected = np.nansum(weights[:, None] * energies) / 2
    assert thermal.free_energy[0] == pytest.approx(expected, rel=1e-6)
    x = energies / (units.kB * 50.0)
    expected += units.kB * 50.0 * np.nansum(weights[:, None] * np.log(-np.expm1(-x)))
    assert thermal.free_energy[1] == pytest.approx(expected, abs=1e-7)  # k_B of another CODATA year
    # Dulong and Petit, less the three modes at the zone centre that are left out
    counted = np.nansum(weights[:, None] * np.isfinite(energies))
    assert thermal.heat_capacity[2] == pytest.approx(counted * units.kB, rel=1e-3)
    assert thermal.imaginary == 0
    density = found.density_of_states(12)
    assert trapezoid(density.density, density.frequencies) == pytest.approx(3.0, rel=5e-3)


def test_an_unstable_crystal_shows_imaginary_modes():
    atoms = bulk("Cu", "bcc", a=2.86)
    thermal = phonons(atoms, EMT(), supercell=3).thermal_properties([300.0], mesh=6)
    assert 0.02 < thermal.imaginary < 0.5


def test_bands_follow_the_closed_form_between_special_points():
    atoms = crystal()
    found = phonons(atoms, calculator(), supercell=4, order=6)
    bands = found.bands(5, group_velocities=True)
    assert bands.labels[0] == ("GAMMA", "X")
    for qpoints, branches in zip(bands.qpoints, bands.frequencies, strict=True):
        for qpoint, values in zip(qpoints, branches, strict=True):
            np.testing.assert_allclose(values, frequencies(cartesian(atoms, qpoint)), atol=2e-4)
    # group velocity along the line to X: the slope of the closed form by differences
    start, end = bands.qpoints[0][1], bands.qpoints[0][2]
    step = (end - start) / np.linalg.norm(cartesian(atoms, end - start)) * 1e-4
    slope = frequencies(cartesian(atoms, start + step)) - frequencies(cartesian(atoms, start - step))
    velocities = np.linalg.norm(bands.group_velocities[0][1], axis=1)
    np.testing.assert_allclose(velocities, np.abs(slope) / 2e-4 * 2 * np.pi, rtol=2e-3)


def test_gruneisen_parameters_need_phonopy_and_say_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "phonopy", None)
    with pytest.raises(ImportError, match=r"pip install 'asenequip\[properties\]'"):
        gruneisen(crystal(), calculator(), relax_ions=False)


def test_gruneisen_parameters_are_those_of_the_closed_form():
    atoms = crystal()
    found = gruneisen(atoms, calculator(), supercell=4, mesh=4, strain=0.003, order=4)
    checked = 0
    for qpoint, parameters in zip(found.qpoints, found.parameters, strict=True):
        if not np.abs(qpoint).max() > 0:
            assert np.isnan(parameters).all()
            continue
        up, down = (
            frequencies(2 * np.pi * qpoint @ np.asarray(crystal(s).cell.reciprocal()), s) for s in (1.001, 0.999)
        )
        expected = -np.log(up / down) / np.log(1.001 / 0.999) / 3
        np.testing.assert_allclose(np.sort(parameters), np.sort(expected), rtol=2e-3)
        checked += 1
    assert checked >= 3


def test_thermal_expansion_obeys_gruneisens_law():
    """alpha V B = sum of gamma c over the modes: exact thermodynamics of a harmonic crystal at each volume."""
    atoms = crystal()
    found = quasiharmonic(
        atoms,
        calculator(),
        supercell=2,
        mesh=4,
        temperatures=np.arange(0.0, 31.0, 2.0),
        strains=np.linspace(-0.03, 0.09, 7),
    )
    row = 8
    kelvin, volume = found.temperatures[row], found.volumes[row]
    there = crystal((volume / atoms.get_volume()) ** (1 / 3))
    modes = gruneisen(there, calculator(), supercell=2, mesh=4, strain=0.003)
    x = (
        np.where(modes.frequencies > 1e-2, modes.frequencies, np.nan)
        * 1e12
        * units._hplanck
        / units._e
        / units.kB
        / kelvin
    )
    heat = units.kB * (x / 2 / np.sinh(x / 2)) ** 2
    total = np.nansum(modes.weights[:, None] * modes.parameters * heat) / modes.weights.sum()
    expected = total / volume / (found.bulk_modulus[row] * units.GPa)
    assert found.expansion[row] == pytest.approx(expected, rel=0.02)  # the fit of Vinet's curve to seven volumes


def test_quasiharmonic_volumes_must_bracket_the_answer():
    with pytest.raises(ValueError, match="outside of the volumes"):
        quasiharmonic(
            crystal(),
            calculator(),
            supercell=2,
            mesh=4,
            temperatures=[0.0, 20.0, 40.0, 60.0],
            strains=np.linspace(-0.04, 0.01, 6),
        )


def test_born_charges_split_the_optical_modes(tmp_path):
    """omega_LO^2 - omega_TO^2 = e^2 Z^2 / (epsilon_0 epsilon V mu), R. H. Lyddane, R. G. Sachs and E. Teller."""
    charge, epsilon = 1.2, 4.0
    diagonals = [" ".join(f"{x:g}" for x in (value * np.eye(3)).ravel()) for value in (epsilon, charge, -charge)]
    (tmp_path / "BORN").write_text("\n".join(["14.399652", *diagonals]) + "\n")
    atoms = bulk("CuAu", "cesiumchloride", a=3.1)
    transverse = phonons(atoms, EMT(), supercell=2).frequencies([0.0, 0.0, 0.0])[0][3:]
    assert np.ptp(transverse) < 1e-6
    found = phonons(atoms, EMT(), supercell=2, born=tmp_path / "BORN").frequencies([1e-3, 0.0, 0.0])[0]
    splitting = 4 * np.pi * 14.399652 * charge**2 / (epsilon * atoms.get_volume()) * np.sum(1 / atoms.get_masses())
    to_terahertz = units.fs * 1e3 / (2 * np.pi)
    expected = np.hypot(transverse[0], np.sqrt(splitting) * to_terahertz)
    assert found[-1] == pytest.approx(expected, rel=1e-4)
    assert found[3:5] == pytest.approx(transverse[:2], rel=1e-4)


def test_supercells():
    atoms = crystal(cubic=True)  # 5.4 Angstrom
    assert np.array_equal(supercell_matrix(atoms, None), 3 * np.eye(3))
    assert np.array_equal(supercell_matrix(atoms, [1, 2, 3]), np.diag([1, 2, 3]))
    primitive = [[-1, 1, 1], [1, -1, 1], [1, 1, -1]]
    assert np.array_equal(supercell_matrix(crystal(), primitive), primitive)
    for wrong in (0, 2.5, [2, 2], [[1, 0, 0], [0, 1, 0], [0, 0, 0]]):
        with pytest.raises(ValueError, match="'supercell' parameter of phonons"):
            supercell_matrix(atoms, wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "magic"}, "'method' parameter of phonons must be one of 'displacements', 'hessian'"),
        ({"order": 3}, "'order' parameter of phonons"),
        ({"distance": -0.1}, "'distance' parameter of phonons"),
        ({"method": "hessian"}, "has no Hessian"),
    ],
)
def test_wrong_parameters_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        phonons(crystal(), calculator(), supercell=2, **change)
