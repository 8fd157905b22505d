"""Going on from a potential: nothing changes on the old species; the new data are learnt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.io import write
from train_frames import label_with_emt

from asenequip.artifact import save_artifact
from asenequip.graph import graph_of
from asenequip.model.allegro import Allegro
from asenequip.model.derivatives import evaluate_derivatives
from asenequip.model.spec import AllegroSpec, PairSpec
from asenequip.train import fit
from asenequip.train.config import ConfigError
from asenequip.train.finetune import extend_species
from asenequip.train.rundir import RunDirectory

SMALL = {"num_scalar_features": 8, "num_tensor_features": 4, "two_body_width": 8, "latent_width": 8, "readout_width": 8}
Settings = Callable[..., dict[str, Any]]


def model_of(*names: str, **options: Any) -> Allegro:
    neighbors = tuple(10.0 + k for k in range(len(names)))
    spec = AllegroSpec(names, cutoff=3.5, l_max=1, avg_num_neighbors=neighbors, **{**SMALL, **options})
    return Allegro(spec, seed=4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"radial": "spline"},
        {"pair": PairSpec(kind="lj", sigma=2.0)},
        {"pair_cutoffs": ((3.5, 3.0), (2.8, 3.2))},
    ],
    ids=["bessel", "spline", "lennard-jones", "pair-cutoffs"],
)
def test_old_species_do_not_notice_new_ones(options: dict[str, Any]) -> None:
    old = model_of("Cu", "Al", **options)
    new = extend_species(old, ["Al", "Au", "Ni"], [12.0, 12.0, 11.0], seed=1)
    assert new.spec.type_names == ("Cu", "Al", "Au", "Ni")
    (atoms,) = label_with_emt(1, seed=6)
    results = []
    for model in (old, new):
        graph = graph_of(atoms, model.spec.type_names, np.array(model.spec.cutoff_table()))
        results.append(evaluate_derivatives(model, graph))
    assert torch.equal(results[0].energies, results[1].energies)
    assert torch.equal(results[0].forces, results[1].forces)


def test_new_species_is_learnt_from_the_old_potential(settings: Settings, tmp_path: Path) -> None:
    start = save_artifact(tmp_path / "start.asnq", model_of("Cu", "Al").to(torch.float32))
    frames = label_with_emt(10, seed=7, amplitude=0.05, elements=("Cu", "Au"))
    training = {"epochs": 30, "learning_rate": 0.02}
    values = settings(start=str(start), training=training, data={"split": {"valid": 2, "test": 2}})
    values.pop("model")
    potential = fit(frames, values)
    assert potential.spec.type_names == ("Cu", "Al", "Au")
    header, *rows = (line.split(",") for line in (tmp_path / "run" / "metrics.csv").read_text().splitlines())
    losses = [float(row[header.index("valid_loss")]) for row in rows]
    assert losses[-1] < 0.3 * losses[0]


def test_other_hyperparameters_are_refused(settings: Settings, tmp_path: Path) -> None:
    start = save_artifact(tmp_path / "start.asnq", model_of("Cu", "Al"))
    with pytest.raises(ConfigError, match=r"model\.l_max: 2 \(there: 1\)"):
        fit(label_with_emt(6, seed=8), settings(start=str(start), model={"l_max": 2}))


def test_frozen_parts_stay(settings: Settings, tmp_path: Path) -> None:
    start = save_artifact(tmp_path / "start.asnq", model_of("Cu", "Al").to(torch.float32))
    values = settings(start=str(start), training={"epochs": 1, "freeze": ["two_body", "track"]})
    values.pop("model")
    potential = fit(label_with_emt(8, seed=9), values)
    before = model_of("Cu", "Al").to(torch.float32).state_dict()
    for name, tensor in potential.model.state_dict().items():
        same = torch.equal(tensor.to(torch.float32), before[name].to(torch.float32))
        if name.startswith(("two_body", "track")):
            assert same, name
        if name.startswith(("latents", "readout")):
            assert not same, name


def test_unknown_part_is_refused(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="two_body"):
        fit(label_with_emt(6, seed=8), settings(training={"freeze": ["twobody"]}))


def test_replay_keeps_the_old_data_known(settings: Settings, tmp_path: Path) -> None:
    """A potential of copper and aluminium goes on with gold alloys; a third of the old frames each epoch, or none."""
    old, new = label_with_emt(12, seed=1), label_with_emt(8, seed=2, elements=("Cu", "Au"))
    write(tmp_path / "old.extxyz", old)
    write(tmp_path / "new.extxyz", new)
    training = {"epochs": 20, "learning_rate": 0.02}
    none = {"valid": 0, "test": 0}
    start = fit(old, settings(training=training, data={"split": none}, output=str(tmp_path / "start")))
    replayed = {"path": str(tmp_path / "old.extxyz"), "per_epoch": 0.34}
    errors = []
    for name, train in (
        ("alone", [str(tmp_path / "new.extxyz")]),
        ("replay", [str(tmp_path / "new.extxyz"), replayed]),
    ):
        values = settings(start=str(start.path), training=training, output=str(tmp_path / name))
        values["data"] = {"train": train, "test": str(tmp_path / "old.extxyz"), "split": none}
        values.pop("model")
        fit(None, values)
        errors.append(RunDirectory(tmp_path / name).read_json("summary.json")["test"]["forces_rmse"])
    assert errors[1] < 0.6 * errors[0]
