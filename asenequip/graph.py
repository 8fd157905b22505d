"""The one batch type: atoms of one or several frames and their edges, sorted by centre.

Index letters: ``n`` atoms, ``z`` directed edges (both directions present), ``f`` frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import InputError
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from asenequip.neighbors import VerletList, find_edges

_FARTHEST = 1e12
"""Angstrom: beyond it float64 resolves less than 1e-4 Angstrom, and what stands there is no structure any more."""

_TOUCHING = 1e-6
"""Angstrom: closer than this, two atoms are one by mistake."""


@dataclass(frozen=True)
class Graph:
    """Atoms and directed edges of a batch of frames; immutable.

    Attributes
    ----------
    positions : (n, 3) float64
        Angstrom.
    cells : (f, 3, 3) float64
        Rows are lattice vectors, Angstrom; zero rows where there is none.
    types : (n,) int64
        Index into the model's ``type_names``.
    frames : (n,) int64
        Frame of each atom, ascending.
    num_frames : int
    centers, neighbors : (z,) int64
        Atoms of each edge, sorted by centre.
    shifts : (z, 3) float64
        Whole lattice vectors added to the neighbour.
    ptr : (n+1,) int64
        Edges of atom a are ``ptr[a] : ptr[a+1]``; shorter where the last atoms are ghosts, neighbours but no centres.
    """

    positions: Tensor
    cells: Tensor
    types: Tensor
    frames: Tensor
    num_frames: int
    centers: Tensor
    neighbors: Tensor
    shifts: Tensor
    ptr: Tensor

    @property
    def num_atoms(self) -> int:
        """Number of atoms of all frames."""
        return self.positions.shape[0]

    @property
    def num_centers(self) -> int:
        """Number of atoms that are no ghosts."""
        return self.ptr.shape[0] - 1

    @property
    def num_edges(self) -> int:
        """Number of directed edges of all frames."""
        return self.centers.shape[0]

    def vectors(self) -> Tensor:
        """Edge vectors r_z = x[neighbor] + shift . cell - x[center], (z, 3) float64, Angstrom."""
        difference = self.positions.index_select(0, self.neighbors) - self.positions.index_select(0, self.centers)
        if self.num_frames == 1:
            return difference + self.shifts @ self.cells[0]
        cells = self.cells.index_select(0, self.frames.index_select(0, self.centers))
        return difference + (self.shifts.unsqueeze(1) @ cells).squeeze(1)

    def volumes(self) -> Tensor:
        """Cell volumes |det|, (f,) float64, Angstrom^3; zero where the cell has rank < 3."""
        return torch.linalg.det(self.cells).abs()

    def to(self, device: torch.device | str) -> Graph:
        """The same graph on another device."""
        if self.positions.device == torch.device(device):
            return self
        tensors = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)  # type: ignore[arg-type]


def build_graph(
    positions: np.ndarray,
    cell: np.ndarray,
    types: np.ndarray,
    edges: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> Graph:
    """A graph of one frame.

    Parameters
    ----------
    positions : (n, 3) float64
    cell : (3, 3) float64
    types : (n,) int
    edges : (centers (z,), neighbors (z,), shifts (z, 3))
        Sorted by centre.

    Returns
    -------
    Graph
    """
    centers, neighbors, shifts = edges
    n = len(positions)
    ptr = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(np.bincount(centers, minlength=n), out=ptr[1:])
    return Graph(
        positions=_tensor(positions, np.float64),
        cells=_tensor(cell, np.float64).reshape(1, 3, 3),
        types=_tensor(types, np.int64),
        frames=torch.zeros(n, dtype=torch.int64),
        num_frames=1,
        centers=_tensor(centers, np.int64),
        neighbors=_tensor(neighbors, np.int64),
        shifts=_tensor(shifts, np.float64).reshape(-1, 3),
        ptr=torch.from_numpy(ptr),
    )


def _tensor(array: np.ndarray, dtype: type) -> Tensor:
    """A torch tensor that shares no memory with a read-only or foreign array."""
    return torch.from_numpy(np.array(array, dtype=dtype, order="C", copy=True))


def join_graphs(graphs: Sequence[Graph]) -> Graph:
    """One or more graphs as one batch, frames in order; empty frames keep their place."""
    if len(graphs) == 1:
        return graphs[0]
    atoms = np.cumsum([0] + [g.num_atoms for g in graphs]).tolist()
    edges = np.cumsum([0] + [g.num_edges for g in graphs]).tolist()
    frames = np.cumsum([0] + [g.num_frames for g in graphs]).tolist()
    return Graph(
        positions=torch.cat([g.positions for g in graphs]),
        cells=torch.cat([g.cells for g in graphs]),
        types=torch.cat([g.types for g in graphs]),
        frames=torch.cat([g.frames + k for g, k in zip(graphs, frames, strict=False)]),
        num_frames=frames[-1],
        centers=torch.cat([g.centers + k for g, k in zip(graphs, atoms, strict=False)]),
        neighbors=torch.cat([g.neighbors + k for g, k in zip(graphs, atoms, strict=False)]),
        shifts=torch.cat([g.shifts for g in graphs]),
        ptr=torch.cat([graphs[0].ptr[:1]] + [g.ptr[1:] + k for g, k in zip(graphs, edges, strict=False)]),
    )


def number_types(numbers: np.ndarray, type_names: Sequence[str]) -> np.ndarray:
    """Index of each atomic number's element in ``type_names``, (n,) int64; -1 where it is not among them."""
    table = np.full(len(chemical_symbols), -1, dtype=np.int64)
    table[[atomic_numbers[name] for name in type_names]] = np.arange(len(type_names))
    elements = (numbers >= 0) & (numbers < len(table))
    return np.where(elements, table[np.where(elements, numbers, 0)], -1)


def atom_types(atoms: Atoms, type_names: Sequence[str]) -> np.ndarray:
    """Index of each atom's element in ``type_names``, (n,) int64.

    Raises
    ------
    ase.calculators.calculator.InputError
        Naming the atoms whose element the model does not know.
    """
    types = number_types(atoms.numbers, type_names)
    unknown = np.flatnonzero(types < 0)
    if len(unknown):
        elements = sorted({_element(number) for number in atoms.numbers[unknown].tolist()})
        shown = ", ".join(map(str, unknown[:8].tolist())) + (", ..." if len(unknown) > 8 else "")
        raise InputError(
            f"The model knows {', '.join(type_names)}, but atoms {shown} are {', '.join(elements)}.\n"
            "Use a model trained with these elements, or remove the atoms."
        )
    return types


def _element(number: int) -> str:
    return chemical_symbols[number] if 0 <= number < len(chemical_symbols) else f"of atomic number {number}"


def check_geometry(atoms: Atoms) -> None:
    """Refuse positions or cells that are not finite numbers, or so large that nothing is resolved.

    Raises
    ------
    ase.calculators.calculator.InputError
    """
    wrong = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if len(wrong):
        raise InputError(
            f"The positions of atoms {wrong[:8].tolist()} are not finite numbers.\n"
            "The structure or the dynamics before it has broken down; look at the last good frame."
        )
    if not np.isfinite(np.asarray(atoms.cell)).all():
        raise InputError(f"The cell is not finite: {np.asarray(atoms.cell).tolist()}.\nSet a valid cell.")
    largest = max(np.abs(atoms.positions).max(initial=0.0), np.abs(np.asarray(atoms.cell)).max())
    if largest > _FARTHEST:
        raise InputError(
            f"A position or a cell vector reaches {largest:.1e} A; at most {_FARTHEST:.0e} A can be resolved.\n"
            "The structure or the dynamics before it has broken down; look at the last good frame."
        )


def graph_of(atoms: Atoms, type_names: Sequence[str], cutoffs: np.ndarray, verlet: VerletList | None = None) -> Graph:
    """The graph of one frame, edges strictly within the cutoffs.

    Parameters
    ----------
    atoms : ase.Atoms
        Not changed.
    type_names : sequence of str
        Chemical symbols of the model.
    cutoffs : (T, T) float64
        Cutoff of each ordered pair of types [centre][neighbour], Angstrom.
    verlet : VerletList, optional
        List to reuse; a fresh search without it.

    Raises
    ------
    ase.calculators.calculator.InputError
        For unknown elements, positions that are not finite, a broken cell, or two atoms on the same spot.
    """
    check_geometry(atoms)
    types = atom_types(atoms, type_names)
    cell, pbc, positions = np.asarray(atoms.cell, np.float64), np.asarray(atoms.pbc, bool), atoms.positions
    with input_errors():
        if verlet is None:
            centers, neighbors, shifts = find_edges(positions, cell, pbc, float(cutoffs.max()))
        else:
            centers, neighbors, shifts = verlet.edges(positions, cell, pbc)
    vectors = positions[neighbors] - positions[centers] + shifts @ cell
    squared = np.einsum("zi,zi->z", vectors, vectors)
    reach = cutoffs[types[centers], types[neighbors]] if cutoffs.min() < cutoffs.max() else cutoffs.max()
    keep = squared < reach * reach
    if not keep.all():
        centers, neighbors, shifts, squared = centers[keep], neighbors[keep], shifts[keep], squared[keep]
    if len(squared) and squared.min() < _TOUCHING**2:
        z = int(np.argmin(squared))
        raise coinciding_atoms(int(centers[z]), int(neighbors[z]))
    return build_graph(positions, cell, types, (centers, neighbors, shifts))


def coinciding_atoms(first: int, second: int) -> InputError:
    """The error for two atoms on one spot."""
    return InputError(
        f"Atoms {first} and {second} are at the same position.\n"
        "Remove the duplicate, for example with ase.geometry.get_duplicate_atoms."
    )


@contextmanager
def input_errors() -> Iterator[None]:
    """Turn what the neighbour search says of a broken cell into ASE's InputError."""
    try:
        yield
    except ValueError as error:
        raise InputError(str(error)) from error
