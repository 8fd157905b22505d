"""Errors of whole parts, by species and by data set, against sums over the predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from train_frames import label_with_emt

from asenequip.train.batching import Loader
from asenequip.train.config import Config, parse_config
from asenequip.train.loss import LossFunction
from asenequip.train.metrics import predict, validate
from asenequip.train.prepare import Prepared, prepare, read_data

ROUNDING = 1e-9
"""Relative: float64 sums over frames in two orders."""


@pytest.fixture
def two_sets(settings: Callable[..., dict[str, Any]], tmp_path: Path, frames: list[Atoms]) -> Config:
    write(tmp_path / "first.extxyz", frames)
    write(tmp_path / "second.extxyz", label_with_emt(6, seed=3, amplitude=0.3))
    sets = [{"path": str(tmp_path / "first.extxyz")}, {"path": str(tmp_path / "second.extxyz"), "own_shifts": True}]
    return parse_config(settings(data={"train": sets, "split": {"valid": 2, "test": 0}}, dtype="float64"))


def errors_of(prepared: Prepared, budget: int | None = None) -> dict[str, float]:
    loader = Loader(prepared.samples["valid"], prepared.statistics.offsets)
    loss = LossFunction(prepared.config.loss, prepared.species)
    return validate(prepared.model, loader, loss, batch_size=3, budget=budget)


def test_errors_by_data_set_and_species_are_those_of_numpy(two_sets: Config) -> None:
    prepared = prepare(two_sets, read_data(two_sets))
    samples = prepared.samples["valid"]
    assert [sample.frame.name for sample in samples] == ["first", "first", "second", "second"]
    found = errors_of(prepared)
    predictions = predict(prepared.model, samples, prepared.statistics.offsets)
    for name in ("first", "second"):
        pairs = [(s.frame, p) for s, p in zip(samples, predictions, strict=True) if s.frame.name == name]
        energy = [(p.energy - f.energy) / len(f.atoms) for f, p in pairs]
        forces = np.concatenate([p.forces - f.forces for f, p in pairs])
        stress = np.array([p.stress - f.stress for f, p in pairs])
        for quantity, values in (("energy", energy), ("forces", forces), ("stress", stress)):
            assert found[f"{quantity}_mae@{name}"] == pytest.approx(np.abs(values).mean(), rel=ROUNDING)
            assert found[f"{quantity}_rmse@{name}"] == pytest.approx(np.sqrt(np.mean(np.square(values))), rel=ROUNDING)
    copper = np.concatenate(
        [(p.forces - s.frame.forces)[s.frame.atoms.symbols == "Cu"] for s, p in zip(samples, predictions, strict=True)]
    )
    assert found["forces_rmse_Cu"] == pytest.approx(np.sqrt(np.mean(copper**2)), rel=ROUNDING)


def test_errors_do_not_depend_on_the_batches(two_sets: Config) -> None:
    prepared = prepare(two_sets, read_data(two_sets))
    whole, small = errors_of(prepared), errors_of(prepared, budget=1)
    assert whole == pytest.approx(small, rel=ROUNDING)


def test_one_data_set_has_no_columns_of_its_own(settings: Callable[..., dict[str, Any]], frames: list[Atoms]) -> None:
    config = parse_config(settings())
    assert not [name for name in errors_of(prepare(config, read_data(config, frames))) if "@" in name]
