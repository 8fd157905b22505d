"""Second derivatives of the energy: rows of the Hessian from the few centres that an atom's position acts upon.

The potential is strictly local: the position of atom i changes the energies of i and of the centres that have i among
their neighbours, and no others. Row i of the Hessian is therefore the derivative of the gradient of those few energies,
and costs the same in a large supercell as in a small one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from asenequip.graph import Graph
from asenequip.model.allegro import Allegro


def hessian(model: Allegro, graph: Graph, rows: Sequence[int] | None = None) -> Tensor:
    """Second derivatives of the total energy with respect to the positions.

    Parameters
    ----------
    model : Allegro
    graph : Graph
    rows : sequence of int, optional
        Atoms whose rows are wanted, m of them, as NumPy indexes an array of the atoms; all by default.

    Returns
    -------
    (m, 3, n, 3) float64, eV/Angstrom^2

    Raises
    ------
    IndexError
        For an atom that is not there.
    """
    chosen = np.arange(graph.num_atoms)
    if rows is not None:
        chosen = chosen[np.asarray(rows) if len(rows) else slice(0)]
    vectors = graph.vectors().detach()
    blocks = [_row(model, graph, vectors, atom) for atom in chosen.tolist()]
    return torch.stack(blocks) if blocks else vectors.new_zeros(0, 3, graph.num_atoms, 3)


def _row(model: Allegro, graph: Graph, vectors: Tensor, atom: int) -> Tensor:
    """Derivatives of dE/dr_atom with respect to all positions, (3, n, 3)."""
    touched = graph.centers[graph.neighbors == atom]
    atoms = torch.unique(torch.cat([touched, touched.new_tensor([atom])]))  # sorted
    local = torch.full((graph.num_atoms,), -1, dtype=torch.int64, device=vectors.device)
    local[atoms] = torch.arange(len(atoms), device=vectors.device)
    edges = torch.nonzero(local[graph.centers] >= 0).squeeze(1)
    centers, neighbors = graph.centers[edges], graph.neighbors[edges]
    ptr = torch.searchsorted(local[centers], torch.arange(len(atoms) + 1, device=vectors.device))
    with torch.enable_grad():
        leaf = vectors[edges].requires_grad_(True)
        energies = model.local(leaf, graph.types[atoms], graph.types[neighbors], local[centers], ptr).energies
        (gradient,) = torch.autograd.grad(energies.sum(), leaf, create_graph=True)
        ends = (neighbors == atom).to(vectors.dtype) - (centers == atom).to(vectors.dtype)
        row = []
        for axis in range(3):
            (second,) = torch.autograd.grad((gradient[:, axis] * ends).sum(), leaf, retain_graph=axis < 2)
            block = second.new_zeros(graph.num_atoms, 3)
            row.append(block.index_add(0, neighbors, second).index_add(0, centers, -second))
    return torch.stack(row)
