"""Frames and settings small enough to train on in about a second."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from asenequip.artifact import load_artifact
from asenequip.train import fit
from asenequip.train.loop import Trainer


def label_with_emt(
    count: int, seed: int, amplitude: float = 0.15, elements: tuple[str, ...] = ("Cu", "Al")
) -> list[Atoms]:
    """Rattled, strained eight-atom fcc cells labelled by ASE's EMT."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        atoms = bulk("Cu", cubic=True) * (2, 1, 1)
        atoms.symbols = rng.choice(elements, size=len(atoms))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(scale=0.02, size=(3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(scale=amplitude, size=atoms.positions.shape)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    return frames


def small_settings(folder: Path, **sections: Any) -> dict[str, Any]:
    """Settings of a model that trains in about a second; keyword arguments change sections."""
    base: dict[str, Any] = {
        "data": {"split": {"valid": 3, "test": 2}},
        "model": {
            "cutoff": 3.5,
            "l_max": 1,
            "num_scalar_features": 8,
            "num_tensor_features": 4,
            "two_body_width": 8,
            "latent_width": 8,
            "readout_width": 8,
        },
        "training": {"epochs": 3, "batch_size": 2, "valid_every": 1, "learning_rate": 0.01},
        "output": str(folder / "run"),
        "threads": 1,
        "device": "cpu",
    }
    for name, value in sections.items():
        base[name] = {**base[name], **value} if isinstance(base.get(name), dict) else value
    return base


class KilledError(BaseException):
    """Ends a training as a kill would, as far as the state on disk goes."""


def fit_and_die(monkeypatch: pytest.MonkeyPatch, config: Any, steps: int) -> None:
    """Train, and die before the checkpoint that follows optimiser step number ``steps``."""
    step = Trainer._step

    def dying(self: Trainer, *arguments: Any) -> bool:
        done = step(self, *arguments)
        if self.progress.step == steps:
            raise KilledError
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", dying)
        with pytest.raises(KilledError):
            fit(None, config)


def dying_trainer(steps: int) -> list[str]:
    """The command of the trainer, whose process is killed before the checkpoint that follows step number ``steps``."""
    code = (
        "import os, signal; from asenequip.train.cli import main; from asenequip.train.loop import Trainer\n"
        "step = Trainer._step\n"
        "def dying(self, *arguments):\n"
        "    done = step(self, *arguments)\n"
        f"    return os.kill(os.getpid(), signal.SIGKILL) if self.progress.step == {steps} else done\n"
        "Trainer._step = dying\n"
        "main()"
    )
    return [sys.executable, "-c", code]


def same_runs(first: Path, second: Path) -> bool:
    """Whether two runs have bit for bit the same curve and the same potential."""
    weights = [load_artifact(path / "model.asnq").model.state_dict() for path in (first, second)]
    curves = [(path / "metrics.csv").read_text() for path in (first, second)]
    return curves[0] == curves[1] and all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
