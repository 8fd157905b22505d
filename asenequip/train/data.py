"""Labelled frames: reading them, dividing them, and making batches of graphs and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from torch import Tensor

from asenequip.graph import Graph, graph_of, join_graphs
from asenequip.train.config import ConfigError, Data, Dataset, Split, Units

ENERGY_UNITS = {
    "eV": 1.0,
    "meV": 1e-3,
    "Hartree": units.Hartree,
    "Rydberg": units.Rydberg,
    "kcal/mol": units.kcal / units.mol,
    "kJ/mol": units.kJ / units.mol,
}
LENGTH_UNITS = {"Angstrom": 1.0, "Bohr": units.Bohr, "nm": 10.0}
STRESS_UNITS = {"eV/Angstrom^3": 1.0, "GPa": units.GPa, "kbar": 0.1 * units.GPa}
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Frame:
    """One labelled frame.

    Attributes
    ----------
    atoms : ase.Atoms
        Geometry; its own calculator is not used.
    energy : float
        eV; NaN if there is no label.
    forces : (n, 3) float64
        eV/Angstrom; NaN on atoms without a label.
    stress : (3, 3) float64
        eV/Angstrom^3, ASE's sign; NaN if there is no label.
    source : str
        File and index, for messages.
    dataset : int
        Position of its data set.
    weight : float
        Weight in the loss.
    """

    atoms: Atoms
    energy: float
    forces: np.ndarray
    stress: np.ndarray
    source: str
    dataset: int = 0
    weight: float = 1.0

    @property
    def isolated(self) -> bool:
        """Whether it is a single atom without periodic images."""
        return len(self.atoms) == 1 and not self.atoms.pbc.any()


@dataclass(frozen=True)
class Sample:
    """A frame with its graph, ready to be joined into batches."""

    frame: Frame
    graph: Graph


@dataclass(frozen=True)
class Batch:
    """Several frames as one graph, with their labels; NaN where there is none.

    Attributes
    ----------
    graph : Graph
    energies : (f,) float64
        eV.
    forces : (n, 3) float64
        eV/Angstrom.
    virials : (f, 3, 3) float64
        Stress times volume, eV.
    weights : (f,) float64
    counts : (f,) float64
        Atoms of each frame.
    sources : tuple of str
    """

    graph: Graph
    energies: Tensor
    forces: Tensor
    virials: Tensor
    weights: Tensor
    counts: Tensor
    sources: tuple[str, ...]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        if self.energies.device == torch.device(device):
            return self
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, (Tensor, Graph))}
        return replace(self, **moved)


def read_dataset(dataset: Dataset, number: int = 0) -> list[Frame]:
    """Read one file and take its labels.

    Raises
    ------
    ConfigError
        If the file cannot be read, holds no frames, or a label is malformed; the frame is named.
    """
    from ase.io import iread

    path = Path(dataset.path)
    if not path.exists():
        raise ConfigError(f"There is no data file {path}.\nCorrect data.train, data.valid or data.test.")
    frames = []
    try:
        for position, atoms in enumerate(iread(str(path), index=dataset.index)):
            frames.append(take_labels(atoms, dataset, f"{path}#{position}", number))
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{path} cannot be read by ASE after frame {len(frames)}: {error!r}") from error
    if not frames:
        raise ConfigError(f"{path} holds no frames at index {dataset.index!r}.")
    return frames


def take_labels(atoms: Atoms, dataset: Dataset, source: str, number: int = 0) -> Frame:
    """A frame's labels in eV and Angstrom, NaN where there are none.

    Raises
    ------
    ConfigError
        If a label has a wrong shape or is not a finite number.
    """
    keys, unit = dataset.keys, dataset.units
    per_energy, per_length = ENERGY_UNITS[unit.energy], LENGTH_UNITS[unit.length]
    energy = _label(atoms, keys.energy, source, ((),))
    forces = _label(atoms, keys.forces, source, ((len(atoms), 3),))
    stress = _label(atoms, keys.stress, source, ((6,), (3, 3), (9,)))
    stress = None if stress is None else _matrix(stress) * _stress_factor(unit)
    if stress is None and keys.virial is not None:
        virial = _label(atoms, keys.virial, source, ((6,), (3, 3), (9,)))
        if virial is not None and atoms.cell.rank == 3:
            stress = -_matrix(virial) * per_energy / atoms.get_volume()
    return Frame(
        atoms=atoms,
        energy=float("nan") if energy is None else float(energy) * per_energy,
        forces=np.full((len(atoms), 3), np.nan) if forces is None else forces * (per_energy / per_length),
        stress=np.full((3, 3), np.nan) if stress is None else stress,
        source=source,
        dataset=number,
        weight=dataset.weight,
    )


def _stress_factor(unit: Units) -> float:
    volume = LENGTH_UNITS[unit.length] ** 3
    own = ENERGY_UNITS[unit.energy] / volume
    return unit.stress_sign * STRESS_UNITS.get(unit.stress, own)


def _matrix(values: np.ndarray) -> np.ndarray:
    """Voigt (6,), flat (9,) or square stress as a symmetric (3, 3)."""
    if values.shape == (6,):
        xx, yy, zz, yz, xz, xy = values
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    square = values.reshape(3, 3)
    return 0.5 * (square + square.T)


def _label(atoms: Atoms, key: str | None, source: str, shapes: tuple[tuple[int, ...], ...]) -> np.ndarray | None:
    """A label from the calculator's results, ``info`` or ``arrays``; None if it is nowhere."""
    if key is None:
        return None
    results = getattr(atoms.calc, "results", {}) if atoms.calc is not None else {}
    value = results.get(key, atoms.info.get(key, atoms.arrays.get(key)))
    if value is None:
        return None
    array = np.asarray(value, dtype=np.float64)
    if array.shape not in shapes:
        wanted = " or ".join(map(str, shapes))
        raise ConfigError(f"The label '{key}' of {source} must have the shape {wanted}. Got {array.shape} instead.")
    if not np.isfinite(array).all():
        raise ConfigError(f"The label '{key}' of {source} is not a finite number.\nRemove the frame or the label.")
    return array


def divide(frames: Sequence[Frame], split: Split, need: Sequence[str]) -> dict[str, list[int]]:
    """Divide frames among training, validation and test.

    Parameters
    ----------
    frames : sequence of Frame
    split : Split
    need : sequence of str
        Which of "valid", "test" are to be taken from the frames.

    Returns
    -------
    dict
        {"train": ..., "valid": ..., "test": ...}: ascending positions in ``frames``.

    Raises
    ------
    ConfigError
        If a key is missing or nothing is left to train on.
    """
    parts: dict[str, list[int]] = {name: [] for name in SPLITS}
    if split.method == "key":
        for k, frame in enumerate(frames):
            part = str(frame.atoms.info.get(split.key))
            if part not in SPLITS:
                raise ConfigError(
                    f"atoms.info['{split.key}'] of {frame.source} must be train, valid or test. Got {part!r} instead."
                )
            if part == "train" or part in need:
                parts[part].append(k)
    else:
        _divide_by_size(frames, split, need, parts)
    if not parts["train"]:
        raise ConfigError(f"No frames are left to train on: {len(frames)} frames, data.split is {split.model_dump()}.")
    return parts


def _divide_by_size(frames: Sequence[Frame], split: Split, need: Sequence[str], parts: dict[str, list[int]]) -> None:
    """Fill ``parts`` with whole groups: single frames, or frames with one value of a key."""
    groups: dict[object, list[int]] = {}
    for k, frame in enumerate(frames):
        if split.method == "group" and split.key not in frame.atoms.info:
            raise ConfigError(f"{frame.source} has no atoms.info['{split.key}'], which data.split groups by.")
        groups.setdefault(str(frame.atoms.info[split.key]) if split.method == "group" else k, []).append(k)
    blocks = list(groups.values())
    if split.method != "end":
        order = np.random.default_rng(split.seed).permutation(len(blocks))
        blocks = [blocks[k] for k in order]
    total, end = len(frames), len(blocks)
    for name in ("test", "valid"):
        wanted = getattr(split, name)
        wanted = round(wanted * total) if wanted < 1 else int(wanted)
        while name in need and len(parts[name]) < wanted and end > 1:
            end -= 1
            parts[name] += blocks[end]
        parts[name].sort()
    parts["train"] = sorted(k for block in blocks[:end] for k in block)


def load_data(data: Data, frames: Sequence[Atoms] | None = None) -> dict[str, list[Frame]]:
    """Read and divide everything that the settings name.

    Parameters
    ----------
    data : Data
    frames : sequence of ase.Atoms, optional
        In place of the files of ``data.train``.

    Returns
    -------
    dict of lists of Frame
        "train", "valid", "test" and "isolated": single atoms, which serve the energy shifts only.
    """
    if frames is None and not data.train:
        raise ConfigError("The settings name no data: set data.train to a file (any format ASE reads).")
    if frames is not None:
        dataset = data.train[0] if data.train else Dataset(path="frames")
        sources = [[take_labels(atoms, dataset, f"frame {k}") for k, atoms in enumerate(frames)]]
    else:
        sources = [read_dataset(dataset, k) for k, dataset in enumerate(data.train)]
    out: dict[str, list[Frame]] = {name: [] for name in (*SPLITS, "isolated")}
    need = [name for name in ("valid", "test") if not getattr(data, name)]
    for part in sources:
        out["isolated"] += [frame for frame in part if frame.isolated]
        connected = [frame for frame in part if not frame.isolated]
        if connected:
            for name, chosen in divide(connected, data.split, need).items():
                out[name] += [connected[k] for k in chosen]
    names = {Path(dataset.path): k for k, dataset in enumerate(data.train)}
    for name in ("valid", "test"):
        for dataset in getattr(data, name):
            out[name] += read_dataset(dataset, names.get(Path(dataset.path), 0))
    out["train"] = out["train"][: data.max_frames]
    if not out["train"]:
        raise ConfigError("No frames are left to train on.\nGive frames with more than one atom in data.train.")
    return out


def species_of(frames: Sequence[Frame]) -> list[str]:
    """Chemical symbols of the frames, by atomic number."""
    from ase.data import chemical_symbols

    numbers = np.unique(np.concatenate([frame.atoms.numbers for frame in frames]))
    return [chemical_symbols[k] for k in numbers]


def make_samples(frames: Sequence[Frame], species: Sequence[str], cutoffs: np.ndarray) -> list[Sample]:
    """Graphs of the frames; neighbour lists are computed once, here.

    Parameters
    ----------
    frames : sequence of Frame
    species : sequence of str
    cutoffs : (T, T) float64
        Angstrom, of each ordered pair of types.

    Raises
    ------
    ConfigError
        Naming the frame whose geometry or elements are not usable.
    """
    samples = []
    for frame in frames:
        try:
            samples.append(Sample(frame, graph_of(frame.atoms, species, cutoffs)))
        except Exception as error:
            raise ConfigError(f"{frame.source}: {error}") from error
    return samples


def collate(samples: Sequence[Sample], offsets: np.ndarray | None = None) -> Batch:
    """Join samples into a batch.

    Parameters
    ----------
    samples : sequence of Sample
    offsets : (d, T) float64, optional
        Energy per atom of each data set and type to take off the labels, eV.
    """
    frames = [sample.frame for sample in samples]
    energies = np.array([frame.energy for frame in frames])
    if offsets is not None:
        for k, sample in enumerate(samples):
            counts = np.bincount(sample.graph.types.numpy(), minlength=offsets.shape[1])
            energies[k] -= counts @ offsets[sample.frame.dataset]
    graph = join_graphs([sample.graph for sample in samples])
    stress = torch.from_numpy(np.stack([frame.stress for frame in frames]))
    volumes = graph.volumes()
    stress = torch.where(volumes[:, None, None] > 0, stress, float("nan"))
    return Batch(
        graph=graph,
        energies=torch.from_numpy(energies),
        forces=torch.from_numpy(np.concatenate([frame.forces for frame in frames])),
        virials=stress * volumes[:, None, None],
        weights=torch.tensor([frame.weight for frame in frames], dtype=torch.float64),
        counts=torch.tensor([len(frame.atoms) for frame in frames], dtype=torch.float64),
        sources=tuple(frame.source for frame in frames),
    )
