"""A part of a larger system: centres that are evaluated, and ghosts behind them that are only neighbours.

An Allegro potential is strictly local: the energy of a centre depends on its own edges alone. So the forces that come
from the owned centres, on owned atoms and ghosts alike, are complete once the forces on ghosts have travelled to their
owners; no centre is evaluated twice, and nothing beyond one cutoff is needed.
"""

from __future__ import annotations

import numpy as np
import torch

from asenequip.evaluate import Evaluator
from asenequip.graph import Graph
from asenequip.neighbors import EdgeList


def evaluate_subdomain(
    evaluator: Evaluator, positions: np.ndarray, types: np.ndarray, edges: EdgeList
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energies of the centres, and what they contribute to forces and virials.

    Parameters
    ----------
    evaluator : Evaluator
    positions : (m, 3) float64
        Angstrom; the n centres first, then the ghosts. Images of an atom are atoms of their own here.
    types : (m,) int32
        Index into the potential's ``type_names``.
    edges : EdgeList
        Edges of the n centres, in both directions where both atoms are centres; pairs beyond the cutoff do no harm.

    Returns
    -------
    energies : (n,) float64
        eV.
    forces : (m, 3) float64
        -dE/dx of the sum of these energies, eV/Angstrom.
    virials : (n, 3, 3) float64
        sum_z r_z (x) dE/dr_z of each centre, eV.

    Raises
    ------
    asenequip.fused.engine.CoincidingAtomsError
        In the compiled form, for two atoms on one spot.
    """
    if evaluator.engine is not None:
        frames = np.zeros(len(edges.ptr) - 1, np.int32)
        return evaluator.engine.run(positions, np.zeros((1, 3, 3)), frames, types, edges)
    derived = evaluator.derivatives(_graph(evaluator, positions, types, edges))
    energies, forces, virials = (t.detach().cpu().numpy() for t in (derived.energies, derived.forces, derived.virials))
    return energies, forces, virials


def _graph(evaluator: Evaluator, positions: np.ndarray, types: np.ndarray, edges: EdgeList) -> Graph:
    """The graph of the edges within the cutoffs, on the evaluator's device."""
    num_centers = len(edges.ptr) - 1
    centers = np.repeat(np.arange(num_centers), np.diff(edges.ptr))
    neighbors = edges.neighbors.astype(np.int64)
    vectors = positions[neighbors] - positions[centers]
    near = np.einsum("zi,zi->z", vectors, vectors) < evaluator.cutoffs[types[centers], types[neighbors]] ** 2
    centers, neighbors = centers[near], neighbors[near]
    ptr = np.zeros(num_centers + 1, np.int64)
    np.cumsum(np.bincount(centers, minlength=num_centers), out=ptr[1:])
    return Graph(
        positions=torch.from_numpy(np.array(positions, np.float64)),
        cells=torch.zeros(1, 3, 3, dtype=torch.float64),
        types=torch.from_numpy(types.astype(np.int64)),
        frames=torch.zeros(len(positions), dtype=torch.int64),
        num_frames=1,
        centers=torch.from_numpy(centers),
        neighbors=torch.from_numpy(neighbors),
        shifts=torch.zeros(len(centers), 3, dtype=torch.float64),
        ptr=torch.from_numpy(ptr),
    ).to(evaluator.device)
