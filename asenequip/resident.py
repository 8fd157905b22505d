"""Evaluation that stays on a device: positions go over once a step, results come back once.

The neighbour list is built where the atoms are, with a skin, and kept while the positions, which the host knows, allow
it. Small systems are bound by the launching of kernels: for them the whole step works on buffers of fixed size, edges
padded, so that it can be captured in a CUDA graph and replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asenequip.celllist import find_edges_on_device
from asenequip.graph import Graph
from asenequip.model.allegro import Allegro
from asenequip.model.derivatives import Slopes, assemble, evaluate_derivatives, slopes_of
from asenequip.model.mlp import MLP
from asenequip.neighbors import still_complete

_ROOM = 1.1
"""Space for edges, times those of the first list: later lists fit without a new capture."""

_FAR = 10.0
"""Length of a padding edge in cutoffs."""

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Energies (n,) eV, forces (n, 3) eV/Angstrom, virials (n, 3, 3) eV, float64."""


@dataclass(frozen=True)
class _Reference:
    """What the kept list was built from, on the host."""

    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    types: np.ndarray


@dataclass(frozen=True)
class _Buffers:
    """Tensors of fixed size on the device: n atoms and one more, whose edges are the padding.

    Attributes
    ----------
    inputs : (3 (n + 1) + 9,) float64
        Positions, the last one zero, and cell.
    types : (n+1,) int64
    centers, neighbors : (z,) int64
    shifts, padding : (z, 3) float64
        The second is added to the edge vectors: zero, or for padding far beyond the cutoff.
    ptr : (n+2,) int64
    results : (n+1, 13) float64
        Energy, force and virial of each atom.
    """

    inputs: Tensor
    types: Tensor
    centers: Tensor
    neighbors: Tensor
    shifts: Tensor
    padding: Tensor
    ptr: Tensor
    results: Tensor

    @classmethod
    def empty(cls, num_atoms: int, capacity: int, device: torch.device) -> _Buffers:
        """Buffers with room for ``num_atoms`` atoms and ``capacity`` edges."""

        def whole(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        def real(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        n, z = num_atoms + 1, capacity
        return cls(
            inputs=real(3 * n + 9),
            types=whole(n),
            centers=whole(z),
            neighbors=whole(z),
            shifts=real(z, 3),
            padding=real(z, 3),
            ptr=whole(n + 1),
            results=real(n, 13),
        )

    @property
    def capacity(self) -> int:
        """Edges that fit."""
        return self.centers.shape[0]

    @property
    def num_atoms(self) -> int:
        """Atoms without the one that the padding belongs to."""
        return self.types.shape[0] - 1

    def fill(self, types: np.ndarray, edges: tuple[Tensor, Tensor, Tensor], far: float) -> None:
        """Put in types and edges, and pad."""
        centers, neighbors, shifts = edges
        count, n = centers.shape[0], self.num_atoms
        self.types[:n] = torch.from_numpy(types.astype(np.int64)).to(self.types.device)
        self.centers[:count], self.neighbors[:count], self.shifts[:count] = centers, neighbors, shifts.to(torch.float64)
        self.centers[count:], self.neighbors[count:], self.shifts[count:] = n, n, 0.0
        self.padding[:count], self.padding[count:] = 0.0, far
        self.ptr[1:] = torch.bincount(self.centers, minlength=n + 1).cumsum(0)

    def graph(self) -> Graph:
        """The graph of the atoms and edges as they stand, padding included."""
        n = self.num_atoms
        positions, cell = self.inputs[: 3 * n + 3].view(n + 1, 3), self.inputs[3 * n + 3 :].view(1, 3, 3)
        frames = torch.zeros_like(self.types)
        return Graph(positions, cell, self.types, frames, 1, self.centers, self.neighbors, self.shifts, self.ptr)


class ResidentEngine:
    """Energies, forces and virials of one structure after the other, without leaving the device.

    Parameters
    ----------
    model : Allegro
        On the device.
    skin : float
        Angstrom.
    max_edges : int
        Edges worked on at once by structures that are not padded.
    padded_edges : int
        Candidate edges up to which a structure is padded, and on CUDA captured.
    slopes : callable, optional
        A compiled form of the model; see `asenequip.compiledgraph`.

    Attributes
    ----------
    builds, captures : int
        How many lists were built, and steps recorded.
    """

    def __init__(
        self,
        model: Allegro,
        skin: float,
        max_edges: int = 1_000_000,
        padded_edges: int = 200_000,
        slopes: Slopes | None = None,
    ) -> None:
        self.model, self.skin, self.max_edges = model, skin, max_edges
        self.slopes = slopes_of(model) if slopes is None else slopes
        self.device = model.device
        self.cutoffs = torch.tensor(model.spec.cutoff_table(), dtype=torch.float64, device=self.device)
        self.padded_edges = padded_edges if vanishes_beyond_the_cutoff(model) else 0
        self.builds = self.captures = 0
        self._reference: _Reference | None = None
        self._edges: tuple[Tensor, Tensor, Tensor] | None = None
        self._types: Tensor | None = None
        self._buffers: _Buffers | None = None
        self._step: Callable[[], None] | None = None

    def run(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, types: np.ndarray) -> Arrays:
        """Evaluate a structure.

        Parameters
        ----------
        positions : (n, 3) float64
            Angstrom.
        cell : (3, 3) float64
        pbc : (3,) bool
        types : (n,) int
        """
        if not self._holds(positions, cell, pbc, types):
            self._build(positions, cell, pbc, types)
        inputs = np.concatenate([positions.ravel(), np.zeros(3), np.asarray(cell, np.float64).ravel()])
        host = torch.from_numpy(inputs)
        if self._step is None or self._buffers is None:
            return self._run_unpadded(host.to(self.device), len(positions))
        self._buffers.inputs.copy_(host.pin_memory() if self.device.type == "cuda" else host, non_blocking=True)
        self._step()
        return _split(self._buffers.results.cpu().numpy()[:-1])

    # -- the list -----------------------------------------------------------------------------------------------------

    def _holds(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, types: np.ndarray) -> bool:
        """Whether the kept list has every edge of this state."""
        known = self._reference
        if known is None or not np.array_equal(types, known.types) or not np.array_equal(pbc, known.pbc):
            return False
        cutoff = self.model.spec.cutoff
        return still_complete(positions, cell, pbc, known.positions, known.cell, cutoff, self.skin)

    def _build(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, types: np.ndarray) -> None:
        points = torch.from_numpy(np.array(positions, np.float64)).to(self.device)
        edges = find_edges_on_device(points, cell, pbc, self.model.spec.cutoff + self.skin)
        self.builds += 1
        self._reference = None  # until all below is done: memory may end in between
        self._prepare(types, edges)
        self._reference = _Reference(*(np.array(a) for a in (positions, cell, pbc, types)))

    def _prepare(self, types: np.ndarray, edges: tuple[Tensor, Tensor, Tensor]) -> None:
        """Take a new list: as it is where it is long, else padded, in buffers that are used again where it fits."""
        count, n = edges[0].shape[0], len(types)
        if count > self.padded_edges:
            self._buffers = self._step = None
            self._edges, self._types = edges, torch.from_numpy(np.array(types, np.int64)).to(self.device)
            return
        self._edges = self._types = None
        if self._buffers is None or self._buffers.num_atoms != n or self._buffers.capacity < count:
            self._step = None
            self._buffers = _Buffers.empty(n, int(_ROOM * count) + 32, self.device)
        self._buffers.fill(types, edges, _FAR * self.model.spec.cutoff)
        if self._step is None:
            self._step = self._record(self._buffers)

    # -- the step -----------------------------------------------------------------------------------------------------

    def _record(self, buffers: _Buffers) -> Callable[[], None]:
        """The step on these buffers: on CUDA captured, after it has run on a stream aside, else as it is."""
        self.captures += 1

        def step() -> None:
            graph = buffers.graph()
            vectors = graph.vectors() + buffers.padding
            neighbor_types = graph.types.index_select(0, graph.neighbors)
            energies, gradient = self.slopes(vectors, graph.types, neighbor_types, graph.centers, graph.ptr)
            found = assemble(graph, vectors, gradient, energies)
            buffers.results.copy_(_pack(found.energies, found.forces, found.virials))

        return _capture(step, self.device) if self.device.type == "cuda" else step

    def _run_unpadded(self, inputs: Tensor, num_atoms: int) -> Arrays:
        """Edges within their cutoffs only, as many as there are."""
        if self._edges is None or self._types is None:
            raise RuntimeError("The engine has no list: run() builds it.")
        positions, cell = inputs[: 3 * num_atoms].view(-1, 3), inputs[-9:].view(1, 3, 3)
        centers, neighbors, shifts = self._edges
        reach = self.cutoffs[self._types[centers], self._types[neighbors]]
        vectors = positions[neighbors] - positions[centers] + shifts.to(torch.float64) @ cell[0]
        keep = (vectors * vectors).sum(dim=1) < reach * reach
        centers, neighbors, shifts = centers[keep], neighbors[keep], shifts[keep].to(torch.float64)
        counts = torch.bincount(centers, minlength=num_atoms).cumsum(0)
        ptr = torch.cat([counts.new_zeros(1), counts])
        frames = torch.zeros_like(self._types)
        graph = Graph(positions, cell, self._types, frames, 1, centers, neighbors, shifts, ptr)
        found = evaluate_derivatives(self.model, graph, max_edges=self.max_edges, slopes=self.slopes)
        return _split(_pack(found.energies, found.forces, found.virials).cpu().numpy())


def _capture(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """The step as a CUDA graph, after it has run on a stream aside: what is made on first use must be there before."""
    with torch.cuda.device(device):
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(aside)
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded):
            step()
    return recorded.replay


def vanishes_beyond_the_cutoff(model: Allegro) -> bool:
    """Whether an edge beyond its cutoff gives nothing at all: its input is zero, and every activation keeps zero."""
    zero = torch.zeros(1, dtype=torch.float64, device=model.device)
    networks = [module for module in model.modules() if isinstance(module, MLP)]
    return all(float(network.activation(zero)) == 0.0 for network in networks)


def _pack(energies: Tensor, forces: Tensor, virials: Tensor) -> Tensor:
    return torch.cat([energies.unsqueeze(1), forces, virials.flatten(1)], dim=1)


def _split(packed: np.ndarray) -> Arrays:
    return packed[:, 0].copy(), packed[:, 1:4].copy(), packed[:, 4:].reshape(-1, 3, 3).copy()
