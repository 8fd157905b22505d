"""Labels, units and division of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.io import write
from ase.stress import voigt_6_to_full_3x3_stress
from hypothesis import given
from hypothesis import strategies as st

from asenequip.train.config import ConfigError, Dataset, Split, parse_config
from asenequip.train.data import collate, make_samples, take_labels
from asenequip.train.sources import divide, entry_of, load_data, read_dataset


def test_labels_are_those_of_the_calculator(frames: list[Atoms]) -> None:
    frame = take_labels(frames[0], Dataset(path="x"), "x#0")
    assert frame.energy == frames[0].get_potential_energy()
    np.testing.assert_array_equal(frame.forces, frames[0].get_forces())
    np.testing.assert_array_equal(frame.stress, voigt_6_to_full_3x3_stress(frames[0].get_stress()))


def test_labels_under_other_names() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.info["dft"] = -3.0
    atoms.arrays["f"] = np.full((4, 3), 0.5)
    keys = {"energy": "dft", "forces": "f"}
    frame = take_labels(atoms, Dataset.model_validate({"path": "x", "keys": keys}), "x#0")
    assert frame.energy == -3.0
    assert np.all(frame.forces == 0.5)
    assert np.isnan(frame.stress).all()


def test_units_are_converted() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.info["energy"], atoms.info["stress"] = 2.0, np.eye(3)
    atoms.arrays["forces"] = np.ones((4, 3))
    unit = {"energy": "Hartree", "length": "Bohr", "stress": "GPa", "stress_sign": -1}
    frame = take_labels(atoms, Dataset.model_validate({"path": "x", "units": unit}), "x#0")
    assert frame.energy == pytest.approx(2.0 * units.Hartree, rel=1e-14)
    assert frame.forces[0, 0] == pytest.approx(units.Hartree / units.Bohr, rel=1e-14)
    assert frame.stress[0, 0] == pytest.approx(-units.GPa, rel=1e-14)


def test_virial_is_minus_volume_times_stress() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.info["virial"] = np.diag([1.0, 2.0, 3.0])
    keys = {"virial": "virial"}
    frame = take_labels(atoms, Dataset.model_validate({"path": "x", "keys": keys}), "x#0")
    np.testing.assert_allclose(frame.stress, -np.diag([1.0, 2.0, 3.0]) / atoms.get_volume(), rtol=1e-14)


@pytest.mark.parametrize(
    ("label", "value", "message"),
    [
        ("energy", np.nan, "finite"),
        ("stress", np.ones(5), "shape"),
        ("energy", [1.0], "shape"),
        ("energy", "abc", "numbers"),
    ],
)
def test_malformed_label_names_file_and_frame(tmp_path: Path, label: str, value: object, message: str) -> None:
    atoms = bulk("Cu")
    atoms.info[label] = value
    with pytest.raises(ConfigError, match=f"{message}") as error:
        take_labels(atoms, Dataset(path="x"), "some.xyz#7")
    assert "some.xyz#7" in str(error.value)


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.extxyz"
    path.write_text("3\nnonsense\nCu 0 0\n")
    with pytest.raises(ConfigError, match=r"bad\.extxyz"):
        read_dataset(Dataset(path=str(path)))


def _numbered(count: int) -> list:
    out = []
    for k in range(count):
        atoms = bulk("Cu")
        atoms.info["group"] = k // 3
        out.append(take_labels(atoms, Dataset(path="x"), str(k)))
    return [entry_of(frame, Split(key="group")) for frame in out]


@given(
    count=st.integers(4, 40),
    valid=st.sampled_from([0, 0.1, 0.3, 2]),
    test=st.sampled_from([0, 0.2, 1]),
    method=st.sampled_from(["random", "end", "group"]),
)
def test_every_frame_is_in_one_part(count: int, valid: float, test: float, method: str) -> None:
    frames = _numbered(count)
    split = Split(valid=valid, test=test, method=method, key="group")
    parts = divide(frames, split, ["valid", "test"])
    assert sorted(k for part in parts.values() for k in part) == list(range(count))
    assert parts["train"]


def test_division_is_a_matter_of_its_seed() -> None:
    first, again, other = (divide(_numbered(30), Split(seed=seed), ["valid", "test"]) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_groups_stay_together() -> None:
    parts = divide(_numbered(30), Split(valid=0.2, test=0.2, method="group", key="group"), ["valid", "test"])
    owners = {name: {k // 3 for k in chosen} for name, chosen in parts.items()}
    assert not owners["train"] & owners["valid"]
    assert not owners["train"] & owners["test"]
    assert len(parts["valid"]) == 6


def test_end_takes_the_last_frames() -> None:
    parts = divide(_numbered(10), Split(valid=2, test=3, method="end"), ["valid", "test"])
    assert parts == {"train": [0, 1, 2, 3, 4], "valid": [5, 6], "test": [7, 8, 9]}


def test_key_that_says_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="train, valid or test"):
        divide(_numbered(3), Split(method="key", key="split"), ["valid", "test"])


def test_isolated_atoms_are_set_apart(tmp_path: Path, frames: list[Atoms]) -> None:
    lone = Atoms("Cu")
    lone.info["energy"] = -1.0
    path = tmp_path / "mixed.extxyz"
    write(path, [*frames, lone])
    parts = load_data(parse_config({"data": {"train": str(path)}}).data)
    assert [frame.energy for frame in parts["isolated"]] == [-1.0]
    assert sum(len(parts[name]) for name in ("train", "valid", "test")) == len(frames)


@pytest.mark.parametrize(("width", "periodic", "alone"), [(10.0, True, True), (3.0, True, False), (3.0, False, True)])
def test_atom_alone_in_a_box_is_isolated(width: float, periodic: bool, alone: bool) -> None:
    atom = Atoms("Cu", cell=[width] * 3, pbc=periodic)
    assert take_labels(atom, Dataset(path="x"), "x#0").isolated is alone


@pytest.mark.parametrize("split", [Split(valid=20, test=5), Split(valid=0.6, test=0.6), Split(valid=0, test=12)])
def test_split_that_leaves_nothing_is_refused(split: Split) -> None:
    with pytest.raises(ConfigError, match="frames of the 12 of"):
        divide(_numbered(12), split, ["valid", "test"])


def test_file_of_test_frames_only_is_right_beside_others(tmp_path: Path, frames: list[Atoms]) -> None:
    for name, part in (("train", frames[:8]), ("test", frames[8:])):
        for atoms in part:
            atoms.info["split"] = name
        write(tmp_path / f"{name}.extxyz", part)
    files = [str(tmp_path / f"{name}.extxyz") for name in ("train", "test")]
    parts = load_data(parse_config({"data": {"train": files, "split": {"method": "key"}}}).data)
    assert [len(parts[name]) for name in ("train", "valid", "test")] == [8, 0, 4]


def test_batch_joins_labels_in_order(frames: list[Atoms]) -> None:
    labelled = [take_labels(atoms, Dataset(path="x"), str(k)) for k, atoms in enumerate(frames[:3])]
    batch = collate(make_samples(labelled, ["Al", "Cu"], np.full((2, 2), 3.0)))
    np.testing.assert_array_equal(batch.energies.numpy(), [atoms.get_potential_energy() for atoms in frames[:3]])
    np.testing.assert_array_equal(batch.forces.numpy(), np.concatenate([atoms.get_forces() for atoms in frames[:3]]))
    virial = voigt_6_to_full_3x3_stress(frames[1].get_stress()) * frames[1].get_volume()
    np.testing.assert_allclose(batch.virials[1].numpy(), virial, rtol=1e-12)


def test_unknown_element_names_the_frame(frames: list[Atoms]) -> None:
    labelled = [take_labels(frames[0], Dataset(path="x"), "data.xyz#3")]
    with pytest.raises(ConfigError, match=r"data\.xyz#3"):
        make_samples(labelled, ["Li"], np.full((1, 1), 3.0))
