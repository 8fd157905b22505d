"""Assembly of an Allegro potential from its parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asenequip.graph import Graph
from asenequip.model.angular import spherical_harmonics
from asenequip.model.mlp import MLP
from asenequip.model.pair import pair_potential
from asenequip.model.precision import KeepsFloat64
from asenequip.model.radial import radial_embedding
from asenequip.model.spec import AllegroSpec
from asenequip.model.track import TensorTrack


@dataclass(frozen=True)
class ModelOutput:
    """What one pass of the network gives.

    Attributes
    ----------
    energies : (n,) float64
        Energy of each atom, eV.
    edge_energies : (z,) network dtype
        Readout of each edge before normalisation, scale and shift.
    features : (z, S (L+1)) network dtype
        Scalar features of each edge.
    """

    energies: Tensor
    edge_energies: Tensor
    features: Tensor


@dataclass(frozen=True)
class EdgeContext:
    """Edges without geometry: types (n,), center_types (z,), neighbor_types (z,), centers (z,), ptr (n+1,)."""

    types: Tensor
    center_types: Tensor
    neighbor_types: Tensor
    centers: Tensor
    ptr: Tensor


class Allegro(KeepsFloat64):
    """An Allegro potential: edge vectors and types -> energies of atoms.

    Parameters are created in float64 from ``seed``; ``model.to(torch.float32)`` sets the network's precision, while
    ``scales`` and ``shifts`` and all sums over edges stay float64.

    Parameters
    ----------
    spec : AllegroSpec
    seed : int, optional
        Source of the start weights; None leaves them unset, to be loaded.

    Attributes
    ----------
    scales, shifts : (T,) float64
        E_n = scale_t / sqrt(2 Nbar_t) sum_z e_z + shift_t, eV.
    """

    float64 = ("scales", "shifts", "inverse_cutoffs", "inverse_norm")
    inverse_cutoffs: Tensor
    inverse_norm: Tensor

    def __init__(self, spec: AllegroSpec, seed: int | None = 0) -> None:
        super().__init__()
        self.spec = spec
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        scalars, channels = spec.num_scalar_features, spec.num_tensor_features
        forward = spec.forward_normalize
        self.radial = radial_embedding(spec, generator)
        hidden = [spec.two_body_width] * spec.two_body_depth
        self.two_body = MLP([spec.embedding_dim, *hidden, scalars], spec.two_body_nonlinearity, forward, generator)
        self.embed = MLP([scalars, channels * (spec.l_max + 1)], "silu", forward, generator)
        self.project = MLP([scalars, scalars + spec.num_env_weights], "silu", True, generator)
        self.latents = nn.ModuleList()
        for k in range(spec.num_layers):
            out = scalars + (spec.num_env_weights if k < spec.num_layers - 1 else 0)
            dims = [scalars * (k + 1) + channels, *[spec.latent_width] * spec.latent_depth, out]
            self.latents.append(MLP(dims, spec.latent_nonlinearity, forward, generator))
        self.track = TensorTrack(spec, generator)
        hidden = [spec.readout_width] * spec.readout_depth
        self.readout = MLP([scalars * (spec.num_layers + 1), *hidden, 1], spec.readout_nonlinearity, forward, generator)
        self.pair = pair_potential(spec)
        self.scales = nn.Parameter(torch.ones(spec.num_types, dtype=torch.float64), requires_grad=spec.scales_trainable)
        self.shifts = nn.Parameter(
            torch.zeros(spec.num_types, dtype=torch.float64), requires_grad=spec.shifts_trainable
        )
        inverse = torch.tensor([[1.0 / cutoff for cutoff in row] for row in spec.cutoff_table()], dtype=torch.float64)
        self.register_buffer("inverse_cutoffs", inverse, persistent=False)
        norm = torch.tensor([n**-0.5 for n in spec.avg_num_neighbors], dtype=torch.float64)
        self.register_buffer("inverse_norm", norm, persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the network."""
        return self.readout.weights[0].dtype

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.scales.device

    def forward(self, graph: Graph, vectors: Tensor | None = None) -> ModelOutput:
        """Energies of a batch.

        Parameters
        ----------
        graph : Graph
            Edges within the cutoffs (an edge beyond its cutoff must not be there).
        vectors : (z, 3) float64, optional
            Edge vectors in place of ``graph.vectors()``, Angstrom; the leaf that forces are derivatives of.

        Returns
        -------
        ModelOutput
        """
        vectors = graph.vectors() if vectors is None else vectors
        neighbor_types = graph.types.index_select(0, graph.neighbors)
        return self.local(vectors, graph.types, neighbor_types, graph.centers, graph.ptr)

    def local(
        self, vectors: Tensor, types: Tensor, neighbor_types: Tensor, centers: Tensor, ptr: Tensor
    ) -> ModelOutput:
        """Energies of some centres from their own edges alone: the potential is strictly local.

        Parameters
        ----------
        vectors : (z, 3) float64
            Edge vectors, Angstrom.
        types : (n,) int64
            Types of the centres.
        neighbor_types : (z,) int64
        centers : (z,) int64
            Sorted, counted from the first of these centres.
        ptr : (n+1,) int64

        Returns
        -------
        ModelOutput
        """
        edges = EdgeContext(types, types.index_select(0, centers), neighbor_types, centers, ptr)
        distances = torch.linalg.vector_norm(vectors, dim=-1)
        x = distances * self.inverse_cutoffs[edges.center_types, neighbor_types]
        harmonics = spherical_harmonics(vectors / distances.unsqueeze(-1), self.spec.l_max).to(self.dtype)
        scalars = self._scalar_track(edges, x, harmonics)
        edge_energies = self.readout(*scalars).squeeze(-1)
        total = torch.zeros(types.shape[0], dtype=torch.float64, device=vectors.device)
        total = total.index_add(0, centers, edge_energies.to(torch.float64))
        factor = self.scales * self.inverse_norm / 2**0.5
        energies = factor[types] * total + self.shifts[types]
        if self.pair is not None:
            pair = self.pair(distances, x, edges.center_types, neighbor_types)
            energies = energies.index_add(0, centers, pair)
        return ModelOutput(energies, edge_energies, torch.cat(scalars, dim=-1))

    def last_layer(self, output: ModelOutput, centers: Tensor, num_atoms: int) -> Tensor:
        """Hidden units of the readout, summed over the edges of each centre: (n, width) float64.

        The network's part of the energies is linear in them: ``last_layer @ w * factor[types]``, w the readout's last
        weights with their scale and factor = scales * inverse_norm / sqrt 2.
        """
        hidden = self.readout.hidden(output.features).to(torch.float64)
        return hidden.new_zeros(num_atoms, hidden.shape[1]).index_add(0, centers, hidden)

    def _scalar_track(self, edges: EdgeContext, x: Tensor, harmonics: Tensor) -> list[Tensor]:
        """Scalars s_0 .. s_L, each (z, S)."""
        spec, track = self.spec, self.track
        channels, ptr, centers = spec.num_tensor_features, edges.ptr, edges.centers
        radial = self.radial(x, edges.center_types, edges.neighbor_types)
        two_body = self.two_body(radial.to(self.dtype))
        embedding = self.embed(two_body).unflatten(-1, (-1, channels))
        split = [spec.num_scalar_features, spec.num_env_weights]
        first, weights = self.project(two_body).split(split, dim=-1)
        norm = self.inverse_norm.to(self.dtype)[edges.types]
        scalars, environments = [first], []
        for k, latent in enumerate(self.latents):
            weights = weights.unflatten(-1, (-1, channels))
            environments.append(track.environment(weights, harmonics, norm, ptr, centers))
            operator = track.operator(environments)
            invariants = track.scalars(embedding, harmonics, operator, ptr, centers)
            out = latent(*scalars, invariants)
            if k < spec.num_layers - 1:
                out, weights = out.split(split, dim=-1)
            scalars.append(out)
        return scalars
