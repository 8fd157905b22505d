"""The name, storage order and scale of every weight of a nequip-allegro 0.8 model, taken to ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from asenequip.model.allegro import Allegro
from asenequip.model.mlp import MLP
from asenequip.model.spec import AllegroSpec

_SAME_SCALE = 1e-6
"""Relative: scales this close are one scale, rounded to single precision or not."""


def convert_weights(
    spec: AllegroSpec, state: Mapping[str, Tensor], alphas: Mapping[str, float] | None = None
) -> dict[str, Tensor]:
    """State of an `Allegro` of this spec from the reference's state.

    The reference stores tensor weights with the channel slow and the irrep fast; here the channel is fastest. It stores
    path weights as (channel, path), or drops an axis of length one.

    Parameters
    ----------
    spec : AllegroSpec
    state : mapping of str to Tensor
        Names from ``edge_norm`` / ``radial_chemical_embed`` / ``allegro`` ... on, without prefix.
    alphas : mapping of str to float, optional
        The source's scale of each linear layer, by the layer's name; where it is not the scale that ``spec`` implies,
        the ratio goes into the weight.

    Returns
    -------
    dict of str to Tensor
        float64, loads with ``Allegro(spec).load_state_dict``.

    Raises
    ------
    KeyError
        If a weight is missing.
    ValueError
        If a weight has another shape than the spec demands.
    """
    model = Allegro(spec)
    target = model.state_dict()
    source = _Source(state, alphas or {}, spec)
    scalars, irreps = spec.num_scalar_features, spec.l_max + 1
    env_irreps = irreps if spec.individual_irrep_weights else 1
    out = _radial(source, model)
    out.update(source.mlp("two_body", "scalar_embed_mlp.mlp_module", model.two_body))
    out.update(source.mlp("embed", "tensor_embed.env_embed_linear", model.embed, keep=0, irreps=irreps))
    projection = "allegro.first_layer_env_embed_projection"
    out.update(source.mlp("project", projection, model.project, keep=scalars, irreps=env_irreps))
    for k, latent in enumerate(model.latents):
        theirs = f"allegro.latents.{k}"
        out.update(source.mlp(f"latents.{k}", theirs, cast(MLP, latent), keep=scalars, irreps=env_irreps))
        out[f"track.path_weights.{k}"] = _path_weights(source.take(f"allegro.tps.{k}.weights"), spec)
    out.update(source.mlp("readout", "edge_readout.mlp_module", model.readout))
    for name in ("scales", "shifts"):
        values = state.get(f"per_type_energy_scale_shift.{name}")
        if values is None or values.numel() == 0:
            out[name] = target[name]
        else:
            out[name] = values.detach().to(torch.float64).reshape(-1).expand(spec.num_types).clone()
    if spec.pair is not None and spec.pair.kind == "lj":
        for name in ("sigma", "epsilon", "delta"):
            out[f"pair.{name}"] = source.take(f"pair_potential.{name}").expand(spec.num_types, spec.num_types).clone()
    for name, tensor in out.items():
        if tensor.shape != target[name].shape:
            raise ValueError(f"Weight '{name}' has shape {tuple(tensor.shape)}, expected {tuple(target[name].shape)}.")
    return out


class _Source:
    """The reference's tensors and scales, read in float64."""

    def __init__(self, state: Mapping[str, Tensor], alphas: Mapping[str, float], spec: AllegroSpec) -> None:
        self.state = state
        self.alphas = alphas
        self.channels = spec.num_tensor_features

    def take(self, name: str) -> Tensor:
        """One tensor by the reference's name."""
        if name not in self.state:
            raise KeyError(f"The source has no weight '{name}': it is not a nequip-allegro 0.8 model of this shape.")
        return self.state[name].detach().to(torch.float64)

    def mlp(self, ours: str, theirs: str, module: MLP, keep: int | None = None, irreps: int = 1) -> dict[str, Tensor]:
        """Weights of one network; columns after the first ``keep`` of the last layer are tensor weights."""
        out = {}
        last = len(module.weights) - 1
        deep = f"{theirs}.mlp.weights.0" in self.state
        for k in range(last + 1):
            layer = f"{theirs}.mlp.{self._step(theirs, k)}"
            weight = self.take(f"{theirs}.mlp.weights.{k}" if deep else f"{layer}.weight")
            if not deep:
                weight = weight * self._ratio(layer, module.scales[k])
            elif k == 0:
                weight = weight * self._ratio(f"{theirs}.mlp", math.prod(module.scales))
            if k == last and keep is not None:
                tensor_columns = _channel_fastest(weight[:, keep:], self.channels, irreps)
                weight = torch.cat([weight[:, :keep], tensor_columns], dim=1)
            out[f"{ours}.weights.{k}"] = weight
        return out

    def _step(self, theirs: str, k: int) -> int:
        """Place of linear layer k in the reference's sequence, which counts nonlinearities too."""
        return 2 * k if f"{theirs}.mlp.2.weight" in self.state else k

    def _ratio(self, layer: str, scale: float) -> float:
        alpha = self.alphas.get(layer, scale)
        return 1.0 if math.isclose(alpha, scale, rel_tol=_SAME_SCALE) else alpha / scale


def _radial(source: _Source, model: Allegro) -> dict[str, Tensor]:
    """Weights of the two-body radial-chemical embedding."""
    spec, name = model.spec, "radial_chemical_embed"
    if spec.radial == "spline":
        weight = source.take(f"{name}.spline.class_embed.weight")
        return {"radial.coefficients": weight.reshape(spec.num_types**2, spec.embedding_dim, spec.num_splines)}
    basis = cast(MLP, model.radial.basis)
    return {
        "radial.frequencies": source.take(f"{name}.bessel_encode.bessel_weights").reshape(-1),
        "radial.center": source.take(f"{name}.type_embed.center_embed.weight"),
        "radial.neighbor": source.take(f"{name}.type_embed.neighbor_embed.weight"),
        **source.mlp("radial.basis", f"{name}.type_embed.basis_linear", basis),
    }


def _channel_fastest(columns: Tensor, channels: int, irreps: int) -> Tensor:
    """Columns (in, u r) with r fastest -> (in, r u) with u fastest."""
    if columns.shape[1] == 0:
        return columns
    return columns.reshape(-1, channels, irreps).transpose(1, 2).reshape(-1, channels * irreps)


def _path_weights(weights: Tensor, spec: AllegroSpec) -> Tensor:
    """(u, p), (u,), (p,) or () -> (p, u) or (p, 1)."""
    if spec.path_channel_coupling:
        return weights.reshape(spec.num_tensor_features, -1).T.contiguous()
    return weights.reshape(-1, 1)
