"""A test structure that meets every pair of types within its cutoff, and what a nequip model says about it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

MOST_EDGES = 8000
"""Aimed-at size of the test structure: a second or two of the largest models."""


def random_frame(cutoffs: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """A periodic, oblique box of jittered lattice sites with all types, spaced within the smallest cutoff.

    Parameters
    ----------
    cutoffs : (T, T) float64
        Cutoff of each ordered pair of types, Angstrom.
    seed : int

    Returns
    -------
    dict
        ``positions`` (n, 3) and ``cell`` (3, 3) float64, Angstrom; ``types`` (n,) int64.
    """
    rng = np.random.default_rng(seed)
    num_types = len(cutoffs)
    side = max(2, math.ceil(max(12, num_types) ** (1 / 3)))
    count = side**3
    spacing = min(max(0.8 * float(cutoffs.min()), 1.0), 2.4)
    spacing = max(spacing, float(cutoffs.max()) * (4.19 * count / MOST_EDGES) ** (1 / 3))
    sites = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    positions = (sites + rng.uniform(-0.15, 0.15, sites.shape)) * spacing
    cell = (np.eye(3) + rng.uniform(-0.04, 0.04, (3, 3))) * side * spacing
    types = rng.permutation(np.arange(count) % num_types)
    return {"positions": positions @ (cell / (side * spacing)), "cell": cell, "types": types}


def find_edges(frame: dict[str, Any], cutoffs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All directed edges within the cutoffs by trying every image: ((2, z) int64, shifts (z, 3) float64)."""
    positions, cell, types = frame["positions"], frame["cell"], frame["types"]
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    reach = [math.ceil(float(cutoffs.max()) / h) + 1 for h in heights]
    pairs, shifts = [], []
    limit = cutoffs[types[:, None], types[None, :]]
    for shift in np.ndindex(*[2 * r + 1 for r in reach]):
        offset = np.array(shift) - reach
        distance = np.linalg.norm(positions[None, :] + offset @ cell - positions[:, None], axis=-1)
        near = (distance < limit) & ((distance > 0) | bool(offset.any()))
        found = np.argwhere(near)
        pairs.append(found)
        shifts.append(np.tile(offset.astype(np.float64), (len(found), 1)))
    return np.ascontiguousarray(np.concatenate(pairs).T), np.concatenate(shifts)


def evaluate(model: Any, frame: dict[str, Any], cutoffs: np.ndarray) -> dict[str, Any]:
    """Energy (eV), forces (n, 3) (eV/Angstrom) and stress (3, 3) (eV/Angstrom^3) of a nequip model, as lists."""
    edges, shifts = find_edges(frame, cutoffs)
    count = len(frame["positions"])
    data = {
        "pos": torch.tensor(frame["positions"], dtype=torch.float64),
        "cell": torch.tensor(frame["cell"], dtype=torch.float64).reshape(1, 3, 3),
        "edge_index": torch.tensor(edges, dtype=torch.int64),
        "edge_cell_shift": torch.tensor(shifts, dtype=torch.float64),
        "atom_types": torch.tensor(frame["types"], dtype=torch.int64),
        "batch": torch.zeros(count, dtype=torch.int64),
        "num_atoms": torch.tensor([count], dtype=torch.int64),
    }
    out = model(data)
    return {
        "energy": float(out["total_energy"].detach().double()),
        "forces": out["forces"].detach().double().tolist(),
        "stress": out["stress"].detach().double().reshape(3, 3).tolist(),
    }
