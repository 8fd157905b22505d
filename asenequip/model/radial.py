"""Two-body radial-chemical embeddings: functions of the distance and the two types alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from asenequip.model.mlp import MLP, normal, uniform
from asenequip.model.precision import KeepsFloat64
from asenequip.model.spec import AllegroSpec


def envelope(x: Tensor, p: int) -> Tensor:
    """Polynomial envelope, 1 at x = 0 and 0 for x >= 1, twice differentiable there.

    Gasteiger et al., arXiv:2003.03123, eq. 8: 1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2), evaluated in
    its factored form (1-x)^3 sum_{k<p} (k+1)(k+2)/2 x^k, whose terms are all positive (no cancellation near 1).

    Parameters
    ----------
    x : Tensor
        Reduced distance d / cutoff, any shape.
    p : int

    Returns
    -------
    Tensor of the shape of ``x``
    """
    total = torch.full_like(x, p * (p + 1) / 2)
    for k in range(p - 2, -1, -1):
        total = total * x + (k + 1) * (k + 2) / 2
    return torch.clamp(1 - x, min=0) ** 3 * total


def _grid(n: int, first: int, over: int = 1) -> Tensor:
    """``(first + k) / over`` for k = 0 .. n-1, float64; of the shape alone on the meta device.

    Arithmetic on that device would import torch's tracer, which takes seconds when a potential is opened.
    """
    numbers = torch.empty(n, dtype=torch.float64)
    return numbers if numbers.is_meta else torch.arange(first, first + n, dtype=torch.float64) / over


class BesselEmbedding(KeepsFloat64):
    """Bessel functions times envelope, projected, times the embeddings of the two types.

    ``h0 = [Emb_c(t_c) || Emb_n(t_n)] * (b f) W_b / sqrt(num_bessels)``, ``b_m = sin(w_m pi x) / (pi x)``.
    """

    float64 = ("frequencies",)

    def __init__(self, spec: AllegroSpec, generator: torch.Generator | None) -> None:
        super().__init__()
        self.exponent = spec.envelope_exponent
        half = spec.embedding_dim // 2
        frequencies = _grid(spec.num_bessels, 1)
        self.frequencies = nn.Parameter(frequencies, requires_grad=spec.bessel_trainable)
        self.basis = MLP([spec.num_bessels, spec.embedding_dim], "silu", spec.forward_normalize, generator)
        self.center, self.neighbor = (normal((spec.num_types, half), generator) for _ in range(2))

    def forward(self, x: Tensor, center_types: Tensor, neighbor_types: Tensor) -> Tensor:
        """Reduced distances (z,) float64 and types (z,), (z,) -> (z, embedding_dim) in the network's precision."""
        x = x.unsqueeze(-1)
        bessel = torch.sinc(x * self.frequencies) * self.frequencies * envelope(x, self.exponent)
        basis = self.basis(bessel.to(self.center.dtype))
        types = torch.cat([self.center[center_types], self.neighbor[neighbor_types]], dim=-1)
        return types * basis


class SplineEmbedding(KeepsFloat64):
    """A spline per ordered pair of types: ``h0 = sum_g W_g B_g(x)`` B_g squared raised cosines."""

    float64 = ("lower", "coefficients")
    lower: Tensor

    def __init__(self, spec: AllegroSpec, generator: torch.Generator | None) -> None:
        super().__init__()
        self.num_types = spec.num_types
        self.width = (spec.spline_span + 1) / spec.num_splines
        lower = _grid(spec.num_splines, -spec.spline_span, spec.num_splines)
        self.register_buffer("lower", lower, persistent=False)
        bound = math.sqrt(3 / (spec.spline_span if spec.forward_normalize else spec.embedding_dim))
        self.coefficients = uniform((spec.num_types**2, spec.embedding_dim, spec.num_splines), bound, generator)

    def forward(self, x: Tensor, center_types: Tensor, neighbor_types: Tensor) -> Tensor:
        """Reduced distances (z,) and types (z,), (z,) -> (z, embedding_dim), all float64."""
        lower = self.lower
        reach = torch.minimum(torch.maximum(x.unsqueeze(-1), lower), lower + self.width) - lower
        basis = 0.25 * (1 - torch.cos(reach * (2 * math.pi / self.width))) ** 2
        coefficients = self.coefficients[center_types * self.num_types + neighbor_types]
        return (coefficients @ basis.unsqueeze(-1)).squeeze(-1)


def radial_embedding(spec: AllegroSpec, generator: torch.Generator | None) -> nn.Module:
    """The embedding that ``spec.radial`` names."""
    return (BesselEmbedding if spec.radial == "bessel" else SplineEmbedding)(spec, generator)
