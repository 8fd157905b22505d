"""Bias-free multilayer perceptrons with variance-preserving scales."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def _shifted_softplus(x: Tensor) -> Tensor:
    return functional.softplus(x) - math.log(2.0)


NONLINEARITY: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "mish": functional.mish,
    "gelu": functional.gelu,
    "ssp": _shifted_softplus,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": functional.softplus,
    "none": lambda x: x,
}


class MLP(nn.Module):
    """``depth`` hidden layers of ``width``: y = a_k (... f(a_0 x W_0) ...) W_k, no bias.

    Each W is (in, out), drawn from U(-sqrt 3, sqrt 3). The scale is a = gain / sqrt(in) with gain 1 on the first layer
    and sqrt 2 on the later ones of a nonlinear network; with ``forward_normalize=False``, gain / sqrt(out) with gain 1
    on the last layer.

    Parameters
    ----------
    dims : sequence of int
        Width of the input, of each hidden layer, and of the output.
    nonlinearity : str
        A key of `NONLINEARITY`.
    forward_normalize : bool
    generator : torch.Generator, optional
        Source of the start weights; without one they are left unset.
    """

    def __init__(
        self, dims: Sequence[int], nonlinearity: str, forward_normalize: bool, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        self.dims = tuple(dims)
        self.nonlinearity = nonlinearity
        self.activation = NONLINEARITY[nonlinearity]
        self.weights = nn.ParameterList()
        self.scales: list[float] = []
        last = len(dims) - 2
        for k, (fan_in, fan_out) in enumerate(itertools.pairwise(dims)):
            plain = nonlinearity == "none" or k == (0 if forward_normalize else last)
            fan = fan_in if forward_normalize else fan_out
            self.scales.append((1.0 if plain else math.sqrt(2.0)) / math.sqrt(fan))
            self.weights.append(uniform((fan_in, fan_out), math.sqrt(3.0), generator))

    def forward(self, *blocks: Tensor) -> Tensor:
        """Apply to the concatenation of ``blocks`` along the last axis, without forming it.

        Parameters
        ----------
        *blocks : (z, in_b)
            The widths add up to the input width.

        Returns
        -------
        (z, out)
        """
        first = self.weights[0] * self.scales[0]
        rows = first.split([b.shape[-1] for b in blocks])
        x = blocks[0] @ rows[0]
        for block, row in zip(blocks[1:], rows[1:], strict=True):
            x = torch.addmm(x, block, row)
        for weight, scale in zip(list(self.weights)[1:], self.scales[1:], strict=True):
            x = self.activation(x) @ (weight * scale)
        return x

    def hidden(self, x: Tensor) -> Tensor:
        """What the last linear map acts on: (z, in) -> (z, width of the last hidden layer, or in without one)."""
        for weight, scale in zip(list(self.weights)[:-1], self.scales[:-1], strict=True):
            x = self.activation(x @ (weight * scale))
        return x


def uniform(shape: Sequence[int], bound: float, generator: torch.Generator | None) -> nn.Parameter:
    """A float64 parameter drawn from U(-bound, bound); unset without a generator."""
    if generator is None:
        return nn.Parameter(torch.empty(tuple(shape), dtype=torch.float64))
    draw = torch.rand(tuple(shape), generator=generator, dtype=torch.float64)
    return nn.Parameter((2 * draw - 1) * bound)


def normal(shape: Sequence[int], generator: torch.Generator | None) -> nn.Parameter:
    """A float64 parameter drawn from N(0, 1); unset without a generator."""
    if generator is None:
        return nn.Parameter(torch.empty(tuple(shape), dtype=torch.float64))
    return nn.Parameter(torch.randn(tuple(shape), generator=generator, dtype=torch.float64))
