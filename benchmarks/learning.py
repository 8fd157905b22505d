"""Shared by the benchmarks of active learning and uncertainty: records, labels, potentials that train in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from machine import processor

from asenequip import AllegroCalculator, __version__

RESULTS = Path(__file__).resolve().parent / "results"


def conditions() -> dict[str, object]:
    """Versions and hardware."""
    return {
        "asenequip": __version__,
        "torch": torch.__version__,
        "processor": processor(),
        "threads": torch.get_num_threads(),
    }


def keep(name: str, values: dict[str, object]) -> None:
    """Write results as JSON and say where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"active_{name}.json"
    path.write_text(json.dumps({**values, "conditions": conditions()}, indent=1) + "\n")
    print(f"wrote {path}")


def frozen(atoms: Atoms) -> Atoms:
    """A copy that holds the energy and forces that the calculator gives now."""
    labelled = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    labelled.calc = SinglePointCalculator(labelled, **results)
    return labelled


def emt(atoms: Atoms) -> Atoms:
    """A copy with EMT's labels."""
    copied = atoms.copy()
    copied.calc = EMT()
    return frozen(copied)


def small(folder: Path, seed: int, frames: int, steps: int, batch: int = 4, **model: object) -> dict[str, object]:
    """Settings of a potential that trains in seconds, with the same number of steps whatever the number of frames."""
    epochs = max(1, round(steps * batch / (0.8 * frames)))
    sizes = {"num_scalar_features": 16, "num_tensor_features": 8, "two_body_width": 32, "latent_width": 32}
    return {
        "data": {"split": {"valid": 0.2, "test": 0, "seed": seed}},
        "model": {"cutoff": 4.5, "l_max": 1, "readout_width": 32, **sizes, **model},
        "loss": {"stress": 0.0},
        "training": {
            "epochs": epochs,
            "batch_size": batch,
            "learning_rate": 0.01,
            "valid_every": max(1, epochs // 10),
        },
        "uncertainty": {"directions": 2},
        "output": str(folder / "run"),
        "seed": seed,
        "threads": 1,
        "device": "cpu",
    }


def force_rmse(calculator: AllegroCalculator, frames: list[Atoms]) -> float:
    """Over all components, eV/Angstrom."""
    errors = [atoms.calc.results["forces"] - calculator.get_property("forces", atoms) for atoms in frames]
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))


def published(folder: Path, name: str, pattern: str = "*") -> list[Atoms]:
    """Frames of a set, files in order."""
    frames: list[Atoms] = []
    for path in sorted((folder / name).glob(pattern)):
        if ".xyz" in path.name or ".extxyz" in path.name:
            frames += read(path, ":")
    return frames
