"""Commented settings written from a data file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asenequip.train.config import Config, ConfigError, Dataset, Keys
from asenequip.train.data import Frame
from asenequip.train.keys import find_keys, names_of
from asenequip.train.sources import read_dataset

_TEMPLATE = """\
# {summary}
data:
  train:{path}
  split:               # or give files: valid: ..., test: ...
{split}
model:
  cutoff: 5.0          # Angstrom
  l_max: 2             # order of the angular functions, 0-4
  num_layers: 2
  num_scalar_features: 32
  num_tensor_features: 16
loss:
  energy: {loss.energy:g}          # on (energy per atom, eV)^2
  forces: {loss.forces:g}           # on (force component, eV/Angstrom)^2
  stress: {stress:g}           # on (virial per atom, eV)^2
training:
  epochs: {epochs}
  batch_size: {batch}        # frames per step
  learning_rate: {training.learning_rate:g}
  # minutes: 30        # stop after this time, learning rate fully decayed
output: runs/{name}
seed: 0
"""


def write_settings(data: Path, output: Path) -> str:
    """Write settings for a data file; returns what to do next.

    Raises
    ------
    ConfigError
        If the data cannot be read or hold no energies or forces, or the output exists or cannot be written.
    """
    if output.exists():
        raise ConfigError(f"{output} exists and is not overwritten.\nGive another name with -o.")
    unlabelled = Dataset(path=str(data), keys=Keys(energy=None, forces=None, stress=None))
    frames = read_dataset(unlabelled)
    names = set().union(*(names_of(frame.atoms) for frame in frames))
    found = find_keys(names)
    if found["energy"] is None and found["forces"] is None:
        present = ", ".join(sorted(names)) or "no labels at all"
        raise ConfigError(
            f"{data} has neither energies nor forces under a usual name, but {present}.\n"
            "Write the settings by hand, and name the labels in data.train.keys."
        )
    try:
        output.write_text(_settings_text(data, frames, found))
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error.strerror}.\nGive another name with -o.") from None
    return (
        f"Wrote {output}.\nLook at the labels with: asenequip-train check {output}\n"
        f"Train with: asenequip-train {output}"
    )


def _settings_text(data: Path, frames: list[Frame], found: dict[str, str | None]) -> str:
    default = Config()
    symbols = sorted({s for frame in frames for s in frame.atoms.get_chemical_symbols()})
    sizes = [len(frame.atoms) for frame in frames]
    summary = f"{len(frames)} frames of {min(sizes)}-{max(sizes)} atoms: {', '.join(symbols)}"
    path = f" {data}"
    named = {
        k: v for k, v in found.items() if (v is not None and v != k) or (k == "virial" and v and not found["stress"])
    }
    if named:
        inner = ", ".join(f"{k}: {v}" for k, v in named.items())
        path = f"\n    path: {data}\n    keys: {{{inner}}}"
    values = {str(frame.atoms.info.get("split")) for frame in frames}
    if values <= {"train", "valid", "test"} and "train" in values:
        split = "    method: key          # atoms.info['split'] says train, valid or test\n    key: split"
    else:
        split = "    valid: 0.1         # fraction, or number of frames\n    test: 0.1\n"
        split += "    method: random     # end for trajectories"
    batch = int(np.clip(round(250 / np.mean(sizes)), 1, 32))
    steps = max(1, round(0.8 * len(frames) / batch))
    stress = default.loss.stress if found["stress"] or found["virial"] else 0.0
    return _TEMPLATE.format(
        summary=summary,
        path=path,
        split=split,
        loss=default.loss,
        stress=stress,
        training=default.training,
        epochs=int(np.clip(round(10000 / steps), 20, 1000)),
        batch=batch,
        name=data.name.split(".")[0],
    )
