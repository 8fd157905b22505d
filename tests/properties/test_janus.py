"""janus-core drives the calculator that its structures carry."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import pytest
from ase.build import bulk

from asenequip import AllegroCalculator

pytest.importorskip("janus_core")
pytestmark = pytest.mark.filterwarnings("default")  # janus-core's own warnings are its own


@pytest.fixture(scope="module")
def calc():
    with as_file(files("asenequip.data") / "emt.asnq") as path:
        yield AllegroCalculator(path, device="cpu", dtype="float64")


def with_calculator(calc, **options):
    atoms = bulk("Cu", **options)
    atoms.calc = calc
    return atoms


def test_single_point(calc, tmp_path, monkeypatch):
    from janus_core.calculations.single_point import SinglePoint

    monkeypatch.chdir(tmp_path)
    found = SinglePoint(struct=with_calculator(calc, a=3.6), properties=["energy", "forces", "stress"]).run()
    assert found["energy"] == pytest.approx(calc.get_potential_energy(bulk("Cu", a=3.6)), rel=1e-12)


def test_geometry_optimisation(calc, tmp_path, monkeypatch):
    from janus_core.calculations.geom_opt import GeomOpt

    from asenequip.relax import relax

    monkeypatch.chdir(tmp_path)
    atoms = with_calculator(calc, a=3.7)
    GeomOpt(struct=atoms, fmax=1e-4).run()
    expected = relax(bulk("Cu", a=3.7), calc, cell="full", fmax=1e-4)[0].atoms
    assert atoms.cell.lengths() == pytest.approx(expected.cell.lengths(), abs=1e-4)


def test_phonons(calc, tmp_path, monkeypatch):
    from janus_core.calculations.phonons import Phonons

    from asenequip.properties import phonons

    monkeypatch.chdir(tmp_path)
    options = {"supercell": (2, 2, 2), "displacement": 0.01, "write_results": False}
    run = Phonons(struct=with_calculator(calc, a=3.6), **options)
    run.calc_force_constants()
    theirs = run.results["phonon"]
    theirs.run_qpoints([[0.5, 0.0, 0.5]])
    mine = phonons(bulk("Cu", a=3.6), calc, supercell=2, distance=0.01)
    np.testing.assert_allclose(theirs.qpoints.frequencies, mine.frequencies([0.5, 0.0, 0.5]), atol=1e-4)
