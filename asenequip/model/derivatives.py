"""Forces, stress and virials: all of them follow from the gradient with respect to the edge vectors.

The energy depends on positions and cell only through the edge vectors r_z. With g_z = dE/dr_z:
F_n = sum_{z: c=n} g_z - sum_{z: n(z)=n} g_z, and the strain derivative is sum_z r_z (x) g_z (symmetrised).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from asenequip.graph import Graph
from asenequip.model.allegro import Allegro

Slopes = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes what `Allegro.local` takes; gives the energies (n,) and the gradient of their sum with respect to the edge
vectors (z, 3), both float64 and detached."""


@dataclass(frozen=True)
class Derivatives:
    """Energies and first derivatives of a batch, all float64.

    Attributes
    ----------
    energies : (n,)
        eV per atom.
    forces : (n, 3)
        eV/Angstrom.
    virials : (n, 3, 3)
        Strain derivative sum_z r_z (x) dE/dr_z over the edges of each centre, eV, not symmetrised; for a frame, their
        symmetrised sum over the volume is the stress (tension positive).
    last_layer : (n, width), optional
        Where it was asked for; see `Allegro.last_layer`.
    """

    energies: Tensor
    forces: Tensor
    virials: Tensor
    last_layer: Tensor | None = None


def evaluate_derivatives(
    model: Allegro,
    graph: Graph,
    create_graph: bool = False,
    max_edges: int | None = None,
    last_layer: bool = False,
    slopes: Slopes | None = None,
) -> Derivatives:
    """Energies, forces and per-atom virials of a batch.

    Parameters
    ----------
    model : Allegro
    graph : Graph
    create_graph : bool
        Keep the graph of the derivatives, for a loss on forces and stress; not together with ``max_edges``.
    max_edges : int, optional
        Work through the centres in blocks of about this many edges: bounded memory, the same numbers.
    last_layer : bool
        Give the last layer too, without a graph.
    slopes : callable, optional
        A compiled form of the same network, taken where neither ``create_graph`` nor ``last_layer`` is asked for.
    """
    compiled = None if create_graph or last_layer else slopes
    with torch.enable_grad():
        vectors = graph.vectors().detach()
        energies, gradients, layers = [], [], []
        for edges, inputs in local_blocks(graph, max_edges):
            if compiled is not None:
                energy, gradient = compiled(vectors[edges], *inputs)
                energies.append(energy)
                gradients.append(gradient)
                continue
            leaf = vectors[edges].requires_grad_(True)
            output = model.local(leaf, *inputs)
            (gradient,) = torch.autograd.grad(output.energies.sum(), leaf, create_graph=create_graph)
            energies.append(output.energies if create_graph else output.energies.detach())
            gradients.append(gradient)
            if last_layer:
                types, _, centers, _ = inputs
                with torch.no_grad():
                    layers.append(model.last_layer(output, centers, len(types)))
        found = assemble(graph, vectors, torch.cat(gradients), torch.cat(energies))
        return replace(found, last_layer=torch.cat(layers)) if last_layer else found


def slopes_of(model: Allegro) -> Slopes:
    """Energies and their gradient by the network and automatic differentiation."""

    def slopes(
        vectors: Tensor, types: Tensor, neighbor_types: Tensor, centers: Tensor, ptr: Tensor
    ) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = vectors.detach().requires_grad_(True)
            energies = model.local(leaf, types, neighbor_types, centers, ptr).energies
            (gradient,) = torch.autograd.grad(energies.sum(), leaf)
        return energies.detach(), gradient

    return slopes


def local_blocks(graph: Graph, max_edges: int | None) -> Iterator[tuple[slice, tuple[Tensor, Tensor, Tensor, Tensor]]]:
    """The graph in blocks of centres with about ``max_edges`` edges each, all at once for None.

    Yields
    ------
    edges : slice
        Edges of the block's centres.
    inputs : tuple of Tensor
        What `Allegro.local` takes after the edge vectors: types, neighbor_types, centers, ptr.
    """
    neighbor_types = graph.types.index_select(0, graph.neighbors)
    blocks: Iterable[tuple[slice, slice]] = [(slice(0, graph.num_centers), slice(0, graph.num_edges))]
    if max_edges is not None and graph.num_edges > max_edges:  # else a device need not be waited for
        blocks = edge_blocks(graph.ptr.cpu().numpy(), max_edges)
    for atoms, edges in blocks:
        ptr = graph.ptr[atoms.start : atoms.stop + 1]
        yield edges, (graph.types[atoms], neighbor_types[edges], graph.centers[edges] - atoms.start, ptr - ptr[0])


def edge_blocks(ptr: np.ndarray, max_edges: int) -> Iterator[tuple[slice, slice]]:
    """Slices of centres and of their edges, each of at most ``max_edges`` edges or of one centre.

    Parameters
    ----------
    ptr : (n+1,) int64
        Edges of centre a are ``ptr[a] : ptr[a+1]``.
    max_edges : int
    """
    first, count = 0, len(ptr) - 1
    while first < count:
        last = int(np.searchsorted(ptr, ptr[first] + max_edges, side="right")) - 1
        last = min(max(last, first + 1), count)
        yield slice(first, last), slice(int(ptr[first]), int(ptr[last]))
        first = last


def assemble(graph: Graph, vectors: Tensor, gradient: Tensor, energies: Tensor) -> Derivatives:
    """Forces and virials from the gradient with respect to the edge vectors, both (z, 3) float64."""
    forces = gradient.new_zeros(graph.num_atoms, 3)
    forces = forces.index_add(0, graph.centers, gradient).index_add(0, graph.neighbors, -gradient)
    virials = gradient.new_zeros(graph.num_centers, 3, 3)
    virials = virials.index_add(0, graph.centers, vectors.unsqueeze(2) * gradient.unsqueeze(1))
    return Derivatives(energies, forces, virials)


def sum_frames(graph: Graph, per_atom: Tensor) -> Tensor:
    """Sum a per-atom quantity (n, ...) over the atoms of each frame: (f, ...)."""
    out = per_atom.new_zeros((graph.num_frames, *per_atom.shape[1:]))
    return out.index_add(0, graph.frames, per_atom)


def stress(graph: Graph, virials: Tensor) -> Tensor:
    """Stress of each frame, (f, 3, 3) symmetric, eV/Angstrom^3, tension positive; infinite where there is no volume."""
    total = sum_frames(graph, virials)
    return 0.5 * (total + total.transpose(1, 2)) / graph.volumes()[:, None, None]
