"""The interface frames of the package: those that their script makes, and labelled by a program of another Python."""

from __future__ import annotations

import importlib
import json
import sys
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed
from ase.io import read, write
from ase.neighborlist import neighbor_list
from numpy.testing import assert_allclose

EXAMPLES = Path(__file__).parents[2] / "examples"
ANSWERS = """
import json, os
question = json.load(open("question.json"))
assert "PYTHONPATH" not in os.environ
n = len(question["numbers"])
answer = {"energy": question["cutoff"], "forces": [[1.0, 0.0, -1.0]] * n, "stress": [0.1] * 6}
json.dump(answer, open("answer.json", "w"))
"""


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module


@pytest.fixture(scope="module")
def shipped() -> list[Atoms]:
    with as_file(files("asenequip.data") / "li_argyrodite_pbe.extxyz.gz") as path:
        return read(path, ":")


def test_the_shipped_starts_are_those_of_the_script(example, shipped):
    made = dict(example("make_interface_data").starts())
    again = [atoms for atoms in shipped if atoms.info["origin"] in made]
    assert len(again) >= 5
    for atoms in again:
        assert_allclose(atoms.positions, made[atoms.info["origin"]]().positions, atol=1e-6)


def test_the_shipped_frames_hold_both_sides_and_their_labels(shipped):
    names = {"".join(sorted(set(atoms.symbols))) for atoms in shipped}
    assert {"Li", "ClLiPS", "LiS", "ClLi"} <= names
    for atoms in shipped:
        assert np.isfinite(atoms.get_potential_energy())
        assert_allclose(atoms.get_forces().sum(axis=0), 0, atol=0.05)
        assert atoms.get_stress().shape == (6,)


def test_interdiffused_atoms_keep_composition_and_places(example):
    script = example("make_interface_data")
    atoms = script.interface_cell(2)
    mixed = script.interdiffused(atoms, 0.2, np.random.default_rng(0))
    assert mixed.symbols.get_chemical_formula() == atoms.symbols.get_chemical_formula()
    assert_allclose(mixed.positions, atoms.positions)
    others = np.count_nonzero(atoms.numbers != 3)
    assert np.count_nonzero(mixed.numbers != atoms.numbers) == 2 * round(0.2 * others)


CHARGES = {"Li": 1, "P": -3, "S": -2, "Cl": -1}


@pytest.mark.parametrize("name", ["LiCl", "Li2S", "Li3P"])
def test_a_defect_leaves_no_charge_over_and_no_atoms_together(example, name):
    script = example("make_interface_data")
    repeats, count = next((repeats, count) for known, repeats, count in script.WARM if known == name)
    crystals = [script.warm_crystal(name, repeats, number, count) for number in range(count)]
    volumes = np.array([atoms.get_volume() for atoms in crystals])
    assert_allclose(volumes[-1] / volumes[0], 1.1 / 0.9, rtol=1e-2)  # shear is of second order in the volume
    assert len({atoms.get_chemical_formula() for atoms in crystals}) == 2
    for atoms in crystals:
        assert sum(CHARGES[symbol] for symbol in atoms.symbols) == 0
        assert closest(atoms) > 1.5


def test_mixtures_have_the_composition_and_the_volume_of_their_crystals(example):
    script = example("make_interface_data")
    packed = [script.mixture(number) for number in range(len(script.MIXTURES))]
    assert packed[0].get_chemical_formula() == "ClLi14PS5"
    assert packed[1].get_chemical_formula() == "ClLi10PS5"
    for atoms, units in zip(packed, script.MIXTURES, strict=True):
        if set(units) <= {"LiCl", "Li2S", "Li3P"}:
            assert sum(CHARGES[symbol] for symbol in atoms.symbols) == 0
        assert closest(atoms) > 1.5
    products = 5.14**3 / 4 + 5 * 5.71**3 / 4 + 4.264**2 * 7.579 * np.sqrt(0.75) / 2  # LiCl, Li2S, Li3P
    assert 0.93 < packed[0].get_volume() / products < 1.1


def test_judges_and_learnt_frames_share_no_trajectory(example, tmp_path):
    script = example("make_interface_data")
    names = [f"{kind}-{k}-{part}" for kind in ("hot", "mix") for k in range(40) for part in range(2)]
    names += [f"warm-LiCl-{k}" for k in range(40)]
    write(tmp_path / "all.extxyz", [script.bare(bulk("Li"), origin=name) for name in names])
    script.split(tmp_path / "all.extxyz", tmp_path / "learn.extxyz", tmp_path / "judge.extxyz")
    learn, judge = (
        [atoms.info["origin"] for atoms in read(tmp_path / f"{part}.extxyz", ":")] for part in ("learn", "judge")
    )
    assert sorted(learn + judge) == sorted(names)
    assert 0.1 < len(judge) / len(names) < 0.3
    assert not {name.rsplit("-", 1)[0] for name in judge if "warm" not in name} & {
        name.rsplit("-", 1)[0] for name in learn if "warm" not in name
    }


def closest(atoms: Atoms) -> float:
    """The smallest distance between two atoms or images, Angstrom."""
    return float(neighbor_list("d", atoms, 4.0).min())


def test_a_program_of_another_python_labels(example, tmp_path, monkeypatch):
    program = tmp_path / "program.py"
    program.write_text(ANSWERS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    atoms = bulk("Li", cubic=True)
    atoms.calc = example("gpaw_labels").make(f"{sys.executable} {program}", cutoff=250.0)
    atoms.calc.directory = str(tmp_path / "run")
    assert atoms.get_potential_energy() == 250.0
    assert_allclose(atoms.get_forces(), [[1.0, 0.0, -1.0]] * 2)
    assert_allclose(atoms.get_stress(), 0.1)
    question = json.loads((tmp_path / "run" / "question.json").read_text())
    assert_allclose(question["cell"], atoms.cell.array)


def test_what_the_program_complains_of_is_told(example, tmp_path):
    program = tmp_path / "program.py"
    program.write_text("raise SystemExit('Did not converge!')")
    atoms = bulk("Li")
    atoms.calc = example("gpaw_labels").make(f"{sys.executable} {program}")
    atoms.calc.directory = str(tmp_path / "run")
    with pytest.raises(CalculationFailed, match="Did not converge!"):
        atoms.get_potential_energy()
