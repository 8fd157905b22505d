"""Neighbour lists in torch operations, on whatever device the positions are: cells, candidates, distances."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asenequip.neighbors import complete_cell, least_skewed, refuse_collapse, refuse_oversize

TensorEdges = tuple[Tensor, Tensor, Tensor]
"""(centers (z,) int64, neighbors (z,) int64, shifts (z, 3) int64): by centre, neighbour and shift."""


@dataclass(frozen=True)
class _Grid:
    """Atoms sorted into bins.

    Attributes
    ----------
    bins : (3,) int64
        Along each lattice vector.
    reach : (3,) int64
        Bins to look at on either side.
    place : (n, 3) int64
        Bin of each atom.
    order, starts : (n,), (b+1,) int64
        Atoms by bin, and where those of each bin begin.
    """

    bins: Tensor
    reach: Tensor
    place: Tensor
    order: Tensor
    starts: Tensor


def find_edges_on_device(
    positions: Tensor, cell: np.ndarray, pbc: np.ndarray, cutoff: float, budget: int = 30_000_000
) -> TensorEdges:
    """All directed edges shorter than ``cutoff``; the same as `asenequip.neighbors.find_edges`, in the same order.

    Parameters
    ----------
    positions : (n, 3) float64
        Angstrom, on the device that does the work.
    cell : (3, 3) float64
        Rows are lattice vectors; rows of non-periodic directions may be zero.
    pbc : (3,) bool
    cutoff : float
        Angstrom.
    budget : int
        Candidate pairs looked at together: bounds the memory.
    """
    device, n = positions.device, positions.shape[0]
    if n == 0:
        empty = torch.zeros(0, dtype=torch.int64, device=device)
        return empty, empty, empty.new_zeros(0, 3)
    box = complete_cell(cell, pbc)
    pbc = np.array(pbc, dtype=bool)
    box, turns = least_skewed(box, pbc)
    refuse_collapse(n, box, pbc, cutoff)
    if device.type == "cuda":
        refuse_oversize(positions.cpu().numpy(), box, pbc, cutoff, lambda: torch.cuda.mem_get_info(device)[0])
    lattice = torch.from_numpy(box).to(device)
    wrapped, offsets, grid = _sort_into_bins(positions, lattice, torch.from_numpy(pbc).to(device), cutoff)
    found = []
    for centers, neighbors, shifts in _candidates(grid, pbc, budget):
        vectors = wrapped[neighbors] - wrapped[centers] + shifts.to(wrapped.dtype) @ lattice
        itself = (centers == neighbors) & (shifts == 0).all(dim=1)
        keep = ((vectors * vectors).sum(dim=1) < cutoff * cutoff) & ~itself
        found.append((centers[keep], neighbors[keep], shifts[keep]))
    centers, neighbors, shifts = (torch.cat(parts) for parts in zip(*found, strict=True))
    shifts = shifts + offsets[centers] - offsets[neighbors]
    if turns is not None:  # products of whole numbers are there on a CPU alone
        shifts = (shifts.to(torch.float64) @ torch.from_numpy(turns).to(device, torch.float64)).round().to(torch.int64)
    order = _canonical_order(centers, neighbors, shifts, n)
    return centers[order], neighbors[order], shifts[order]


def _sort_into_bins(positions: Tensor, lattice: Tensor, pbc: Tensor, cutoff: float) -> tuple[Tensor, Tensor, _Grid]:
    """Positions moved into the cell along periodic directions, whole cells taken off each atom, and the grid."""
    inverse = torch.linalg.inv(lattice)
    fractions = positions @ inverse
    offsets = torch.where(pbc, fractions.floor(), torch.zeros_like(fractions))
    wrapped = positions - offsets @ lattice
    fractions = fractions - offsets
    low = torch.where(pbc, torch.zeros_like(fractions[0]), fractions.amin(dim=0))
    extent = torch.where(pbc, torch.ones_like(low), (fractions.amax(dim=0) - low).clamp(min=1e-9))
    heights = extent / torch.linalg.vector_norm(inverse, dim=0)
    bins = (heights / cutoff).clamp(1, 1e6).floor()
    most = max(64.0, 4.0 * positions.shape[0])
    crowd = (bins.prod() / most).clamp(min=1.0) ** (1.0 / 3.0)
    bins = (bins / crowd).floor().clamp(min=1)
    place = torch.minimum(((fractions - low) / extent * bins).floor().clamp(min=0), bins - 1).to(torch.int64)
    reach = torch.ceil(cutoff / (heights / bins) - 1e-9).clamp(min=1).to(torch.int64)
    reach = torch.where(pbc, reach, torch.minimum(reach, bins.to(torch.int64)))
    bins = bins.to(torch.int64)
    number = (place[:, 0] * bins[1] + place[:, 1]) * bins[2] + place[:, 2]
    order = torch.argsort(number, stable=True)
    counts = torch.bincount(number, minlength=int(bins.prod()))
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return wrapped, offsets.to(torch.int64), _Grid(bins, reach, place, order, starts)


def _candidates(grid: _Grid, pbc: np.ndarray, budget: int) -> Iterator[TensorEdges]:
    """Pairs of atoms in neighbouring bins, with the shift between them; a part of the centres at a time."""
    device = grid.place.device
    ranges = [range(-r, r + 1) for r in grid.reach.tolist()]
    steps = torch.tensor(list(itertools.product(*ranges)), dtype=torch.int64, device=device)
    free = torch.from_numpy(~pbc).to(device)
    n = grid.place.shape[0]
    rows = max(1, min(n, budget // (8 * len(steps))))
    for first in range(0, n, rows):
        place = grid.place[first : first + rows, None, :] + steps
        shifts = torch.div(place, grid.bins, rounding_mode="floor")
        inside = ~((shifts != 0) & free).any(dim=2)
        place = place - shifts * grid.bins
        number = ((place[..., 0] * grid.bins[1] + place[..., 1]) * grid.bins[2] + place[..., 2]).flatten()
        begin = grid.starts[number]
        counts = torch.where(inside.flatten(), grid.starts[number + 1] - begin, 0)
        yield from _pairs(grid, first, len(steps), begin, counts, shifts.flatten(0, 1), budget)


def _pairs(
    grid: _Grid, first: int, steps: int, begin: Tensor, counts: Tensor, shifts: Tensor, budget: int
) -> Iterator[TensorEdges]:
    """The pairs of rows (centre, bin), at most about ``budget`` at a time."""
    ends = counts.cumsum(0)
    total = int(ends[-1])
    parts = max(1, math.ceil(total / budget))
    cuts = torch.searchsorted(ends, torch.linspace(0, total, parts + 1, device=ends.device)[1:-1].to(ends.dtype))
    for low, high in itertools.pairwise([0, *cuts.tolist(), len(counts)]):
        mine = counts[low:high]
        row = torch.repeat_interleave(torch.arange(low, high, device=counts.device), mine)
        inner = torch.arange(row.shape[0], device=row.device) - (mine.cumsum(0) - mine)[row - low]
        yield first + torch.div(row, steps, rounding_mode="floor"), grid.order[begin[row] + inner], shifts[row]


def _canonical_order(centers: Tensor, neighbors: Tensor, shifts: Tensor, num_atoms: int) -> Tensor:
    """Order by centre, neighbour and shift."""
    if not len(centers):
        return centers
    low = shifts.amin(dim=0)
    spans = (shifts.amax(dim=0) - low + 1).tolist()
    code = shifts - low
    inner = (code[:, 0] * spans[1] + code[:, 1]) * spans[2] + code[:, 2]
    if num_atoms**2 * float(np.prod(np.array(spans, float))) < 2**62:
        return torch.argsort((centers * num_atoms + neighbors) * int(np.prod(spans)) + inner)
    order = torch.argsort(inner, stable=True)
    return order[torch.argsort((centers * num_atoms + neighbors)[order], stable=True)]
