"""The verbs on crystals, called in this process, on the packaged potential."""

from __future__ import annotations

import json
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write
from typer.testing import CliRunner

from asenequip.cli import app
from asenequip.cli.crystal import repeats

for package in ("phonopy", "seekpath", "spglib"):
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def potential():
    with as_file(files("asenequip.data") / "emt.asnq") as path:
        yield path


@pytest.fixture
def copper(tmp_path: Path) -> Path:
    write(tmp_path / "copper.cif", bulk("Cu", a=3.62))
    return tmp_path / "copper.cif"


def run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output + str(result.exception)
    return result.output


def test_phonons(potential, copper, tmp_path):
    folder = tmp_path / "phonons"
    words = ("phonons", copper, "-m", potential, "-o", folder, "--supercell", "2", "--mesh", "4")
    out = run(*words, "--method", "hessian", "--gruneisen")
    assert "Force constants of 8 atoms, Fm-3m, from the Hessian." in out
    assert {"FORCE_CONSTANTS", "phonopy_params.yaml", "bands.png", "gruneisen.csv", "structure.extxyz"} <= {
        path.name for path in folder.iterdir()
    }
    relaxed = read(folder / "structure.extxyz")
    assert np.abs(relaxed.get_stress()).max() < 1e-4
    assert "is not overwritten" in run(*words, code=2)


def test_equation_of_state_and_elastic_tensor(potential, copper, tmp_path):
    run("eos", copper, "-m", potential, "-o", tmp_path / "eos", "--span", "0.02", "--points", "7")
    out = run("elastic", copper, "-m", potential, "-o", tmp_path / "elastic")
    assert "Fm-3m (225)" in out
    state = json.loads((tmp_path / "eos" / "eos.json").read_text())
    tensor = json.loads((tmp_path / "elastic" / "elastic.json").read_text())
    # two ways to the bulk modulus: curvature of the energy, slope of the stress
    assert tensor["moduli"]["bulk"] == pytest.approx(state["bulk_modulus"], rel=0.01)


def test_a_failure_leaves_no_folder(potential, tmp_path):
    write(tmp_path / "slab.extxyz", bulk("Cu") * (1, 1, 2), format="extxyz")
    atoms = read(tmp_path / "slab.extxyz")
    atoms.pbc = (True, True, False)
    write(tmp_path / "slab.extxyz", atoms, format="extxyz")
    words = ("phonons", tmp_path / "slab.extxyz", "-m", potential, "-o", tmp_path / "out", "--no-relax")
    assert "must be a crystal" in run(*words, code=2)
    assert not (tmp_path / "out").exists()


def test_a_crystal_that_cannot_be_evaluated_is_no_surprise(potential, tmp_path):
    write(tmp_path / "iron.extxyz", bulk("Fe"))
    out = run("eos", tmp_path / "iron.extxyz", "-m", potential, "-o", tmp_path / "out", code=2)
    assert "iron.extxyz', structure 0 could not be relaxed: The model knows" in out
    assert "not foreseen" not in out


def test_repeats():
    assert repeats(None) is None
    assert repeats("3") == 3
    assert repeats("1,2,3") == [1, 2, 3]
    for wrong in ("0", "2,2", "a"):
        with pytest.raises(ValueError, match="--supercell must be"):
            repeats(wrong)
