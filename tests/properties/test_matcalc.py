"""matcalc drives the calculator and finds what this package finds: two implementations on one potential."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import pytest
from ase.build import bulk

from asenequip import AllegroCalculator

matcalc = pytest.importorskip("matcalc")
pytestmark = pytest.mark.filterwarnings("default")  # matcalc's and pymatgen's own warnings are theirs


@pytest.fixture(scope="module")
def calc():
    with as_file(files("asenequip.data") / "emt.asnq") as path:
        yield AllegroCalculator(path, device="cpu", dtype="float64")


@pytest.fixture(scope="module")
def copper(calc):
    from asenequip.relax import relax

    return relax(bulk("Cu", cubic=True), calc, cell="full", fmax=1e-5, keep_symmetry=True)[0].atoms


def test_relaxation(calc, copper):
    start = bulk("Cu", a=3.7, cubic=True)
    found = matcalc.RelaxCalc(calc, fmax=1e-3, relax_cell=True).calc(start)
    assert found["a"] == pytest.approx(copper.cell.lengths()[0], abs=1e-3)
    assert found["energy"] == pytest.approx(copper.get_potential_energy(), abs=1e-4)


def test_elastic_tensor(calc, copper):
    from asenequip.properties import elastic_tensor

    mine = elastic_tensor(copper, calc)
    options = {"relax_structure": False, "norm_strains": (-0.005, 0.005), "shear_strains": (-0.005, 0.005)}
    theirs = matcalc.ElasticityCalc(calc, units_GPa=True, **options).calc(copper)
    assert np.asarray(theirs["elastic_tensor"].voigt) == pytest.approx(mine.tensor, abs=0.5)  # second order in 0.5 %
    assert theirs["bulk_modulus_vrh"] == pytest.approx(mine.moduli.bulk, rel=2e-3)


def test_equation_of_state(calc, copper):
    from asenequip.properties import equation_of_state

    mine = equation_of_state(copper, calc, span=0.03)
    theirs = matcalc.EOSCalc(calc, relax_structure=False, max_abs_strain=0.01, n_points=11).calc(copper)
    assert theirs["bulk_modulus_bm"] == pytest.approx(mine.bulk_modulus, rel=0.02)


def test_phonons(calc, copper):
    from asenequip.properties import phonons

    settings = {"relax_structure": False, "supercell_matrix": np.diag([2, 2, 2]), "atom_disp": 0.01}
    quiet = dict.fromkeys(("write_force_constants", "write_band_structure", "write_total_dos", "write_phonon"), False)
    theirs = matcalc.PhononCalc(calc, on_imaginary_modes="warn", **settings, **quiet).calc(copper)
    mine = phonons(copper, calc, supercell=2, distance=0.01)
    temperatures = theirs["thermal_properties"]["temperatures"]
    expected = theirs["thermal_properties"]["heat_capacity"][temperatures == 300.0]
    cells = len(theirs["phonon"].primitive) / len(mine.phonopy.primitive)
    found = mine.thermal_properties([300.0]).heat_capacity * 96485.33212 * cells  # eV/K to J/K/mol
    assert found == pytest.approx(expected, rel=2e-3)
