"""The collapsed tensor track: environments and path weights become one small operator per (atom, channel).

Both the environment and its use sit at the centre, and only the 0e scalar leaves the track; so layer k is the matrix
``M_k[n,u][i,m] = sum_{p,j} W_k[p,u] C^p_ijm G_k[n,j,u]`` and the scalar of edge z needs only
``A_k = M_0 M_1 ... M_k e_0e``, evaluated right to left. No tensor per edge is ever formed.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

from asenequip.kernels import ops
from asenequip.kernels.paths import LayerPaths, component_irrep, harmonics_irreps, layer_paths
from asenequip.kernels.plain import ChainTable
from asenequip.model.mlp import uniform
from asenequip.model.spec import AllegroSpec


def scalar_paths(layer: LayerPaths) -> LayerPaths:
    """The paths of a layer that lead to its first output irrep, 0e; they are its first paths."""
    return LayerPaths(
        layer.irreps_in, layer.irreps_env, layer.irreps_out[:1], tuple(p for p in layer.paths if p[2] == 0)
    )


@lru_cache(maxsize=256)
def chain_table(layer: LayerPaths, device: torch.device) -> ChainTable:
    """The nonzeros of a layer on a device; made when first used."""
    return ChainTable(layer, device)


class TensorTrack(nn.Module):
    """Path weights of all layers and the operations between them.

    Attributes
    ----------
    path_weights : list of (p, u) or (p, 1)
        Coupled or uncoupled; drawn from U(-sqrt 3, sqrt 3).
    """

    irrep: Tensor
    env_irrep: Tensor

    def __init__(self, spec: AllegroSpec, generator: torch.Generator | None) -> None:
        super().__init__()
        layers = layer_paths(spec.l_max, spec.num_layers, spec.parity)
        channels = spec.num_tensor_features if spec.path_channel_coupling else 1
        self.channels = spec.num_tensor_features
        self.path_weights = nn.ParameterList(
            [uniform((len(layer.paths), channels), math.sqrt(3.0), generator) for layer in layers]
        )
        self._layers = layers
        irrep = torch.from_numpy(component_irrep(harmonics_irreps(spec.l_max)))
        self.register_buffer("irrep", irrep, persistent=False)
        self.register_buffer("env_irrep", irrep if spec.individual_irrep_weights else 0 * irrep, persistent=False)

    def environment(self, weights: Tensor, harmonics: Tensor, norm: Tensor, ptr: Tensor, centers: Tensor) -> Tensor:
        """G_k: weights (z, r, u), harmonics (z, j), norm (n,) -> (n, j, u)."""
        return ops.env_sum(weights, harmonics, self.env_irrep, ptr, centers) * norm[:, None, None]

    def operator(self, environments: list[Tensor]) -> Tensor:
        """A_k of the last of ``environments`` G_0..G_k, each (n, j, u) -> (n, i, u)."""
        k, device = len(environments) - 1, environments[-1].device
        table = chain_table(scalar_paths(self._layers[k]), device)
        vector = environments[k].new_ones(environments[k].shape[0], 1, self.channels)
        vector = ops.chain(self.path_weights[k][: table.num_paths], environments[k], vector, table)
        for layer in range(k - 1, -1, -1):
            table = chain_table(self._layers[layer], device)
            vector = ops.chain(self.path_weights[layer], environments[layer], vector, table)
        return vector

    def scalars(self, weights: Tensor, harmonics: Tensor, operator: Tensor, ptr: Tensor, centers: Tensor) -> Tensor:
        """q_k: embedding weights (z, r, u), harmonics (z, i), A_k (n, i, u) -> (z, u)."""
        return ops.edge_dot(weights, harmonics, operator, self.irrep, ptr, centers)
