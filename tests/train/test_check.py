"""The label lint finds what is planted, names it, and is silent on sound data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.md.verlet import VelocityVerlet
from typer.testing import CliRunner

from asenequip.train.check import check_settings, lint
from asenequip.train.cli import app
from asenequip.train.config import Dataset, parse_config
from asenequip.train.data import Frame, take_labels
from asenequip.train.init import write_settings


def trajectory(strains: tuple[float, ...] = (0.97, 1.0, 1.03), length: int = 12) -> list[Atoms]:
    """Short constant-energy EMT trajectories of copper at several volumes, a few femtoseconds between frames."""
    frames = []
    for k, strain in enumerate(strains):
        atoms = bulk("Cu", cubic=True) * (2, 1, 1)
        atoms.set_cell(atoms.cell.array * strain, scale_atoms=True)
        atoms.calc = EMT()
        spread = np.sqrt(1500.0 * units.kB * atoms.get_masses())[:, None]
        momenta = np.random.default_rng(k).normal(size=(len(atoms), 3)) * spread
        atoms.set_momenta(momenta - momenta.mean(axis=0))
        dynamics = VelocityVerlet(atoms, 4 * units.fs)
        for _ in range(length):
            dynamics.run(2)
            frames.append(labelled(atoms, atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()))
    return frames


def labelled(atoms: Atoms, energy: float, forces: np.ndarray, stress: np.ndarray) -> Atoms:
    out = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
    out.calc = SinglePointCalculator(out, energy=energy, forces=forces, stress=stress)
    return out


def changed(atoms: Atoms, energy: float = 1.0, forces: float = 1.0, stress: float = 1.0) -> Atoms:
    results = atoms.calc.results
    return labelled(atoms, energy * results["energy"], forces * results["forces"], stress * results["stress"])


def read(frames: list[Atoms]) -> list[Frame]:
    return [take_labels(atoms, Dataset(path="x"), f"x#{k}") for k, atoms in enumerate(frames)]


@pytest.fixture(scope="module")
def sound() -> list[Atoms]:
    return trajectory()


def test_sound_labels_raise_nothing(sound: list[Atoms]) -> None:
    assert lint(read(sound), [], ["Cu"]) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"energy": 1 / units.Hartree}, "Hartree"),
        ({"forces": units.mol / units.kcal}, "kcal/mol"),
        ({"forces": -1.0}, "gradients"),
        ({"stress": -1.0}, "stress_sign"),
        ({"stress": 1 / units.GPa}, "in GPa or kbar"),
    ],
)
def test_wrong_units_and_signs_are_recognised(sound: list[Atoms], change: dict[str, float], word: str) -> None:
    found = lint(read([changed(atoms, **change) for atoms in sound]), [], ["Cu"])
    assert any(word in text for text in found), found


def test_single_faults_name_their_frame(sound: list[Atoms]) -> None:
    frames = list(sound[:12])
    results = frames[3].calc.results
    frames[3] = labelled(frames[3], results["energy"], results["forces"] + 0.5, results["stress"])
    frames[5] = labelled(frames[5], results["energy"] + 500.0, frames[5].get_forces(), frames[5].get_stress())
    frames.append(frames[7])
    close = frames[9].copy()
    close.positions[1] = close.positions[0] + [0.3, 0, 0]
    frames.append(close)
    found = "\n".join(lint(read(frames), [], ["Cu"]))
    for word, source in (
        ("add up to zero", "x#3"),
        ("far from", "x#5"),
        ("geometry of x#7", "x#12"),
        ("closer", "x#13"),
    ):
        assert any(word in line and source in line for line in found.splitlines()), (word, found)
    assert "no energy on 1 of 14" in found


def test_init_writes_settings_that_check_accepts(
    sound: list[Atoms], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, config = tmp_path / "copper.extxyz", tmp_path / "config.yaml"
    write(data, sound)
    write_settings(data, config)
    small = ["--set", "model.num_scalar_features=4", "--set", "model.l_max=1", "--set", "threads=1"]
    result = CliRunner().invoke(app, ["check", str(config), *small])
    assert result.exit_code == 0, result.output
    assert "No problems found" in result.output


def test_init_finds_labels_under_other_names(sound: list[Atoms], tmp_path: Path) -> None:
    atoms = sound[0].copy()
    atoms.info["REF_energy"] = 1.0
    atoms.arrays["REF_forces"] = np.zeros((len(atoms), 3))
    write(tmp_path / "named.extxyz", atoms)
    write_settings(tmp_path / "named.extxyz", tmp_path / "config.yaml")
    settings = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert settings["data"]["train"]["keys"] == {"energy": "REF_energy", "forces": "REF_forces"}


def test_wrong_settings_exit_with_two(tmp_path: Path, settings: Callable[..., dict[str, Any]]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("model: {cutof: 4}")
    result = CliRunner().invoke(app, ["run", str(config)])
    assert result.exit_code == 2
    assert "Did you mean `cutoff`?" in result.output


def test_faulty_labels_exit_with_three(sound: list[Atoms], tmp_path: Path) -> None:
    write(tmp_path / "bad.extxyz", [changed(atoms, forces=-1.0) for atoms in sound])
    write_settings(tmp_path / "bad.extxyz", tmp_path / "config.yaml")
    small = ["--set", "model.num_scalar_features=4", "--set", "model.l_max=0", "--set", "threads=1"]
    result = CliRunner().invoke(app, ["check", str(tmp_path / "config.yaml"), *small])
    assert result.exit_code == 3


def test_energies_are_compared_among_frames_of_one_zero(sound: list[Atoms]) -> None:
    moved = [
        labelled(a, a.calc.results["energy"] + 1000.0, *(a.calc.results[k] for k in ("forces", "stress")))
        for a in sound
    ]
    for atoms in moved:
        atoms.positions += 0.01  # not the same frames twice
    frames = read(sound) + [replace(frame, dataset=1) for frame in read(moved[:9])]
    assert any("far from that of the other" in text for text in lint(frames, [], ["Cu"]))
    assert lint(frames, [], ["Cu"], own_zeros={1}) == []


def test_element_without_an_isolated_atom_is_named() -> None:
    alone = read([labelled(Atoms("Cu"), 0.0, np.zeros((1, 3)), np.zeros(6))])
    assert lint([], alone, ["Cu"]) == []
    assert any("isolated atoms are given, but not of Al" in text for text in lint([], alone, ["Al", "Cu"]))


@pytest.mark.parametrize(("factor", "frames"), [(1.0, ""), (-1.0, "on 2 frames"), (1 / units.Hartree, "on 2 frames")])
def test_virial_that_contradicts_the_stress_is_told(
    sound: list[Atoms], tmp_path: Path, settings: Callable[..., dict[str, Any]], factor: float, frames: str
) -> None:
    """The virial is -V times the stress; another sign, or Hartree, on two of twelve frames."""
    chosen = [changed(atoms) for atoms in sound[:12]]
    for k, atoms in enumerate(chosen):
        virial = -atoms.get_volume() * atoms.get_stress(voigt=False)
        atoms.info["virial"] = virial * (factor if k in (4, 7) else 1.0)
    write(tmp_path / "both.extxyz", chosen)
    text, problems = check_settings(parse_config(settings(data={"train": str(tmp_path / "both.extxyz")})))
    assert problems == bool(frames), text
    assert ("stress and virial contradict each other" in text) == bool(frames)
    assert frames in text


@pytest.mark.parametrize(
    ("order", "method", "told"), [("time", "random", True), ("time", "end", False), ("none", "random", False)]
)
def test_random_division_of_a_trajectory_is_remarked(
    tmp_path: Path, settings: Callable[..., dict[str, Any]], order: str, method: str, told: bool
) -> None:
    frames = trajectory(strains=(1.0,), length=40)
    if order == "none":
        np.random.default_rng(0).shuffle(frames)
    write(tmp_path / "md.extxyz", frames)
    data = {"train": str(tmp_path / "md.extxyz"), "split": {"valid": 4, "test": 4, "method": method}}
    text, _ = check_settings(parse_config(settings(data=data)))
    assert ("frames that follow one another are alike" in text) == told, text


def test_cutoff_that_does_not_suit_the_data_is_remarked(
    tmp_path: Path, settings: Callable[..., dict[str, Any]]
) -> None:
    """At 2.5 Angstrom some of the dimers see nothing, at 6 none is as wide as the cutoff, at 3.3 all is well."""
    dimers = []
    for k in range(10):
        atoms = Atoms("Cu2", positions=[[0, 0, 0], [2.3 + 0.1 * k, 0, 0]])
        forces = np.array([[0.1, 0, 0], [-0.1, 0, 0]])
        atoms.calc = SinglePointCalculator(atoms, energy=0.1 * k, forces=forces)
        dimers.append(atoms)
    write(tmp_path / "dimers.extxyz", dimers)
    notes = {}
    for cutoff in (2.5, 3.3, 6.0):
        values = settings(data={"train": str(tmp_path / "dimers.extxyz")}, model={"cutoff": cutoff})
        notes[cutoff] = [line for line in check_settings(parse_config(values))[0].splitlines() if "note:" in line]
    assert ["without any neighbour" in line for line in notes[2.5]] == [True]
    assert notes[3.3] == []
    assert ["no two atoms are farther apart than 3.20 Angstrom" in line for line in notes[6.0]] == [True]
