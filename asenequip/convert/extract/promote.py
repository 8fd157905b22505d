"""A float32 model as the float64 model it approximates: the same weights, every constant exact."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from .describe import rule, scales_of


def promote(model: nn.Module) -> nn.Module:
    """Take a model to float64 in place.

    Weights keep their values. Constants that float32 rounded (scales of linear layers, Clebsch-Gordan coefficients,
    1/sqrt of the neighbours) are computed anew, so that the result is the model that float32 arithmetic approximates.

    Parameters
    ----------
    model : nequip.nn.GraphModel

    Returns
    -------
    nequip.nn.GraphModel
        The same object.
    """
    single = model.model_dtype == torch.float32
    model.double()
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if value is torch.float32:
                setattr(module, name, torch.float64)
        if not single:
            continue
        if type(module).__name__ == "ScalarMLPFunction":
            _exact_scales(module)
        elif type(module).__name__ == "AvgNumNeighborsNorm":
            module.norm_const.copy_(_exact_norms(module.norm_const))  # type: ignore[operator,union-attr,arg-type]
        elif type(module).__name__ == "Contracter":
            module.w3j.copy_(_exact_coefficients(module))  # type: ignore[operator,union-attr]
    return model


def _exact_scales(function: Any) -> None:
    """Replace each scale by the exact value of the rule it rounds."""
    stored = scales_of(function)
    options = [rule(function, forward) for forward in (True, False)]
    exact = [
        next((o[k] for o in options if math.isclose(o[k], value, rel_tol=1e-6)), value)
        for k, value in enumerate(stored)
    ]
    layers = [m for m in function.mlp if type(m).__name__ == "ScalarLinearLayer"] if len(stored) > 1 else []
    if type(function.mlp).__name__ == "DeepLinearMLP":
        layers = [function.mlp]
    elif not layers:
        layers = [function.mlp[0]]
    for layer, value in zip(layers, exact, strict=True):
        layer.alpha.fill_(value)


def _exact_norms(stored: torch.Tensor) -> torch.Tensor:
    """1/sqrt(N) of the shortest decimals N that round to the stored single-precision values."""
    out = []
    for value in stored.reshape(-1).tolist():
        exact = value
        for digits in range(1, 9):
            number = float(f"{1.0 / value**2:.{digits}g}")
            if float(torch.tensor(1.0 / math.sqrt(number), dtype=torch.float32)) == value:
                exact = 1.0 / math.sqrt(number)
                break
        out.append(exact)
    return torch.tensor(out, dtype=torch.float64).reshape(stored.shape)


def _exact_coefficients(tp: Any) -> torch.Tensor:
    """The Clebsch-Gordan table of a tensor product, computed in float64 by its own class."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        fresh = type(tp)(
            irreps_in1=tp.irreps_in1,
            irreps_in2=tp.irreps_in2,
            irreps_out=tp.irreps_out,
            mul=tp.mul,
            instructions=tp.instructions,
            path_channel_coupling=tp.path_channel_coupling,
            irrep_normalization=tp.irrep_normalization,
        )
    finally:
        torch.set_default_dtype(default)
    return fresh.w3j
