"""Labelled frames, their graphs, and batches of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from torch import Tensor

from asenequip.graph import Graph, graph_of, join_graphs
from asenequip.train.config import ConfigError, Dataset, Units

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
ALONE = 8.0
"""Angstrom: a single atom in a cell that is so wide is an isolated one in a box; no crystal is so dilute."""


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
        Position, in ``data.train``, of the data set whose zero of energy it shares.
    weight : float
        Weight in the loss.
    name : str
        Name of its data set, in metrics.
    """

    atoms: Atoms
    energy: float
    forces: np.ndarray
    stress: np.ndarray
    source: str
    dataset: int = 0
    weight: float = 1.0
    name: str = ""

    @property
    def isolated(self) -> bool:
        """Whether it is a single atom without periodic images near it."""
        atoms = self.atoms
        if len(atoms) != 1 or not atoms.pbc.any():
            return len(atoms) == 1
        if atoms.cell.rank < 3:
            return False
        heights = 1 / np.linalg.norm(atoms.cell.reciprocal().array, axis=1)
        return bool(heights[atoms.pbc].min() >= ALONE)


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
    sources, names : tuple of str
        File and position, and data set, of each frame.
    """

    graph: Graph
    energies: Tensor
    forces: Tensor
    virials: Tensor
    weights: Tensor
    counts: Tensor
    sources: tuple[str, ...]
    names: tuple[str, ...]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        if self.energies.device == torch.device(device):
            return self
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, (Tensor, Graph))}
        return replace(self, **moved)


def take_labels(atoms: Atoms, dataset: Dataset, source: str, number: int = 0) -> Frame:
    """A frame's labels in eV and Angstrom, NaN where there are none.

    Raises
    ------
    ConfigError
        If there are no atoms, or a label has a wrong shape or is not a finite number.
    """
    if not len(atoms):
        raise ConfigError(f"{source} holds no atoms.\nRemove the frame.")
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
        name=dataset.label,
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
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"The label '{key}' of {source} must be numbers. Got {value!r} instead.") from None
    if array.shape not in shapes:
        wanted = " or ".join(map(str, shapes))
        raise ConfigError(f"The label '{key}' of {source} must have the shape {wanted}. Got {array.shape} instead.")
    if not np.isfinite(array).all():
        raise ConfigError(f"The label '{key}' of {source} is not a finite number.\nRemove the frame or the label.")
    return array


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
        names=tuple(frame.name for frame in frames),
    )
