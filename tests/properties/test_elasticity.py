"""Elastic tensors: which ones a point group allows, closed forms, a published potential; equation of state."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.tersoff import Tersoff, TersoffParameters
from pair_crystals import CUTOFF, EPSILON, NEAREST, SIGMA, calculator, crystal, elastic_constants, pair

from asenequip.interrupt import Interrupted
from asenequip.properties import elastic_tensor, equation_of_state, fit_equation_of_state, is_stable, moduli
from asenequip.properties.strains import invariant_tensors, needed_directions

spglib = pytest.importorskip("spglib")

LAUE_CLASSES = {
    "-1": (21, 6),
    "2/m": (13, 6),
    "mmm": (9, 6),
    "4/m": (7, None),
    "4/mmm": (6, None),
    "-3": (7, None),
    "-3m": (6, None),
    "6/m": (5, None),
    "6/mmm": (5, None),
    "m-3": (3, 2),
    "m-3m": (3, 2),
}
"""Independent constants of each Laue class (J. F. Nye, Physical Properties of Crystals, chapter 8), and how many of the
six unit strains determine them where that is plain."""

CUBIC = np.diag([160.0] * 3 + [60.0] * 3) + np.pad(90.0 * (np.ones((3, 3)) - np.eye(3)), (0, 3))


def laue_group(name: str) -> np.ndarray:
    """Rotations of a point group, in axes that make them orthogonal, whatever the lattice."""
    number = next(k for k in range(1, 531) if spglib.get_spacegroup_type(k).pointgroup_international == name)
    fractional = spglib.get_symmetry_from_database(number)["rotations"].astype(float)
    metric = np.einsum("gki,gkj->ij", fractional, fractional)  # invariant under the group
    lattice = np.linalg.cholesky(metric).T
    return lattice @ fractional @ np.linalg.inv(lattice)


@pytest.mark.parametrize("name", LAUE_CLASSES)
def test_laue_classes_have_the_independent_constants_of_the_textbook(name):
    constants, strains = LAUE_CLASSES[name]
    basis = invariant_tensors(laue_group(name))
    assert len(basis) == constants
    if strains is not None:
        assert len(needed_directions(basis)) == strains


def test_moduli_of_a_cubic_crystal():
    found = moduli(CUBIC)
    # Hill: K = (C11 + 2 C12) / 3, G_V = (C11 - C12 + 3 C44) / 5, G_R = 5 (C11 - C12) C44 / (4 C44 + 3 (C11 - C12))
    assert found.bulk == pytest.approx(340 / 3)
    assert found.shear_voigt == pytest.approx(50.0)
    assert found.shear_reuss == pytest.approx(5 * 70 * 60 / (240 + 210))
    # the universal anisotropy of a cubic crystal in terms of Zener's ratio A: 6/5 (sqrt A - 1 / sqrt A)^2
    zener = 2 * 60 / 70
    assert found.anisotropy == pytest.approx(1.2 * (zener**0.5 - zener**-0.5) ** 2)
    assert found.young == pytest.approx(2 * found.shear * (1 + found.poisson))


def test_a_crystal_that_shears_by_itself_is_not_stable():
    assert is_stable(CUBIC)
    soft = CUBIC.copy()
    soft[:3, :3] = 170.0 * (np.ones((3, 3)) - np.eye(3)) + 160.0 * np.eye(3)  # C11 < C12
    assert not is_stable(soft)


@pytest.mark.parametrize("cubic", [False, True], ids=["primitive", "conventional"])
def test_pair_crystal_has_the_constants_of_its_lattice_sum(cubic):
    found = elastic_tensor(crystal(cubic=cubic), calculator())
    c11, c12, c44 = elastic_constants()
    expected = np.diag([c11] * 3 + [c44] * 3) + np.pad(c12 * (np.ones((3, 3)) - np.eye(3)), (0, 3))
    # the slopes leave an error of fourth order in the strain of 0.01
    np.testing.assert_allclose(found.tensor, expected, atol=2e-6 * c11)
    assert found.independent == 3
    assert found.directions == (0, 3)
    assert np.abs(found.residual_stress).max() < 1e-12
    assert found.misfit < 2e-6 * c11


def test_rotated_crystal_has_the_rotated_tensor():
    atoms = crystal()
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    straight = elastic_tensor(atoms, calculator()).tensor
    atoms.set_cell(np.asarray(atoms.cell) @ turn.T, scale_atoms=True)
    found = elastic_tensor(atoms, calculator()).tensor
    indices = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]
    full = np.zeros((3, 3, 3, 3))
    for row, (i, j) in enumerate(indices):
        for column, (k, l) in enumerate(indices):
            full[i, j, k, l] = full[j, i, k, l] = full[i, j, l, k] = full[j, i, l, k] = straight[row, column]
    turned = np.einsum("ai,bj,ck,dl,ijkl", turn, turn, turn, turn, full)
    expected = [[turned[(*a, *b)] for b in indices] for a in indices]
    np.testing.assert_allclose(found, expected, atol=1e-5 * straight[0, 0])


def silicon_of_tersoff() -> Tersoff:
    """J. Tersoff, Phys. Rev. B 38, 9902 (1988): the potential Si(C)."""
    values = TersoffParameters(
        m=3.0, gamma=1.0, lambda3=0.0, c=100390.0, d=16.217, h=-0.59825, n=0.78734, beta=1.1e-6,
        lambda2=1.73222, B=471.18, R=2.85, D=0.15, lambda1=2.4799, A=1830.8,
    )  # fmt: skip
    return Tersoff({("Si", "Si", "Si"): values})


def test_silicon_with_clamped_and_with_relaxed_ions():
    """The shear strain of diamond moves its two sublattices: the energy of strained, relaxed cells is the oracle."""
    from asenequip.properties.strains import strained
    from asenequip.relax import relax

    calc = silicon_of_tersoff()
    atoms = relax(bulk("Si", a=5.43), calc, cell="full", fmax=1e-7, keep_symmetry=True)[0].atoms
    clamped = elastic_tensor(atoms, calc, relax_ions=False)
    found = elastic_tensor(atoms, calc, fmax=1e-6)
    curvature, size = 0.0, 4e-3
    for node, weight in ((-2, -1 / 12), (-1, 4 / 3), (0, -5 / 2), (1, 4 / 3), (2, -1 / 12)):
        frame = strained(atoms, node * size * np.eye(6)[3])
        frame = relax(frame, calc, fmax=1e-7)[0].atoms
        curvature += weight * frame.get_potential_energy() / size**2
    expected = curvature / atoms.get_volume() / units.GPa
    assert found.tensor[3, 3] == pytest.approx(expected, rel=1e-4)
    assert clamped.tensor[3, 3] > 1.2 * found.tensor[3, 3]
    np.testing.assert_allclose(clamped.tensor[:3, :3], found.tensor[:3, :3], atol=1e-3)  # no sublattice moves


def test_hexagonal_crystal_has_five_constants_and_the_bulk_modulus_of_its_equation_of_state():
    from asenequip.relax import relax

    atoms = relax(bulk("Cu", "hcp", a=2.55, c=4.16), EMT(), cell="full", fmax=1e-6, keep_symmetry=True)[0].atoms
    found = elastic_tensor(atoms, EMT(), fmax=1e-6)
    assert found.independent == 5
    assert found.space_group == "P6_3/mmc (194)"
    # without load the Reuss bound is what a hydrostatic pressure sees, so the shape relaxes at each volume
    state = equation_of_state(atoms, EMT(), span=0.02, relax="shape", fmax=1e-5)
    assert found.moduli.bulk_reuss == pytest.approx(state.bulk_modulus, rel=2e-3)


def test_equation_of_state_of_a_pair_crystal():
    # stretched start: the minimum is found, not assumed
    state = equation_of_state(crystal(1.004), calculator(), span=0.02)
    energy, _, curvature = pair(NEAREST)
    assert state.volume == pytest.approx(NEAREST**3 / 2**0.5, rel=1e-5)
    assert state.energy == pytest.approx(6 * energy, rel=1e-6)
    # E = 6 phi(r), V = r^3 / sqrt 2: at the minimum B = V E'' = 6 phi'' r^2 / (9 V)
    bulk_modulus = 6 * curvature * NEAREST**2 / (9 * NEAREST**3 / 2**0.5) / units.GPa
    assert state.bulk_modulus == pytest.approx(bulk_modulus, rel=2e-3)
    c11, c12, _ = elastic_constants()
    assert bulk_modulus == pytest.approx((c11 + 2 * c12) / 3)


def test_equation_of_state_without_a_minimum_is_refused():
    with pytest.raises(ValueError, match="no minimum between the volumes"):
        equation_of_state(crystal(1.1), calculator(), span=0.02)


def test_fit_gives_back_the_curve_it_was_made_of():
    from ase.eos import birchmurnaghan

    volumes = np.linspace(15.0, 18.0, 9)
    state = fit_equation_of_state(volumes, birchmurnaghan(volumes, -5432.1, 0.6, 4.3, 16.4))
    assert state.volume == pytest.approx(16.4, rel=1e-7)
    assert state.energy == pytest.approx(-5432.1, rel=1e-12)
    assert state.bulk_modulus == pytest.approx(0.6 / units.GPa, rel=1e-5)
    assert state.bulk_derivative == pytest.approx(4.3, rel=1e-5)


def test_files(tmp_path):
    found = elastic_tensor(crystal(), calculator())
    state = equation_of_state(crystal(), calculator(), span=0.03)
    for path in [*found.write(tmp_path), *state.write(tmp_path)]:
        assert path.stat().st_size > 0
    assert json.loads((tmp_path / "elastic.json").read_text())["tensor"] == found.tensor.tolist()
    rows = np.loadtxt(tmp_path / "eos.csv", delimiter=",", skiprows=1)
    np.testing.assert_array_equal(rows[:, 1], state.energies)
    with pytest.raises(FileExistsError):
        found.write(tmp_path)


def test_a_taken_name_leaves_no_half_of_the_files(tmp_path):
    volumes = np.linspace(15.0, 18.0, 9)
    state = fit_equation_of_state(volumes, 0.1 * (volumes - 16.4) ** 2)
    (tmp_path / "eos.png").write_text("mine")
    with pytest.raises(FileExistsError, match=r"eos\.png"):
        state.write(tmp_path)
    assert (tmp_path / "eos.png").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["eos.png"]
    (tmp_path / "stresses.png").write_text("mine")
    with pytest.raises(FileExistsError, match=r"stresses\.png"):
        elastic_tensor(crystal(), calculator()).write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eos.png", "stresses.png"]


def test_ctrl_c_ends_the_work_and_says_so():
    class Impatient(LennardJones):
        asked = False

        def calculate(self, *arguments, **keywords):
            super().calculate(*arguments, **keywords)
            if not self.asked:
                self.asked = True
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="Stopped before all structures were relaxed"):
        equation_of_state(crystal(1.01), Impatient(epsilon=EPSILON, sigma=SIGMA, rc=CUTOFF), points=5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strains": (0.01,)}, "'strains' parameter of elastic_tensor"),
        ({"strains": (-0.01, 0.0, 0.01)}, "none of them zero"),
        ({"fmax": 0.0}, "'fmax' parameter of elastic_tensor"),
    ],
)
def test_wrong_parameters_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        elastic_tensor(crystal(), calculator(), **change)


def test_a_molecule_has_no_elastic_tensor():
    atoms = crystal()
    atoms.pbc = (True, True, False)
    with pytest.raises(ValueError, match="must be a crystal"):
        elastic_tensor(atoms, calculator())
