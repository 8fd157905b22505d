"""What is refused or remarked on between the settings and the first step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from train_frames import label_with_emt

from asenequip.train.config import ConfigError, Dataset, parse_config
from asenequip.train.data import make_samples, take_labels
from asenequip.train.preconditions import check_labels, remarks
from asenequip.train.prepare import Prepared, pick_device, prepare, read_data
from asenequip.train.table import FrameTable, tabulate

Settings = Callable[..., dict[str, Any]]


def prepared_from(settings: dict[str, Any], frames: list[Atoms]) -> Prepared:
    config = parse_config(settings)
    return prepare(config, read_data(config, frames))


@pytest.mark.parametrize("name", ["cdua", "meta", "cpu:x"])
def test_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"auto, cpu, cuda or cuda:N. Got '{name}'"):
        pick_device(name)


@pytest.mark.parametrize(
    "section", [{"loss": {"species_weights": {"Cl": 2.0}}}, {"model": {"energy_scales": {"Cl": 1}}}]
)
def test_weight_of_a_species_that_is_not_there_is_refused(
    section: dict[str, Any], frames: list[Atoms], settings: Settings
) -> None:
    with pytest.raises(ConfigError, match="names Cl, but the species are Al, Cu"):
        prepared_from(settings(**section), frames)


def test_sound_division_needs_no_remark(frames: list[Atoms], settings: Settings) -> None:
    assert remarks(prepared_from(settings(), frames)) == []


def test_missing_validation_and_untrained_species_are_remarked(settings: Settings) -> None:
    copper, mixed = label_with_emt(4, seed=3, elements=("Cu",)), label_with_emt(2, seed=4)
    frames = [*copper, *mixed]
    for k, atoms in enumerate(frames):
        atoms.info["split"] = "train" if k < len(copper) else "test"
    found = remarks(prepared_from(settings(data={"split": {"method": "key"}}), frames))
    assert len(found) == 2
    assert "no training frame holds Al" in found[0]
    assert "no validation frames" in found[1]


def table_with(frames: list[Atoms], *names: str) -> FrameTable:
    """The table of frames that have only the named labels."""
    for atoms in frames:
        atoms.calc.results = {name: value for name, value in atoms.calc.results.items() if name in names}
    labelled = [take_labels(atoms, Dataset(path="x"), "x") for atoms in frames]
    return tabulate(make_samples(labelled, ["Al", "Cu"], np.full((2, 2), 3.0)), 2)


@pytest.mark.parametrize(
    ("settings", "present", "wrong"),
    [
        ({}, ("forces", "stress"), r"an energy, which loss\.energy weighs by 10"),
        ({}, ("energy",), r"forces, which loss\.forces weighs by 1"),
        ({"energy": 0.0, "stages": [{"at": 0.5, "energy": 3.0}]}, ("forces",), r"loss\.energy weighs by 3"),
        ({"energy": 0.0, "forces": 0.0}, ("energy", "forces"), "weighs no label"),
    ],
)
def test_loss_of_labels_that_are_not_there_is_refused(
    frames: list[Atoms], settings: dict[str, object], present: tuple[str, ...], wrong: str
) -> None:
    with pytest.raises(ConfigError, match=wrong):
        check_labels(parse_config({"loss": settings}).loss, table_with(frames, *present))


@pytest.mark.parametrize(
    ("settings", "present"),
    [({}, ("energy", "forces")), ({"energy": 0.0}, ("forces",)), ({"energy": 0.0, "forces": 0.0}, ("stress",))],
)
def test_loss_of_labels_that_are_there_passes(
    frames: list[Atoms], settings: dict[str, object], present: tuple[str, ...]
) -> None:
    check_labels(parse_config({"loss": settings}).loss, table_with(frames, *present))
