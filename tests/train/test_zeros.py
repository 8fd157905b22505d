"""Zeros of energy of data sets, against zeros that were put there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from train_frames import label_with_emt

from asenequip.train import fit
from asenequip.train.config import Config, parse_config
from asenequip.train.data import collate
from asenequip.train.metrics import predict
from asenequip.train.prepare import Prepared, prepare, read_data
from asenequip.train.table import tabulate
from asenequip.train.zeros import Zeros

ZERO, MIXING = 5.0, 2.0
"""eV per atom."""


def moved(frames: list[Atoms], zero: float) -> list[Atoms]:
    """Frames with a zero added, and an energy of mixing."""
    for atoms in frames:
        part = float((atoms.symbols == "Cu").mean())
        energy = atoms.calc.results["energy"] + len(atoms) * (zero - MIXING * part * (1 - part))
        results = {**atoms.calc.results, "energy": energy}
        atoms.calc = SinglePointCalculator(atoms, **results)
    return frames


@pytest.fixture
def two_zeros(tmp_path: Path) -> list[dict[str, Any]]:
    """Alloys with some copper, and copper in another zero, which least squares takes for a lower energy of mixing."""
    write(
        tmp_path / "alloys.extxyz", moved(label_with_emt(24, seed=2) + label_with_emt(6, seed=4, elements=("Cu",)), 0.0)
    )
    write(tmp_path / "copper.extxyz", moved(label_with_emt(12, seed=3, elements=("Cu",)), ZERO))
    return [
        {"path": str(tmp_path / "alloys.extxyz")},
        {"path": str(tmp_path / "copper.extxyz"), "own_shifts": True},
    ]


def zeros_of(config: Config) -> tuple[Prepared, Zeros]:
    prepared = prepare(config, read_data(config))
    samples = prepared.samples["train"]
    return prepared, Zeros(samples, tabulate(samples, 2), config.data.train, prepared.statistics.offsets, 2)


def test_zeros_are_found_where_the_network_is_exact(
    settings: Callable[..., dict[str, Any]], two_zeros: list[dict[str, Any]]
) -> None:
    prepared, zeros = zeros_of(parse_config(settings(data={"train": two_zeros}, dtype="float64")))
    truth = np.array([[0.0, 0.0], [0.3, -0.7]])
    right = predict(prepared.model, zeros.samples, truth)
    zeros.samples = [
        replace(s, frame=replace(s.frame, energy=p.energy)) for s, p in zip(zeros.samples, right, strict=True)
    ]
    found = zeros.fit(prepared.model, np.zeros((2, 2)))
    copper = prepared.species.index("Cu")
    assert found[1, copper] == pytest.approx(truth[1, copper], abs=1e-9)
    assert not found[0].any()


def test_offsets_come_off_the_labels_of_their_own_set(
    settings: Callable[..., dict[str, Any]], two_zeros: list[dict[str, Any]]
) -> None:
    prepared, zeros = zeros_of(parse_config(settings(data={"train": two_zeros})))
    loaded = prepared.statistics.offsets
    frames = [0, len(zeros.samples) - 1]
    chosen = [zeros.samples[k] for k in frames]
    present = np.add(loaded, [[0.0, 0.0], [0.25, -0.5]])
    wanted = collate(chosen, present).energies
    batch = zeros.put(collate(chosen, loaded), frames, present)
    torch.testing.assert_close(batch.energies, wanted, rtol=0, atol=1e-12)
    assert list(zeros.frames) == [1]


def test_training_finds_the_zero_that_least_squares_cannot(
    settings: Callable[..., dict[str, Any]], two_zeros: list[dict[str, Any]]
) -> None:
    training = {"epochs": 200, "batch_size": 4}
    potential = fit(None, settings(data={"train": two_zeros}, training=training))
    assert potential.path is not None
    run = potential.path.parent
    statistics, summary = (json.loads((run / f"{name}.json").read_text()) for name in ("statistics", "summary"))
    copper = statistics["species"].index("Cu")
    first, last = statistics["offsets"][1][copper], summary["energy_zeros"][two_zeros[1]["path"]]["Cu"]
    assert abs(last - ZERO) < 0.3 * abs(first - ZERO)
