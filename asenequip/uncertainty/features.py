"""Last-layer features of structures and their derivatives with respect to the positions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from asenequip.graph import Graph
from asenequip.model.allegro import Allegro


def feature_factors(model: Allegro) -> np.ndarray:
    """(T,) float64, eV: scale_t / sqrt(2 Nbar_t) times the scale of the readout's last map."""
    factor = model.scales * model.inverse_norm / 2**0.5 * model.readout.scales[-1]
    return factor.detach().cpu().numpy()


def _weighted_features(model: Allegro, graph: Graph, vectors: Tensor) -> Tensor:
    """Features of the whole batch, (d,) float64, differentiable in the edge vectors."""
    output = model(graph, vectors)
    factors = (model.scales * model.inverse_norm / 2**0.5 * model.readout.scales[-1]).detach()
    rows = model.last_layer(output, graph.centers, graph.num_atoms)
    return (rows * factors[graph.types].unsqueeze(1)).sum(dim=0)


def force_jacobian(model: Allegro, graph: Graph) -> np.ndarray:
    """Derivative of every force component with respect to the last weights, (n, 3, d) float64.

    One backward pass for each of the d features: exact, and as dear as d force calls.
    """
    with torch.enable_grad():
        vectors = graph.vectors().detach().requires_grad_(True)
        features = _weighted_features(model, graph, vectors)
        columns = []
        for k in range(features.shape[0]):
            (g,) = torch.autograd.grad(features[k], vectors, retain_graph=True)
            forces = g.new_zeros(graph.num_atoms, 3).index_add(0, graph.centers, g)
            columns.append(forces.index_add(0, graph.neighbors, -g))
    return torch.stack(columns, dim=-1).cpu().numpy()


def force_rows(model: Allegro, graph: Graph, directions: int, rng: np.random.Generator) -> np.ndarray:
    """Derivatives of random combinations of the force components with respect to the last weights.

    With normal displacements v, row = - d/dt f(x + t v), so that the mean of row^T row over v is J^T J of
    `force_jacobian` (Hutchinson's estimator), at the cost of a few force calls instead of d.

    Parameters
    ----------
    model : Allegro
    graph : Graph
    directions : int
    rng : numpy Generator

    Returns
    -------
    (directions, d) float64
    """
    with torch.enable_grad():
        vectors = graph.vectors().detach().requires_grad_(True)
        features = _weighted_features(model, graph, vectors)
        weights = torch.zeros_like(features, requires_grad=True)
        (g,) = torch.autograd.grad(features @ weights, vectors, create_graph=True)  # linear in the weights
        rows = []
        for _ in range(directions):
            moves = torch.from_numpy(rng.standard_normal((graph.num_atoms, 3))).to(g.device)
            along = moves[graph.centers] - moves[graph.neighbors]
            (row,) = torch.autograd.grad((g * along).sum(), weights, retain_graph=True)
            rows.append(row)
    return torch.stack(rows).cpu().numpy()
