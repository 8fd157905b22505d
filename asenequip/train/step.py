"""Loss and gradients of one batch: eager, or as one compiled graph.

Compiled means: energy, forces, loss and its gradients are traced into one flat graph, so that nothing is left to
differentiate, and that graph is compiled. Its numbers are compared with the eager ones before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from asenequip.graph import Graph
from asenequip.model.allegro import Allegro
from asenequip.model.derivatives import assemble
from asenequip.rounding import products_in
from asenequip.train.data import Batch
from asenequip.train.loss import LossFunction, Residuals, residuals

_AGREEMENT = {torch.float32: 1e-3, torch.float64: 1e-9}
"""Largest deviation of a compiled gradient from the eager one, relative to its largest entry: rounding of sums in
another order, generously; an error in the graph is of order one."""


@dataclass(frozen=True)
class StepResult:
    """Loss of a batch and its gradients.

    Attributes
    ----------
    loss : () float64
    sums, weights : (3,) float64
        See `LossFunction.terms`.
    gradients : tuple of Tensor
        One per trained parameter.
    """

    loss: Tensor
    sums: Tensor
    weights: Tensor
    gradients: tuple[Tensor, ...]


Step = Callable[[Batch, Tensor, Tensor], StepResult]
"""Takes a batch, the sums of weights (3,) that its terms are divided by (those of the whole batch that it is a part
of), and the coefficients (3,) of the terms in the loss."""


class _Energies(nn.Module):
    """The energies of a model as a module of their own, for `torch.func.functional_call`."""

    def __init__(self, model: Allegro) -> None:
        super().__init__()
        self.model = model

    def forward(self, vectors: Tensor, graph: Graph, neighbor_types: Tensor) -> Tensor:
        return self.model.local(vectors, graph.types, neighbor_types, graph.centers, graph.ptr).energies


def batch_residuals(model: nn.Module, batch: Batch, create_graph: bool = True) -> Residuals:
    """Residuals of a batch, with the graph of their derivatives; ``model`` as `Allegro` or wrapped for tracing."""
    graph = batch.graph
    vectors = graph.vectors().detach().requires_grad_(True)
    neighbor_types = graph.types.index_select(0, graph.neighbors)
    if isinstance(model, Allegro):
        energies = model.local(vectors, graph.types, neighbor_types, graph.centers, graph.ptr).energies
    else:
        energies = model(vectors, graph, neighbor_types)
    (gradient,) = torch.autograd.grad(energies.sum(), vectors, create_graph=create_graph)
    return residuals(assemble(graph, vectors.detach(), gradient, energies), batch)


def not_finite(model: Allegro, batch: Batch) -> list[str]:
    """Sources of the frames whose energy or forces the model, or the labels, make something else than numbers."""
    found = batch_residuals(model, batch, create_graph=False)
    wrong = ~found.energy.isfinite()
    wrong[batch.graph.frames[~found.forces.isfinite().all(dim=1)]] = True
    return [source for source, bad in zip(batch.sources, wrong.tolist(), strict=False) if bad]


def eager_step(model: Allegro, loss: LossFunction, precision: str = "float32") -> Step:
    """Loss and gradients by automatic differentiation, its matrix products rounded as ``precision`` says."""
    parameters = [p for p in model.parameters() if p.requires_grad]

    def step(batch: Batch, divisors: Tensor, coefficients: Tensor) -> StepResult:
        with products_in(precision, model.device):
            sums, weights = loss.terms(batch_residuals(model, batch), batch)
            total = loss.total(sums, divisors, coefficients)
            gradients = torch.autograd.grad(total, parameters)
        return StepResult(total.detach(), sums.detach(), weights, gradients)

    return step


def compiled_step(
    model: Allegro, loss: LossFunction, batches: Sequence[tuple[Batch, Tensor]], fixed_sizes: bool = False
) -> Step:
    """Loss and gradients as one compiled graph, for any number of frames, atoms and edges.

    Parameters
    ----------
    model : Allegro
        Its parameters may change in place afterwards; nothing else.
    loss : LossFunction
    batches : sequence of (Batch, (3,) float64)
        Batches and their divisors. The first is traced; compiled and eager gradients are compared on all. Give two of
        different sizes, of more than one frame.
    fixed_sizes : bool
        Compile anew for each size, because there are few of them; see `padding.Shapes`.

    Raises
    ------
    RuntimeError
        If tracing or compiling fails, or the gradients differ.
    """
    from torch.fx.experimental import _config
    from torch.fx.experimental.proxy_tensor import make_fx

    names = [f"model.{name}" for name, p in model.named_parameters() if p.requires_grad]
    parameters = [p for p in model.parameters() if p.requires_grad]
    wrapped = _Energies(model)

    def flat(weights: list[Tensor], tensors: list[Tensor], factors: list[Tensor]) -> list[Tensor]:
        batch = _unflatten(tensors)
        leaves = [w.detach().requires_grad_(True) for w in weights]
        values = dict(zip(names, leaves, strict=True))

        def energies(*inputs: Any) -> Tensor:
            return torch.func.functional_call(wrapped, values, inputs)

        sums, counts = loss.terms(batch_residuals(energies, batch), batch)  # type: ignore[arg-type]
        total = loss.total(sums, *factors)
        return [total.detach(), sums.detach(), counts, *torch.autograd.grad(total, leaves)]

    eager, coefficients = eager_step(model, loss), loss.coefficients(1.0).to(model.device)
    # before tracing: tables that are made on first use must be real
    wanted = [eager(batch, divisors, coefficients) for batch, divisors in batches]
    plain = [p.detach() for p in parameters]  # share memory with the parameters: optimiser steps are seen
    first, divisors = batches[0]
    try:
        with _config.patch(use_duck_shape=False):  # type: ignore[attr-defined]
            graph = make_fx(flat, tracing_mode="symbolic", _allow_non_fake_inputs=True)(
                plain, _flatten(first), [divisors, coefficients]
            )
        graph.graph.eliminate_dead_code()
        graph.recompile()
        compiled = torch.compile(graph, dynamic=not fixed_sizes)

        def step(batch: Batch, divisors: Tensor, coefficients: Tensor) -> StepResult:
            if batch.graph.num_frames == 1:  # size one would be compiled anew
                return eager(batch, divisors, coefficients)
            total, sums, weights, *gradients = compiled(plain, _flatten(batch), [divisors, coefficients])
            return StepResult(total, sums, weights, tuple(gradients))

        for (batch, divisors), result in zip(batches, wanted, strict=True):
            _compare(result, step(batch, divisors, coefficients), model.dtype)
    except Exception as error:
        raise RuntimeError(f"The training step could not be compiled: {error}") from error
    return step


def _compare(eager: StepResult, compiled: StepResult, dtype: torch.dtype) -> None:
    for wanted, found in zip(eager.gradients, compiled.gradients, strict=True):
        size = float(wanted.abs().max()) if wanted.numel() else 0.0
        error = float((wanted - found).abs().max()) if wanted.numel() else 0.0
        if not error <= _AGREEMENT[dtype] * max(size, 1e-12):
            raise RuntimeError(f"a compiled gradient is off by {error:.1e} of {size:.1e}")


_GRAPH = [field.name for field in fields(Graph) if field.name != "num_frames"]
_LABELS = ["energies", "forces", "virials", "weights", "counts"]


def _flatten(batch: Batch) -> list[Tensor]:
    return [getattr(batch.graph, name) for name in _GRAPH] + [getattr(batch, name) for name in _LABELS]


def _unflatten(tensors: Sequence[Tensor]) -> Batch:
    parts = dict(zip(_GRAPH, tensors, strict=False))
    labels = dict(zip(_LABELS, tensors[len(_GRAPH) :], strict=True))
    graph = Graph(num_frames=labels["counts"].shape[0], **parts)  # type: ignore[arg-type]
    return Batch(graph=graph, sources=(), names=(), **labels)  # type: ignore[arg-type]
