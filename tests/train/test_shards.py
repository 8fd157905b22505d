"""Shards: the frames that went in come out, and training on them is training in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from train_frames import fit_and_die, same_runs

from asenequip.train import fit, parse_config
from asenequip.train.config import Config, ConfigError
from asenequip.train.data import SPLITS
from asenequip.train.prepare import prepare, read_data
from asenequip.train.preprocess import preprocess
from asenequip.train.resume import resume_run
from asenequip.train.rundir import RunDirectory
from asenequip.train.table import tabulate

pytest.importorskip("lmdb")
Settings = Callable[..., dict[str, Any]]


@pytest.fixture
def config(data_file: Path, settings: Settings) -> Config:
    return parse_config(settings(data={"train": [{"path": str(data_file), "weight": 2.0}]}))


@pytest.fixture
def sharded(config: Config, tmp_path: Path) -> Config:
    preprocess(config, tmp_path / "shards", shard_megabytes=1)
    return with_data(config, shards=str(tmp_path / "shards"))


def with_data(config: Config, **changes: Any) -> Config:
    return parse_config({**config.model_dump(), "data": {**config.data.model_dump(), **changes}})


def test_frames_and_neighbor_lists_come_back_exactly(config: Config, sharded: Config) -> None:
    wanted, found = (prepare(c, read_data(c)) for c in (config, sharded))
    for name in SPLITS:
        assert len(found.samples[name]) == len(wanted.samples[name])
        for a, b in zip(wanted.samples[name], found.samples[name], strict=True):
            assert (a.frame.source, a.frame.energy, a.frame.weight) == (b.frame.source, b.frame.energy, b.frame.weight)
            np.testing.assert_array_equal(a.frame.forces, b.frame.forces)
            np.testing.assert_array_equal(a.frame.stress, b.frame.stress)
            for field, value in vars(a.graph).items():
                other = getattr(b.graph, field)
                assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, field
        tables = [tabulate(p.samples[name], len(p.species)) for p in (wanted, found)]
        for column, value in vars(tables[0]).items():
            np.testing.assert_array_equal(getattr(tables[1], column), value, err_msg=column)


def test_several_files_are_read_as_one_set(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of few frames each."""
    from asenequip.train import preprocess as module

    monkeypatch.setattr(module._ShardWriter, "__init__", small_shards(module._ShardWriter.__init__))
    preprocess(config, tmp_path / "many")
    assert len(list((tmp_path / "many").glob("*.lmdb"))) > 3
    found = prepare(config, read_data(with_data(config, shards=str(tmp_path / "many"))))
    wanted = prepare(config, read_data(config))
    for a, b in zip(wanted.samples["train"], found.samples["train"], strict=True):
        np.testing.assert_array_equal(a.frame.atoms.positions, b.frame.atoms.positions)


def small_shards(original: Callable[..., None]) -> Callable[..., None]:
    def changed(self: Any, folder: Path, size: int) -> None:
        original(self, folder, 40_000)

    return changed


@pytest.mark.parametrize("workers", [0, 1])
def test_training_on_shards_is_training_in_memory(
    config: Config, sharded: Config, workers: int, tmp_path: Path
) -> None:
    fit(None, config)
    training = sharded.training.model_copy(update={"workers": workers})
    fit(None, sharded.model_copy(update={"training": training, "output": str(tmp_path / "streamed")}))
    assert same_runs(tmp_path / "run", tmp_path / "streamed")


def test_killed_run_on_shards_goes_on_bit_for_bit(
    sharded: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharded = sharded.model_copy(
        update={"training": sharded.training.model_copy(update={"checkpoint_seconds": 0.0, "workers": 1})}
    )
    fit(None, sharded)
    other = sharded.model_copy(update={"output": str(tmp_path / "killed")})
    fit_and_die(monkeypatch, other, 6)
    resume_run(tmp_path / "killed", RunDirectory(tmp_path / "killed").config(), quiet=True, say=lambda t: None)
    assert same_runs(tmp_path / "run", tmp_path / "killed")


@pytest.mark.parametrize(
    ("changes", "word"), [({"split": {"valid": 4}}, "data.split"), ({"max_frames": 3}, "data.max_frames")]
)
def test_shards_of_other_settings_are_refused(sharded: Config, changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        read_data(with_data(sharded, **changes))


def test_weights_may_change_after_the_shards_are_written(sharded: Config) -> None:
    train = [{**sharded.data.train[0].model_dump(), "weight": 0.5}]
    shards = read_data(with_data(sharded, train=train))
    assert shards.frame(0, shards.arrays(0)).weight == 0.5


def test_another_cutoff_is_refused(sharded: Config) -> None:
    other = sharded.model_copy(update={"model": sharded.model.model_copy(update={"cutoff": 3.0})})
    with pytest.raises(ConfigError, match="other cutoffs"):
        prepare(other, read_data(other))


def test_unfinished_folder_is_refused(sharded: Config, tmp_path: Path) -> None:
    (tmp_path / "shards" / "shards.json").unlink()
    with pytest.raises(ConfigError, match="not a finished folder of shards"):
        read_data(sharded)


def test_damaged_record_names_its_frame(sharded: Config, tmp_path: Path) -> None:
    """One flipped bit inside the positions of frame 4."""
    shards = read_data(sharded)
    row = next(k for k in range(12) if shards.source(k).endswith("#4"))
    positions = shards.arrays(row)["positions"].tobytes()
    path = tmp_path / "shards" / "shard-00000.lmdb"
    flipped = bytes([positions[0] ^ 1]) + positions[1:]
    path.write_bytes(path.read_bytes().replace(positions, flipped))  # pages that are not in use any more, too
    with pytest.raises(ConfigError, match=r"damaged at .*emt\.extxyz#4"):
        shards.arrays(row)


def test_existing_folder_is_not_touched(config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not overwritten"):
        preprocess(config, tmp_path)
