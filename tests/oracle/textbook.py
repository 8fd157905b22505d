"""Allegro as the paper writes it: a tensor per edge, every tensor product formed, images found by brute force.

Only the stored weights are shared with the package. Letters: n atoms, z edges, u channels, i j m components.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers
from e3nn import o3
from torch import Tensor

from asenequip.model.spec import AllegroSpec

Irrep = tuple[int, int]
ACTIVATION = {
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "mish": lambda x: x * torch.tanh(torch.log1p(torch.exp(x))),
    "gelu": lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
    "ssp": lambda x: torch.log(0.5 * torch.exp(x) + 0.5),
    "tanh": torch.tanh,
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "softplus": lambda x: torch.log1p(torch.exp(x)),
    "none": lambda x: x,
}


@dataclass
class Result:
    """Energies (n,) eV, forces (n, 3) eV/A, stress (3, 3) eV/A^3 (None without a volume)."""

    energies: Tensor
    forces: Tensor
    stress: Tensor | None


def evaluate(state: dict[str, Tensor], spec: AllegroSpec, atoms: Atoms, create_graph: bool = False) -> Result:
    """Energies and their derivatives with respect to positions and a symmetric strain."""
    positions = torch.tensor(atoms.positions, dtype=torch.float64, requires_grad=True)
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    deformation = torch.eye(3, dtype=torch.float64) + 0.5 * (strain + strain.T)
    cell = torch.tensor(np.asarray(atoms.cell), dtype=torch.float64)
    found = energies(state, spec, atoms, positions @ deformation, cell @ deformation)
    gradient, virial = torch.autograd.grad(found.sum(), [positions, strain], create_graph=create_graph)
    volume = float(torch.linalg.det(cell).abs())
    return Result(found, -gradient, virial / volume if volume > 0 else None)


def brute_force_edges(spec: AllegroSpec, atoms: Atoms) -> tuple[Tensor, Tensor, Tensor]:
    """All (centre, neighbour, shift) with a distance below the cutoff of the two types."""
    cell = np.asarray(atoms.cell)
    reach = [0, 0, 0]
    for axis in range(3):
        if atoms.pbc[axis]:
            normal = np.linalg.pinv(cell)[:, axis]  # 1 / its length is the distance between lattice planes
            spread = np.ptp(atoms.positions @ normal)
            reach[axis] = int(np.ceil(spec.cutoff * np.linalg.norm(normal) + spread)) + 1
    whole = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij"), -1).reshape(-1, 3)
    x = atoms.positions
    vectors = x[None, None] + (whole @ cell)[:, None, None] - x[None, :, None]  # shift, centre, neighbour
    distances = np.linalg.norm(vectors, axis=-1)
    types = [spec.type_names.index(s) for s in atoms.symbols]
    near = distances < np.array(spec.cutoff_table())[np.ix_(types, types)]
    near[~whole.any(axis=1)] &= ~np.eye(len(atoms), dtype=bool)
    shifts, centers, neighbors = np.nonzero(near)
    return torch.tensor(centers), torch.tensor(neighbors), torch.tensor(whole[shifts], dtype=torch.float64)


def energies(state: dict[str, Tensor], spec: AllegroSpec, atoms: Atoms, positions: Tensor, cell: Tensor) -> Tensor:
    """Energy of each atom (n,), eV."""
    c, n, shifts = brute_force_edges(spec, atoms)
    types = torch.tensor([spec.type_names.index(s) for s in atoms.symbols])
    vectors = positions[n] + shifts @ cell - positions[c]
    d = vectors.norm(dim=1)
    table = torch.tensor(spec.cutoff_table(), dtype=torch.float64)
    x = d / table[types[c], types[n]]
    Y = o3.spherical_harmonics(list(range(spec.l_max + 1)), vectors, normalize=True, normalization="component")
    neighbors = torch.tensor(spec.avg_num_neighbors, dtype=torch.float64)[types]
    e = edge_energies(state, spec, x, Y, types, c, n, neighbors)
    total = torch.zeros(len(atoms), dtype=torch.float64).index_add(0, c, e)
    out = state["scales"][types] / torch.sqrt(2 * neighbors) * total + state["shifts"][types]
    if spec.pair is not None:
        out = out.index_add(0, c, pair_energy(state, spec, d, x, types[c], types[n]))
    return out


def edge_energies(
    state: dict[str, Tensor],
    spec: AllegroSpec,
    x: Tensor,
    Y: Tensor,
    types: Tensor,
    c: Tensor,
    n: Tensor,
    neighbors: Tensor,
) -> Tensor:
    """Readout of each edge (z,); sections 3 to 6, a tensor V (z, u, i) per edge and layer."""
    S, U, R = spec.num_scalar_features, spec.num_tensor_features, spec.l_max + 1
    h = mlp(state, "two_body", radial(state, spec, x, types[c], types[n]), spec.two_body_nonlinearity, spec)
    w1 = mlp(state, "embed", h, "silu", spec).reshape(-1, R, U)
    projected = mlp(state, "project", h, "silu", spec, forward=True)
    scalars, w = [projected[:, :S]], projected[:, S:]
    V = torch.cat([w1[:, l, :].unsqueeze(-1) * Y[:, None, l * l : (l + 1) ** 2] for l in range(R)], dim=-1)
    for k, (irreps_in, irreps_out) in enumerate(layer_irreps(spec)):
        w = w.reshape(-1, R, U) if spec.individual_irrep_weights else w.reshape(-1, 1, U).expand(-1, R, U)
        weighted = torch.cat(
            [w[:, l, :].unsqueeze(-1) * Y[:, None, l * l : (l + 1) ** 2] for l in range(R)], dim=-1
        )  # (z, u, j)
        G = torch.zeros(len(types), U, R * R, dtype=torch.float64).index_add(0, c, weighted)
        G = G / torch.sqrt(neighbors)[:, None, None]
        V = tensor_product(spec, state[f"track.path_weights.{k}"], V, G[c], irreps_in, irreps_out)
        out = mlp(state, f"latents.{k}", torch.cat([*scalars, V[:, :, 0]], dim=1), spec.latent_nonlinearity, spec)
        scalars.append(out[:, :S])
        w = out[:, S:]
    return mlp(state, "readout", torch.cat(scalars, dim=1), spec.readout_nonlinearity, spec)[:, 0]


def tensor_product(
    spec: AllegroSpec, weights: Tensor, V: Tensor, G: Tensor, irreps_in: list[Irrep], irreps_out: list[Irrep]
) -> Tensor:
    """sum_p W[u,p] sum_ij C^p_ijm V[z,u,i] G[z,u,j], output irreps one after another."""
    blocks, path = [], 0
    for out in irreps_out:
        block = torch.zeros(*V.shape[:2], 2 * out[0] + 1, dtype=torch.float64)
        begin = 0
        for first in irreps_in:
            width = 2 * first[0] + 1
            for l in range(spec.l_max + 1):
                if contains(first, (l, (-1) ** l), out):
                    C = math.sqrt(2 * out[0] + 1) * o3.wigner_3j(first[0], l, out[0], dtype=torch.float64)
                    term = torch.einsum(
                        "ijm,zui,zuj->zum", C, V[:, :, begin : begin + width], G[:, :, l * l : (l + 1) ** 2]
                    )
                    block = block + weights[path][:, None] * term  # (u, 1), or (1, 1) for paths shared by the channels
                    path += 1
            begin += width
        blocks.append(block)
    if path != len(weights):
        raise RuntimeError(f"the oracle counts {path} paths, the model stores {len(weights)}")
    return torch.cat(blocks, dim=-1)


def contains(first: Irrep, second: Irrep, out: Irrep) -> bool:
    """Whether O(3) irrep ``out`` is in the product, asked of e3nn."""
    return o3.Irrep(*out) in list(o3.Irrep(*first) * o3.Irrep(*second))


def layer_irreps(spec: AllegroSpec) -> list[tuple[list[Irrep], list[Irrep]]]:
    """(irreps in, irreps out) of every layer, after the forward and the backward pass of section 5."""
    Y = [(l, (-1) ** l) for l in range(spec.l_max + 1)]
    allowed = [(l, p) for l in range(spec.l_max + 1) for p in (1, -1)] if spec.parity else Y
    stages = [Y]
    for k in range(spec.num_layers):
        wanted = [(0, 1)] if k == spec.num_layers - 1 else allowed
        stages.append([o for o in wanted if any(contains(a, y, o) for a in stages[-1] for y in Y)])
    for k in reversed(range(spec.num_layers)):
        stages[k] = [a for a in stages[k] if any(contains(a, y, o) for y in Y for o in stages[k + 1])]
    return list(itertools.pairwise(stages))


def mlp(
    state: dict[str, Tensor], name: str, x: Tensor, nonlinearity: str, spec: AllegroSpec, forward: bool | None = None
) -> Tensor:
    """Section 2: y = a x W, gain sqrt 2 after a nonlinearity (before one, where gradients are normalised)."""
    forward = spec.forward_normalize if forward is None else forward
    weights = []
    while f"{name}.weights.{len(weights)}" in state:
        weights.append(state[f"{name}.weights.{len(weights)}"])
    for k, W in enumerate(weights):
        x = x if k == 0 else ACTIVATION[nonlinearity](x)
        exempt = k == 0 if forward else k == len(weights) - 1
        gain = 1.0 if exempt or nonlinearity == "none" else math.sqrt(2.0)
        x = gain / math.sqrt(W.shape[0] if forward else W.shape[1]) * (x @ W)
    return x


def envelope(x: Tensor, p: int) -> Tensor:
    """1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2), zero from x = 1 on."""
    f = 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1) - p * (p + 1) / 2 * x ** (p + 2)
    return torch.where(x < 1, f, torch.zeros_like(x))


def radial(state: dict[str, Tensor], spec: AllegroSpec, x: Tensor, t_c: Tensor, t_n: Tensor) -> Tensor:
    """Section 3: the two-body embedding (z, dim)."""
    if spec.radial == "bessel":
        w = state["radial.frequencies"]
        b = torch.sin(math.pi * x[:, None] * w) / (math.pi * x[:, None])
        basis = mlp(state, "radial.basis", b * envelope(x, spec.envelope_exponent)[:, None], "silu", spec)
        return torch.cat([state["radial.center"][t_c], state["radial.neighbor"][t_n]], dim=1) * basis
    G, span = spec.num_splines, spec.spline_span
    lo = (torch.arange(G, dtype=torch.float64) - span) / G
    D = (span + 1) / G
    inside = torch.clip(x[:, None], lo, lo + D) - lo
    B = 0.25 * (1 - torch.cos(2 * math.pi / D * inside)) ** 2
    return torch.einsum("zdg,zg->zd", state["radial.coefficients"][t_c * spec.num_types + t_n], B)


def pair_energy(state: dict[str, Tensor], spec: AllegroSpec, d: Tensor, x: Tensor, t_c: Tensor, t_n: Tensor) -> Tensor:
    """Half a pair's energy for every directed edge (z,), eV."""
    pair = spec.pair
    f = envelope(x, pair.envelope_exponent)
    if pair.kind == "zbl":
        numbers = torch.tensor([atomic_numbers[s] for s in spec.type_names], dtype=torch.float64)
        Zi, Zj = numbers[t_c], numbers[t_n]
        arg = d * (Zi**0.23 + Zj**0.23) / 0.46850
        psi = (
            0.02817 * torch.exp(-0.20162 * arg)
            + 0.28022 * torch.exp(-0.40290 * arg)
            + 0.50986 * torch.exp(-0.94229 * arg)
            + 0.18175 * torch.exp(-3.19980 * arg)
        )
        return 0.5 * 14.399645 * Zi * Zj / d * psi * f
    low, high = torch.minimum(t_c, t_n), torch.maximum(t_c, t_n)
    sigma, epsilon, delta = (state[f"pair.{k}"][low, high].clamp(min=0) for k in ("sigma", "epsilon", "delta"))
    if pair.style == "repulsive":
        return 0.5 * epsilon * (sigma * (d - delta)) ** (-pair.exponent) * f
    s = (sigma / (d - delta)) ** pair.exponent
    u = 2 * epsilon * (s**2 - s)
    if pair.style == "lj_repulsive_only":
        u = torch.where(d < 2 ** (1 / pair.exponent) + delta, u + epsilon, torch.zeros_like(u))
    return u * f
