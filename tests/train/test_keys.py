"""Labels under other names: found, or refused with what the frames have instead; never silently passed over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.io import write

from asenequip.train import fit
from asenequip.train.config import ConfigError, Dataset, parse_config
from asenequip.train.init import write_settings
from asenequip.train.keys import check_keys
from asenequip.train.settings_file import load_config
from asenequip.train.sources import load_data, read_dataset

CUSTOM = {"energy": "REF_energy", "forces": "REF_forces", "stress": "dft_stress"}


def rename_labels(frames: list[Atoms]) -> list[Atoms]:
    """The frames with their labels under the names of `CUSTOM`, no calculator."""
    out = []
    for frame in frames:
        atoms = Atoms(frame.symbols, positions=frame.positions, cell=frame.cell, pbc=frame.pbc)
        atoms.info["REF_energy"] = frame.get_potential_energy()
        atoms.arrays["REF_forces"] = frame.get_forces()
        atoms.info["dft_stress"] = frame.get_stress(voigt=False)
        out.append(atoms)
    return out


@pytest.fixture
def custom_file(tmp_path: Path, frames: list[Atoms]) -> Path:
    path = tmp_path / "custom.extxyz"
    write(path, rename_labels(frames))
    return path


def test_labels_under_usual_names_are_not_passed_over(custom_file: Path, settings: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"custom\.extxyz have 'REF_energy' but no 'energy'") as error:
        fit(None, settings(data={"train": str(custom_file)}))
    assert "{energy: REF_energy}" in str(error.value)


def test_same_of_frames_given_in_memory(frames: list[Atoms], settings: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="the given list have 'REF_energy'"):
        fit(rename_labels(frames), settings())


def test_misspelt_name_is_told_from_the_nearest(custom_file: Path) -> None:
    keys = {**CUSTOM, "forces": "REF_froces"}
    with pytest.raises(
        ConfigError, match=r"'REF_froces' that keys\.forces names.\nDid you mean 'REF_forces'\?"
    ) as error:
        read_dataset(Dataset.model_validate({"path": str(custom_file), "keys": keys}))
    assert "dft_stress" in str(error.value)


def test_settings_of_init_find_the_labels(custom_file: Path, frames: list[Atoms], tmp_path: Path) -> None:
    write_settings(custom_file, tmp_path / "config.yaml")
    config = load_config(tmp_path / "config.yaml")
    assert config.data.train[0].keys.model_dump(exclude={"virial"}) == CUSTOM
    parts = load_data(config.data)
    energies = sorted(frame.energy for part in parts.values() for frame in part)
    # the file holds eight decimals
    assert energies == pytest.approx(sorted(frame.get_potential_energy() for frame in frames), abs=1e-7)


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ({}, {"energy", "forces"}),  # stress may be absent
        ({}, {"energy", "forces", "stress", "REF_energy"}),
        ({"stress": None}, {"energy", "forces", "REF_stress"}),
        ({"stress": "s", "virial": "v"}, {"energy", "forces", "v"}),
        ({"energy": None}, {"REF_energy", "forces"}),
    ],
)
def test_what_is_there_or_left_out_on_purpose_passes(keys: dict[str, str | None], names: set[str]) -> None:
    check_keys(Dataset.model_validate({"path": "x", "keys": keys}), names, "x")


def test_virial_is_not_passed_over() -> None:
    names = {"energy", "forces", "dft_virial"}
    with pytest.raises(ConfigError, match=r"\{virial: dft_virial\} for them in data, or \{stress: null\}"):
        check_keys(Dataset(path="x"), names, "x")
    for keys in ({"virial": "dft_virial"}, {"stress": None}):
        check_keys(Dataset.model_validate({"path": "x", "keys": keys}), names, "x")


def test_isolated_atoms_need_energies_only(tmp_path: Path, custom_file: Path) -> None:
    atom = Atoms("Cu")
    atom.info["REF_energy"] = -1.0
    write(tmp_path / "atoms.extxyz", atom)
    paths = (custom_file, tmp_path / "atoms.extxyz")
    values = {"train": [{"path": str(path), "keys": CUSTOM} for path in paths]}
    assert [frame.energy for frame in load_data(parse_config({"data": values}).data)["isolated"]] == [-1.0]


def test_labels_of_frames_in_memory_are_named_as_in_a_file(frames: list[Atoms]) -> None:
    data = parse_config({"data": {"train": {"path": "mine", "keys": CUSTOM}, "split": {"valid": 2, "test": 2}}}).data
    parts = load_data(data, rename_labels(frames))
    found = sorted(frame.energy for part in parts.values() for frame in part)
    assert found == sorted(frame.get_potential_energy() for frame in frames)
