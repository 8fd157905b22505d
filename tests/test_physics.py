"""Physics gates of the model: derivatives, symmetry, smoothness, conservation. All in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.md.verlet import VelocityVerlet
from small_systems import small_atoms, small_model

from asenequip import AllegroCalculator
from asenequip.artifact import Potential
from asenequip.model.spec import PairSpec
from asenequip.testing import emt_artifact, finite_difference_forces, finite_difference_stress

GATE = 1e-7
"""eV/A and eV/A^3, relative to 1 or the largest entry: the error of fourth-order differences."""

MODELS: dict[str, dict[str, object]] = {
    "defaults": {},
    "l3, three layers": {"l_max": 3, "num_layers": 3},
    "l4": {"l_max": 4},
    "spline": {"radial": "spline"},
    "uncoupled, shared": {"path_channel_coupling": False, "individual_irrep_weights": False},
    "pair cutoffs": {"pair_cutoffs": ((3.4, 2.6), (3.0, 2.2))},
    "zbl": {"pair": PairSpec("zbl")},
    "lj": {"pair": PairSpec("lj", sigma=1.9, epsilon=0.3)},
}


def calculator(name: str = "defaults", seed: int = 0) -> AllegroCalculator:
    model = small_model(seed=seed, **MODELS[name]).requires_grad_(False)
    return AllegroCalculator(Potential(model, {}, "float64", None, ""), device="cpu", dtype="float64")


def structures() -> dict[str, Atoms]:
    crystal, cluster, slab = small_atoms(1), small_atoms(2), small_atoms(3)
    cluster.pbc = False
    cluster.cell = None
    slab.pbc = (True, True, False)
    slab.cell[2] *= 4
    left = small_atoms(4)
    left.set_cell(np.asarray(left.cell)[[1, 0, 2]])
    return {"crystal": crystal, "cluster": cluster, "slab": slab, "left-handed": left}


def close(found: np.ndarray, expected: np.ndarray, gate: float = GATE) -> bool:
    return bool(np.abs(found - expected).max() <= gate * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("structure", structures())
@pytest.mark.parametrize("name", MODELS)
def test_forces_are_differences_of_the_energy(name: str, structure: str) -> None:
    atoms = structures()[structure]
    atoms.calc = calculator(name)
    assert close(atoms.get_forces(), finite_difference_forces(atoms))


@pytest.mark.parametrize("structure", ["crystal", "slab", "left-handed"])
@pytest.mark.parametrize("name", MODELS)
def test_stress_is_the_difference_of_the_energy_with_strain(name: str, structure: str) -> None:
    atoms = structures()[structure]
    atoms.calc = calculator(name)
    assert close(atoms.get_stress(), finite_difference_stress(atoms))


@pytest.mark.parametrize(
    ("name", "structure"),
    [("defaults", s) for s in structures()] + [("zbl", "slab"), ("l3, three layers", "cluster")],
)
def test_hessian_is_the_difference_of_the_forces(name: str, structure: str) -> None:
    atoms, calc = structures()[structure], calculator(name)
    found = calc.hessian(atoms)
    expected = np.zeros_like(found)
    step = 1e-3
    for row in range(len(found)):
        for node, weight in ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12)):
            moved = atoms.copy()
            moved.positions.flat[row] += node * step
            expected[row] -= weight / step * calc.get_forces(moved).ravel()
    assert close(found, expected)


@pytest.mark.parametrize("structure", structures())
def test_hessian_is_symmetric_and_knows_no_translation(structure: str) -> None:
    atoms = structures()[structure]
    hessian = calculator().hessian(atoms)
    scale = np.abs(hessian).max()
    assert np.abs(hessian - hessian.T).max() < 1e-12 * scale
    rows = hessian.reshape(len(hessian), len(atoms), 3).sum(axis=1)
    assert np.abs(rows).max() < 1e-12 * scale


@pytest.mark.parametrize("structure", structures())
def test_rows_of_the_hessian_are_those_of_the_whole(structure: str) -> None:
    atoms, calc = structures()[structure], calculator()
    rows = [len(atoms) - 1, 0]
    whole = calc.hessian(atoms).reshape(len(atoms), 3, 3 * len(atoms))
    assert np.array_equal(calc.hessian(atoms, rows), whole[rows].reshape(6, -1))


def test_rows_of_the_hessian_are_named_as_numpy_names_rows() -> None:
    atoms, calc = structures()["crystal"], calculator()
    whole = calc.hessian(atoms).reshape(len(atoms), -1)
    for rows in ([-1], np.array([-2, 1]), atoms.symbols == "O"):
        assert np.array_equal(calc.hessian(atoms, rows).ravel(), whole[rows].ravel())  # type: ignore[arg-type]
    assert calc.hessian(atoms, []).shape == (0, 3 * len(atoms))
    with pytest.raises(IndexError, match="out of bounds"):
        calc.hessian(atoms, [len(atoms)])


def test_hessian_without_atoms_or_edges() -> None:
    calc = calculator()
    assert calc.hessian(Atoms()).shape == (0, 0)
    assert not calc.hessian(Atoms("CuO", positions=[[0, 0, 0], [0, 0, 30]])).any()


def test_virials_are_those_of_the_atomic_energies() -> None:
    # the strain derivative of each atom's energy, atom by atom
    atoms, calc, step = structures()["crystal"], calculator(), 1e-4
    found = calc.virials(atoms)
    for i, j in ((0, 0), (1, 2), (0, 2)):
        slope = np.zeros(len(atoms))
        for node, weight in ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12)):
            strain = np.eye(3)
            strain[i, j] += node * step / 2
            strain[j, i] += node * step / 2
            strained = atoms.copy()
            strained.set_cell(np.asarray(atoms.cell) @ strain)
            strained.positions = atoms.positions @ strain
            slope += weight / step * calc.get_potential_energies(strained)
        assert close(0.5 * (found[:, i, j] + found[:, j, i]), slope)


@pytest.mark.parametrize("name", ["defaults", "spline", "zbl", "pair cutoffs"])
def test_energy_force_and_curvature_vanish_continuously_at_the_cutoff(name: str) -> None:
    calc = calculator(name)
    # the second cutoff of an ordered pair is where its last interaction ends
    reach = 3.0 if name == "pair cutoffs" else 3.4
    alone = calc.get_potential_energy(Atoms("CuO", positions=[[0, 0, 0], [0, 0, 50]]))
    values = []
    for gap in (1e-3, 1e-4):
        pair = Atoms("CuO", positions=[[0, 0, 0], [0, 0, reach - gap]])
        energy, force = calc.get_potential_energy(pair) - alone, calc.get_forces(pair)[1, 2]
        values.append([abs(energy), abs(force), abs(calc.hessian(pair)[5, 5])])
    (e1, f1, h1), (e2, f2, h2) = values
    # a function that is C2 there falls at least as gap^3, its slope as gap^2, its curvature as gap
    assert e2 < 2e-3 * e1 + 1e-14
    assert f2 < 2e-2 * f1 + 1e-13
    assert h2 < 0.2 * h1 + 1e-12
    beyond = Atoms("CuO", positions=[[0, 0, 0], [0, 0, reach + 1e-9]])
    assert calc.get_potential_energy(beyond) == alone


def test_angular_terms_matter() -> None:
    # three atoms at fixed distances from each other's neighbours: a model without angles could not tell them apart
    calc = calculator()
    energies = []
    for angle in (80.0, 100.0):
        a = np.deg2rad(angle)
        atoms = Atoms("OCuCu", positions=[[0, 0, 0], [2, 0, 0], [2 * np.cos(a), 2 * np.sin(a), 0]])
        energies.append(calc.get_potential_energies(atoms)[0])
    assert abs(energies[0] - energies[1]) > 1e-4


def test_mirror_images_have_one_energy_and_mirrored_forces() -> None:
    atoms, calc = structures()["cluster"], calculator("l3, three layers")
    mirrored = atoms.copy()
    mirrored.positions[:, 0] *= -1
    assert calc.get_potential_energy(mirrored) == pytest.approx(calc.get_potential_energy(atoms), rel=1e-13)
    assert np.abs(calc.get_forces(mirrored) * [-1, 1, 1] - calc.get_forces(atoms)).max() < 1e-12


def test_parity_makes_no_difference_for_two_layers_or_fewer() -> None:
    for layers in (1, 2):
        first, second = (small_model(num_layers=layers, parity=p) for p in (True, False))
        assert {k: v.shape for k, v in first.state_dict().items()} == {
            k: v.shape for k, v in second.state_dict().items()
        }
        calcs = [
            AllegroCalculator(
                Potential(m.requires_grad_(False), {}, "float64", None, ""), device="cpu", dtype="float64"
            )
            for m in (first, second)
        ]
        energies = [c.get_potential_energy(small_atoms()) for c in calcs]
        assert energies[0] == pytest.approx(energies[1], rel=1e-13)


# -- conservation of energy in dynamics -------------------------------------------------------------------------------


def energy_error(step_fs: float, duration_fs: float, seed: int = 0) -> tuple[float, float]:
    """Fluctuation of the total energy (eV, standard deviation) and its drift (eV over the run) in NVE dynamics."""
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.calc = AllegroCalculator(emt_artifact(), device="cpu", dtype="float64")
    spread = np.sqrt(atoms.get_masses() * 600 * units.kB)[:, None]
    atoms.set_momenta(spread * np.random.default_rng(seed).normal(size=(len(atoms), 3)))
    totals: list[float] = []
    dynamics = VelocityVerlet(atoms, step_fs * units.fs)
    dynamics.attach(lambda: totals.append(atoms.get_total_energy()))
    dynamics.run(round(duration_fs / step_fs))
    energies = np.array(totals)
    times = np.linspace(-0.5, 0.5, len(energies))
    slope = float(np.polyfit(times, energies, 1)[0])
    return float(energies.std()), slope


def test_energy_error_falls_with_the_square_of_the_step() -> None:
    coarse, fine = (energy_error(step, 240.0)[0] for step in (6.0, 3.0))
    assert 3.0 < coarse / fine < 5.5


@pytest.mark.slow
def test_twenty_thousand_steps_do_not_drift() -> None:
    torch.set_num_threads(1)
    fluctuation, drift = energy_error(2.0, 40_000.0)
    coarse, _ = energy_error(4.0, 8_000.0)
    fine, _ = energy_error(2.0, 8_000.0)
    assert 3.0 < coarse / fine < 5.5
    assert abs(drift) < 3 * fluctuation
    assert abs(drift) / 32 < 1e-4  # eV per atom over 40 ps
