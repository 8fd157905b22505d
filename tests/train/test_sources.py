"""Reading ASE databases: the labels of the same frames in a text file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.db import connect

from asenequip.train.config import ConfigError, Dataset
from asenequip.train.sources import read_dataset


def write_database(path: Path, frames: list[Atoms]) -> Path:
    with connect(str(path)) as database:
        for k, atoms in enumerate(frames):
            database.write(atoms, key_value_pairs={"part": "train", "reference": -1.0 - k})
    return path


@pytest.mark.parametrize("ending", [".db", ".json", ".aselmdb"])
@pytest.mark.parametrize("index", [":", "2:9:3", "-1", "::-1"])
def test_database_gives_the_labels_of_its_rows(tmp_path: Path, frames: list[Atoms], ending: str, index: str) -> None:
    if ending == ".aselmdb":
        pytest.importorskip("ase_db_backends")
    path = write_database(tmp_path / f"data{ending}", frames)
    found = read_dataset(Dataset(path=str(path), index=index))
    wanted = [frames[-1]] if index == "-1" else frames[slice(*(int(v) if v else None for v in index.split(":")))]
    assert len(found) == len(wanted)
    for frame, atoms in zip(found, wanted, strict=True):
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), rel=1e-15)
        np.testing.assert_array_equal(frame.forces, atoms.get_forces())
        np.testing.assert_array_equal(frame.atoms.positions, atoms.positions)


def test_key_value_pairs_are_labels_too(tmp_path: Path, frames: list[Atoms]) -> None:
    path = write_database(tmp_path / "data.db", frames[:2])
    found = read_dataset(Dataset.model_validate({"path": str(path), "keys": {"energy": "reference"}}))
    assert [frame.energy for frame in found] == [-1.0, -2.0]
    assert found[0].atoms.info["part"] == "train"


def test_folder_of_databases_is_one_data_set(tmp_path: Path, frames: list[Atoms]) -> None:
    pytest.importorskip("ase_db_backends")
    write_database(tmp_path / "a.aselmdb", frames[:5])
    write_database(tmp_path / "b.aselmdb", frames[5:])
    found = read_dataset(Dataset(path=str(tmp_path), index="3:8"))
    assert [frame.energy for frame in found] == [atoms.get_potential_energy() for atoms in frames[3:8]]


def test_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_text("nothing of the kind")
    with pytest.raises(ConfigError, match=r"broken\.db cannot be read"):
        read_dataset(Dataset(path=str(tmp_path / "broken.db")))
