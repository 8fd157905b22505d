"""Batches of few fixed sizes: one compilation for each, and memory that is the same at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from asenequip.graph import Graph
from asenequip.train.data import Batch
from asenequip.train.table import FrameTable

_LEVELS = (0.25, 0.5, 0.75, 1.0)
"""Parts of the largest size."""
_INSIDE = 1 - 1e-9
"""Length of a padding edge in cutoffs: every radial function and its slope have vanished there."""


@dataclass(frozen=True)
class Shapes:
    """The sizes that batches are filled up to.

    What is added is a frame of atoms of the first type, far from all others, with edges as long as the cutoff, and
    without labels: it adds zero to the loss and to each gradient.

    Attributes
    ----------
    levels : tuple of (frames, atoms, edges)
        Ascending.
    cutoff : float
        Of a pair of the first type, Angstrom.
    """

    levels: tuple[tuple[int, int, int], ...]
    cutoff: float

    def pad(self, batch: Batch) -> Batch:
        """The batch at the smallest size that holds it; as it is if none does."""
        graph = batch.graph
        for frames, atoms, edges in self.levels:
            if graph.num_frames < frames and graph.num_atoms < atoms and graph.num_edges <= edges:
                return _fill(batch, frames, atoms, edges, self.cutoff * _INSIDE)
        return batch


def shapes_for(table: FrameTable, batch_size: int, budget: int | None, cutoff: float) -> Shapes:
    """Sizes for all batches that can be packed from some frames.

    Parameters
    ----------
    table : FrameTable
    batch_size : int
        Frames of a batch at most.
    budget : int or None
        Edges of a batch at most, where it has more than one frame.
    cutoff : float
        Of a pair of the first type, Angstrom.
    """
    atoms = int(sum(sorted(table.atoms.sum(axis=1).tolist())[-batch_size:]))
    frame_edges = sorted(table.num_edges().tolist())[-batch_size:]
    edges = int(sum(frame_edges))
    if budget is not None:
        edges = min(edges, max(budget, int(frame_edges[-1])))
    levels = [tuple(1 + round(part * most + 0.499) for most in (batch_size, atoms, edges)) for part in _LEVELS]
    return Shapes(tuple(dict.fromkeys(levels)), cutoff)  # type: ignore[arg-type]


def _fill(batch: Batch, frames: int, atoms: int, edges: int, length: float) -> Batch:
    graph, labels = batch.graph, (batch.energies, batch.forces, batch.virials, batch.weights, batch.counts)
    new_frames, new_atoms, new_edges = frames - graph.num_frames, atoms - graph.num_atoms, edges - graph.num_edges
    per_atom = torch.full((new_atoms,), new_edges // new_atoms, dtype=torch.int64)
    per_atom[: new_edges % new_atoms] += 1
    centers = graph.num_atoms + torch.repeat_interleave(torch.arange(new_atoms), per_atom)
    steps = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand(new_edges, 3)
    joined = Graph(
        positions=_append(graph.positions, 0.0, new_atoms),
        cells=torch.cat([graph.cells, length * torch.eye(3, dtype=torch.float64).expand(new_frames, 3, 3)]),
        types=_append(graph.types, 0, new_atoms),
        frames=_append(graph.frames, graph.num_frames, new_atoms),
        num_frames=frames,
        centers=torch.cat([graph.centers, centers]),
        neighbors=torch.cat([graph.neighbors, centers]),
        shifts=torch.cat([graph.shifts, steps]),
        ptr=torch.cat([graph.ptr, graph.num_edges + per_atom.cumsum(0)]),
    )
    fills: Sequence[tuple[float, int]] = (
        (float("nan"), new_frames),
        (float("nan"), new_atoms),
        (float("nan"), new_frames),
        (0.0, new_frames),
        (1.0, new_frames),
    )
    energies, forces, virials, weights, counts = (
        _append(values, fill, count) for values, (fill, count) in zip(labels, fills, strict=True)
    )
    return replace(
        batch, graph=joined, energies=energies, forces=forces, virials=virials, weights=weights, counts=counts
    )


def _append(values: Tensor, fill: float, count: int) -> Tensor:
    return torch.cat([values, values.new_full((count, *values.shape[1:]), fill)])
