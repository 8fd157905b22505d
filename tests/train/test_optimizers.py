"""Every way of taking steps goes on bit for bit; what each does to its parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from train_frames import KilledError, fit_and_die, same_runs

from asenequip.train import fit
from asenequip.train.config import Training
from asenequip.train.loop import Trainer
from asenequip.train.optimizers import Optimizer
from asenequip.train.polish import Polisher
from asenequip.train.resume import resume_run
from asenequip.train.rundir import RunDirectory

Settings = Callable[..., dict[str, Any]]
WAYS: dict[str, dict[str, Any]] = {
    "amsgrad": {"optimizer": "amsgrad", "clip": 1.0},
    "muon": {"optimizer": "muon", "schedule": "plateau", "plateau_patience": 1},
    "schedule_free": {"optimizer": "schedule_free", "warmup_steps": 3},
    "padded": {"pad": True, "batch_size": 4, "max_edges": 250, "ema": 0.0},
}


@pytest.mark.parametrize("way", WAYS)
def test_killed_run_goes_on_bit_for_bit(
    data_file: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Stopped between two checkpoints, in the middle of the second epoch."""
    if way == "schedule_free":
        pytest.importorskip("schedulefree")
    training = {"checkpoint_seconds": 0.0, **WAYS[way]}
    values = settings(data={"train": str(data_file)}, training=training)
    fit(None, values)
    fit_and_die(monkeypatch, {**values, "output": str(tmp_path / "killed")}, steps=6)
    resume_run(tmp_path / "killed", RunDirectory(tmp_path / "killed").config(), quiet=True, say=lambda t: None)
    assert same_runs(tmp_path / "run", tmp_path / "killed")


@pytest.mark.parametrize("optimizer", ["adam", "schedule_free"])
def test_polishing_goes_on_bit_for_bit_and_lowers_the_loss(
    data_file: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """Killed inside the second of two rounds: the round is done again from its beginning."""
    if optimizer == "schedule_free":
        pytest.importorskip("schedulefree")
    training = {"epochs": 1, "polish": 2, "optimizer": optimizer, "checkpoint_seconds": 0.0}
    values = settings(data={"train": str(data_file)}, training=training, dtype="float64")
    fit(None, values)
    full_loss = Trainer._full_loss

    def dying(self: Trainer) -> float:
        if self.progress.rounds == 1 and self.polisher.optimizer.state_dict()["state"][0]["n_iter"] == 14:
            raise KilledError
        return full_loss(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_full_loss", dying)
        with pytest.raises(KilledError):
            fit(None, {**values, "output": str(tmp_path / "killed")})
    resume_run(tmp_path / "killed", RunDirectory(tmp_path / "killed").config(), quiet=True, say=lambda t: None)
    assert same_runs(tmp_path / "run", tmp_path / "killed")
    rows = np.genfromtxt(tmp_path / "run" / "metrics.csv", delimiter=",", names=True)
    assert rows["epoch"].tolist() == [1, 2, 3]
    assert rows["train_loss"][2] < 0.9 * rows["train_loss"][1]


def test_lbfgs_meets_the_minimum_of_rosenbrock() -> None:
    weight = torch.nn.Parameter(torch.tensor([-1.2, 1.0], dtype=torch.float64))
    polisher = Polisher([weight])

    def loss() -> float:
        value = 100 * (weight[1] - weight[0] ** 2) ** 2 + (1 - weight[0]) ** 2
        (weight.grad,) = torch.autograd.grad(value, weight)
        return float(value.detach())

    for _ in range(5):
        polisher.round(loss)
    torch.testing.assert_close(weight.detach(), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-6)


def test_muon_takes_the_matrices_and_adamw_the_rest() -> None:
    shapes = {"two_body.w": (4, 4), "radial.center": (2, 4), "track.w": (3, 4), "readout.w": (4, 1)}
    parameters = {name: torch.nn.Parameter(torch.ones(shape)) for name, shape in shapes.items()}
    optimizer = Optimizer(parameters, Training(optimizer="muon"))
    chosen = [{id(p) for group in part.param_groups for p in group["params"]} for part in optimizer.parts]
    assert chosen[0] == {id(parameters["two_body.w"])}
    assert chosen[1] == {id(p) for p in parameters.values()} - chosen[0]


def test_muon_steps_are_nearly_orthogonal() -> None:
    """Its update is the polar factor of the gradient, to the accuracy of its five iterations (Jordan 2024)."""
    weight = torch.nn.Parameter(torch.zeros(6, 6))
    optimizer = Optimizer({"latents.0": weight}, Training(optimizer="muon"))
    weight.grad = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 6))).float()
    optimizer.step(0.1)
    values = torch.linalg.svdvals(weight.detach())
    assert float(values.max() / values.min()) < 2.0
    assert float(torch.linalg.svdvals(weight.grad).max() / torch.linalg.svdvals(weight.grad).min()) > 5.0


@pytest.mark.parametrize("optimizer", ["muon", "schedule_free"])
def test_it_learns_with_every_optimizer(
    settings: Settings, frames: list[Atoms], optimizer: str, tmp_path: Path
) -> None:
    if optimizer == "schedule_free":
        pytest.importorskip("schedulefree")
    fit(
        frames,
        settings(training={"epochs": 12, "optimizer": optimizer, "learning_rate": 0.02, "warmup_steps": 5, "ema": 0.9}),
    )
    rows = np.genfromtxt(tmp_path / "run" / "metrics.csv", delimiter=",", names=True)
    assert rows["valid_loss"][-1] < 0.7 * rows["valid_loss"][0]


def test_early_stopping_ends_after_its_patience(settings: Settings, frames: list[Atoms], tmp_path: Path) -> None:
    """A vanishing learning rate: nothing after the first epoch is better by more than rounding."""
    training = {"epochs": 50, "learning_rate": 1e-30, "early_stopping": 4, "ema": 0.0}
    fit(frames, settings(training=training))
    rows = np.genfromtxt(tmp_path / "run" / "metrics.csv", delimiter=",", names=True)
    assert rows["epoch"][-1] == 6
