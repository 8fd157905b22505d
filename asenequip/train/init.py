"""Commented settings made from a data file."""

from __future__ import annotations

import json
from pathlib import Path

from asenequip.train.config import Config, ConfigError, Dataset, Keys
from asenequip.train.data import Frame
from asenequip.train.keys import find_keys, names_of
from asenequip.train.pace import choose_pace
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
  energy: {energy:<12g} # on (energy per atom, eV)^2
  forces: {forces:<12g} # on (force component, eV/Angstrom)^2
  stress: {stress:<12g} # on (virial per atom, eV)^2
training:
  epochs: {epochs:<12} # or, in their place, minutes: the learning rate is then fully decayed at their end
  batch_size: {batch:<8} # frames per step
  learning_rate: {rate:g}
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
    text = suggest_settings(data)
    try:
        output.write_text(text)
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error.strerror}.\nGive another name with -o.") from None
    return (
        f"Wrote {output}.\nLook at the labels with: asenequip-train check {output}\n"
        f"Train with: asenequip-train {output}"
    )


def suggest_settings(data: Path) -> str:
    """Settings for a data file, as YAML with comments.

    Raises
    ------
    ConfigError
        If the data cannot be read, or hold no energies and no forces.
    """
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
    return _settings_text(data, frames, found)


def _settings_text(data: Path, frames: list[Frame], found: dict[str, str | None]) -> str:
    import yaml

    default = Config()
    symbols = sorted({s for frame in frames for s in frame.atoms.get_chemical_symbols()})
    sizes = [len(frame.atoms) for frame in frames]
    summary = f"{len(frames)} frames of {min(sizes)}-{max(sizes)} atoms: {', '.join(symbols)}"
    name = json.dumps(str(data)) if yaml.safe_load(str(data)) != str(data) else str(data)
    path = f" {name}"
    named = {
        k: v for k, v in found.items() if (v is not None and v != k) or (k == "virial" and v and not found["stress"])
    }
    if named:
        inner = ", ".join(f"{k}: {v}" for k, v in named.items())
        path = f"\n    path: {name}\n    keys: {{{inner}}}"
    values = {str(frame.atoms.info.get("split")) for frame in frames if not frame.isolated}
    if values <= {"train", "valid", "test"} and "train" in values:
        split = "    method: key          # atoms.info['split'] says train, valid or test\n    key: split"
    else:
        split = "    valid: 0.1         # fraction, or number of frames\n    test: 0.1\n"
        split += "    method: random     # end for trajectories"
    pace = choose_pace(default.training, max(1, round(0.8 * len(frames))), sum(sizes) / len(sizes))
    return _TEMPLATE.format(
        summary=summary,
        path=path,
        split=split,
        energy=default.loss.energy if found["energy"] else 0.0,
        forces=default.loss.forces if found["forces"] else 0.0,
        stress=default.loss.stress if found["stress"] or found["virial"] else 0.0,
        rate=default.training.learning_rate,
        epochs=int(pace.epochs),
        batch=pace.batch_size,
        name="".join(c for c in data.name.split(".")[0] if c not in "*?[]") or "potential",
    )
