"""A small training run with the reference's own commands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write


def frames(count: int, seed: int) -> list[Atoms]:
    """Rattled Cu-Au crystals with energy, forces and stress of effective-medium theory."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        atoms = bulk("Cu", cubic=True, a=3.8).repeat((2, 2, 1))
        atoms.symbols[rng.permutation(16)[:6]] = "Au"
        atoms.set_cell(atoms.cell @ (np.eye(3) + rng.uniform(-0.03, 0.03, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(0.0, 0.1, (16, 3))
        atoms.calc = EMT()
        atoms.get_stress()
        out.append(atoms)
    return out


def _configuration(folder: Path, types: list[str], epochs: int, model: dict[str, Any]) -> dict[str, Any]:
    data = str(folder / "frames.extxyz")
    loader = {"_target_": "torch.utils.data.DataLoader", "batch_size": 4}
    weights = {"total_energy": 1.0, "forces": 1.0, "stress": 1.0}
    mapper = {"_target_": "nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper", "model_type_names": types}
    checkpoint = {
        "_target_": "lightning.pytorch.callbacks.ModelCheckpoint",
        "dirpath": "${hydra:runtime.output_dir}",
        "filename": "best",
    }
    return {
        "run": ["train"],
        "data": {
            "_target_": "nequip.data.datamodule.ASEDataModule",
            "seed": 1,
            "train_file_path": [data],
            "val_file_path": [data],
            "transforms": [
                mapper,
                {"_target_": "nequip.data.transforms.NeighborListTransform", "r_max": model["r_max"]},
            ],
            "train_dataloader": loader,
            "val_dataloader": loader,
            "stats_manager": {"_target_": "nequip.data.CommonDataStatisticsManager", "type_names": types},
        },
        "trainer": {
            "_target_": "lightning.Trainer",
            "max_epochs": epochs,
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "callbacks": [checkpoint],
        },
        "training_module": {
            "_target_": "nequip.train.EMALightningModule",
            "ema_decay": 0.9,
            "loss": {"_target_": "nequip.train.EnergyForceStressLoss", "per_atom_energy": True, "coeffs": weights},
            "val_metrics": {
                "_target_": "nequip.train.EnergyForceStressMetrics",
                "coeffs": {f"{name}_mae": 1.0 for name in weights},
            },
            "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.01},
            "model": {
                "_target_": "allegro.model.AllegroModel",
                "seed": 1,
                "type_names": types,
                "avg_num_neighbors": "${training_data_stats:per_type_num_neighbors_mean}",
                "per_type_energy_shifts": "${training_data_stats:per_atom_energy_mean}",
                "per_type_energy_scales": "${training_data_stats:per_type_forces_rms}",
                **model,
            },
        },
    }


def train(folder: Path, structures: list[Atoms], epochs: int = 2, **model: Any) -> Path:
    """A short training of an Allegro model on labelled structures with ``nequip-train``; the checkpoint."""
    write(folder / "frames.extxyz", structures)
    types = sorted({symbol for atoms in structures for symbol in atoms.symbols}, reverse=True)
    configuration = _configuration(folder, types, epochs, model)
    (folder / "train.yaml").write_text(yaml.safe_dump(configuration))
    command = ["nequip-train", "-cp", str(folder), "-cn", "train", f"hydra.run.dir={folder / 'run'}"]
    _run(command, folder)
    return folder / "run" / "best.ckpt"


def package(checkpoint: Path) -> Path:
    """``nequip-package build`` of a checkpoint."""
    out = checkpoint.with_name("packaged.nequip.zip")
    _run(["nequip-package", "build", str(checkpoint), str(out)], checkpoint.parent)
    return out


def compile_model(source: Path, device: str = "cpu", modifiers: Sequence[str] = ()) -> Path:
    """``nequip-compile --mode aotinductor --target ase`` with modifiers of the model; made once for each device."""
    name = "-".join(["compiled", *([device] if device != "cpu" else []), *modifiers])
    out = source.with_name(f"{name}.nequip.pt2")
    if out.is_file():
        return out
    options = ["--mode", "aotinductor", "--device", device, "--target", "ase"]
    options += ["--modifiers", *modifiers] if modifiers else []
    _run(["nequip-compile", str(source), str(out), *options], source.parent)
    return out


def _run(command: list[str], folder: Path) -> None:
    tool = Path(sys.executable).with_name(command[0])
    done = subprocess.run([str(tool), *command[1:]], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
