"""The name and storage order of every weight of a nequip-allegro 0.8 model, taken to ours."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from asenequip.model.allegro import Allegro
from asenequip.model.mlp import MLP
from asenequip.model.spec import AllegroSpec


def convert_weights(spec: AllegroSpec, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State of an `Allegro` of this spec from the reference's state.

    The reference stores tensor weights with the channel slow and the irrep fast; here the channel is fastest. It stores
    path weights as (channel, path), or drops an axis of length one.

    Parameters
    ----------
    spec : AllegroSpec
    state : mapping of str to Tensor
        Names from ``edge_norm`` / ``radial_chemical_embed`` / ``allegro`` ... on, without prefix.

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
    target = Allegro(spec).state_dict()
    out: dict[str, Tensor] = {}
    model = Allegro(spec)
    channels, irreps, scalars = spec.num_tensor_features, spec.l_max + 1, spec.num_scalar_features
    env_irreps = irreps if spec.individual_irrep_weights else 1

    def take(name: str) -> Tensor:
        if name not in state:
            raise KeyError(f"The source has no weight '{name}': it is not a nequip-allegro 0.8 model of this shape.")
        return state[name].detach().to(torch.float64)

    def mlp(ours: str, theirs: str, module: MLP, keep: int | None = None, groups: int = 1) -> None:
        last = len(module.weights) - 1
        linear = f"{theirs}.mlp.weights.0" in state
        for k in range(last + 1):
            weight = take(f"{theirs}.mlp.weights.{k}" if linear else f"{theirs}.mlp.{_step(module, k)}.weight")
            if k == last and keep is not None:
                weight = torch.cat([weight[:, :keep], _channel_fastest(weight[:, keep:], channels, groups)], dim=1)
            out[f"{ours}.weights.{k}"] = weight

    radial = "radial_chemical_embed"
    if spec.radial == "bessel":
        out["radial.frequencies"] = take(f"{radial}.bessel_encode.bessel_weights").reshape(-1)
        out["radial.center"] = take(f"{radial}.type_embed.center_embed.weight")
        out["radial.neighbor"] = take(f"{radial}.type_embed.neighbor_embed.weight")
        out["radial.basis.weights.0"] = take(f"{radial}.type_embed.basis_linear.mlp.0.weight")
    else:
        weight = take(f"{radial}.spline.class_embed.weight")
        out["radial.coefficients"] = weight.reshape(spec.num_types**2, spec.embedding_dim, spec.num_splines)
    mlp("two_body", "scalar_embed_mlp.mlp_module", model.two_body)
    mlp("embed", "tensor_embed.env_embed_linear", model.embed, keep=0, groups=irreps)
    mlp("project", "allegro.first_layer_env_embed_projection", model.project, keep=scalars, groups=env_irreps)
    for k, latent in enumerate(model.latents):
        mlp(f"latents.{k}", f"allegro.latents.{k}", latent, keep=scalars, groups=env_irreps)  # type: ignore[arg-type]
        out[f"track.path_weights.{k}"] = _path_weights(take(f"allegro.tps.{k}.weights"), spec)
    mlp("readout", "edge_readout.mlp_module", model.readout)
    for ours in ("scales", "shifts"):
        values = state.get(f"per_type_energy_scale_shift.{ours}")
        if values is None or values.numel() == 0:
            out[ours] = target[ours]
        else:
            out[ours] = values.detach().to(torch.float64).reshape(-1).expand(spec.num_types).clone()
    if spec.pair is not None and spec.pair.kind == "lj":
        for name in ("sigma", "epsilon", "delta"):
            table = take(f"pair_potential.{name}")
            out[f"pair.{name}"] = table.expand(spec.num_types, spec.num_types).clone()
    for name, tensor in out.items():
        if tensor.shape != target[name].shape:
            raise ValueError(f"Weight '{name}' has shape {tuple(tensor.shape)}, expected {tuple(target[name].shape)}.")
    return out


def _step(module: MLP, k: int) -> int:
    """Place of linear layer k in the reference's sequence, which counts nonlinearities too."""
    return k if module.nonlinearity == "none" else 2 * k


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
