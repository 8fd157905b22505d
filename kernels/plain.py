"""The tensor track in plain torch operations: runs anywhere, differentiable to any order.

Shapes: ``z`` edges sorted by centre, ``n`` atoms, ``r`` irreps, ``i`` components, ``u`` channels (the fastest axis).
"""

from __future__ import annotations

import torch
from torch import Tensor

from asenequip.kernels.internals import outside_modes
from asenequip.kernels.paths import LayerPaths, dimension
from asenequip.kernels.polynomial import ChainForm
from asenequip.kernels.polynomial import chain as chain_polynomial


def env_sum(weights: Tensor, harmonics: Tensor, irrep: Tensor, centers: Tensor, num_atoms: int) -> Tensor:
    """Sum weighted harmonics over the edges of each centre: ``out[n,i,u] = sum_{z: c(z)=n} w[z,r(i),u] Y[z,i]``.

    Parameters
    ----------
    weights : (z, r, u)
    harmonics : (z, i)
    irrep : (i,) int64
        r(i); all zero where the irreps share one weight.
    centers : (z,) int64
    num_atoms : int

    Returns
    -------
    (n, i, u)
    """
    terms = weights.index_select(1, irrep) * harmonics.unsqueeze(-1)
    out = terms.new_zeros(num_atoms, terms.shape[1], terms.shape[2])
    return out.index_add(0, centers, terms)


def edge_dot(weights: Tensor, harmonics: Tensor, atom: Tensor, irrep: Tensor, centers: Tensor) -> Tensor:
    """Weighted dot product of each edge with its centre: ``q[z,u] = sum_i w[z,r(i),u] Y[z,i] A[c(z),i,u]``.

    Parameters are those of `env_sum`; ``atom`` is A, shape (n, i, u). Returns (z, u).
    """
    product = harmonics.unsqueeze(-1) * atom.index_select(0, centers)
    return (weights.index_select(1, irrep) * product).sum(1)


def chain(path_weights: Tensor, environment: Tensor, vector: Tensor, table: ChainTable) -> Tensor:
    """Apply one layer's matrix to a vector: ``out[n,i,u] = sum_{p,j,m} W[p,u] C^p_ijm G[n,j,u] v[n,m,u]``.

    Parameters
    ----------
    path_weights : (p, u) or (p, 1)
        Coupled or uncoupled paths.
    environment : (n, j, u)
    vector : (n, m, u)
    table : ChainTable

    Returns
    -------
    (n, i, u)
    """
    coefficients = path_weights.index_select(0, table.p) * table.value.to(path_weights.dtype).unsqueeze(-1)
    terms = environment.index_select(1, table.j) * vector.index_select(1, table.m) * coefficients
    out = terms.new_zeros(terms.shape[0], table.dim_in, terms.shape[2])
    return out.index_add(1, table.i, terms)


class ChainTable:
    """The nonzeros of one layer as tensors on one device.

    Attributes
    ----------
    i, j, m, p : (nnz,) int64
    value : (nnz,) float64
    dim_in, dim_env, dim_out : int
    num_paths : int
    text : str
        The layer as a `polynomial.Polynomial`, from which kernels are generated.
    """

    def __init__(self, layer: object, device: torch.device | str = "cpu") -> None:
        if not isinstance(layer, LayerPaths):
            raise TypeError(f"The 'layer' parameter of ChainTable must be a LayerPaths. Got {type(layer)} instead.")
        nonzeros = layer.nonzeros
        self.layer = layer
        with outside_modes():
            self.i, self.j, self.m, self.p = (
                torch.from_numpy(a.copy()).to(device) for a in (nonzeros.i, nonzeros.j, nonzeros.m, nonzeros.p)
            )
            self.value = torch.from_numpy(nonzeros.value.copy()).to(device)
        self.dim_in, self.dim_env, self.dim_out = map(dimension, (layer.irreps_in, layer.irreps_env, layer.irreps_out))
        self.num_paths = len(layer.paths)
        self.text = chain_polynomial(ChainForm(layer)).text

    def to(self, device: torch.device | str) -> ChainTable:
        """A copy on another device."""
        return ChainTable(self.layer, device)
