"""The three operations of the tensor track, dispatched to the fastest implementation at hand."""

from __future__ import annotations

from torch import Tensor

from asenequip.kernels import plain
from asenequip.kernels.plain import ChainTable


def env_sum(weights: Tensor, harmonics: Tensor, irrep: Tensor, ptr: Tensor, centers: Tensor) -> Tensor:
    """Sum of weighted harmonics per centre, (z,r,u) and (z,i) -> (n,i,u); see `plain.env_sum`. ``ptr`` (n+1,) int64."""
    return plain.env_sum(weights, harmonics, irrep, centers, ptr.shape[0] - 1)


def edge_dot(
    weights: Tensor, harmonics: Tensor, atom: Tensor, irrep: Tensor, ptr: Tensor, centers: Tensor
) -> Tensor:
    """Weighted dot product per edge, (z,r,u), (z,i), (n,i,u) -> (z,u); see `plain.edge_dot`. ``ptr`` (n+1,) int64."""
    return plain.edge_dot(weights, harmonics, atom, irrep, centers)


def chain(path_weights: Tensor, environment: Tensor, vector: Tensor, table: ChainTable) -> Tensor:
    """One layer's matrix times a vector, (p,u), (n,j,u), (n,m,u) -> (n,i,u); see `plain.chain`."""
    return plain.chain(path_weights, environment, vector, table)
