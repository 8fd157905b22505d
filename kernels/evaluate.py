"""Any polynomial in plain torch operations: what runs where no kernel can be compiled."""

from __future__ import annotations

import torch
from torch import Tensor

from asenequip.kernels.polynomial import (
    ATOM,
    ENVIRONMENT,
    HARMONICS,
    OUT,
    PATHS,
    SCALE,
    VECTOR,
    WEIGHTS,
    ChainForm,
    EdgeForm,
    Polynomial,
    Term,
)


def evaluate(polynomial: Polynomial, operands: list[Tensor], ptr: Tensor | None) -> list[Tensor]:
    """The outputs of a polynomial, one torch operation at a time.

    Parameters
    ----------
    polynomial : Polynomial
    operands : list of Tensor
        Shapes by kind, see `polynomial`.
    ptr : (n+1,) int64, optional
        Edges of each atom; needed by the edge form.

    Returns
    -------
    list of Tensor
        Shapes by kind; W (p,u) is summed over atoms.
    """
    results = []
    for output in polynomial.outputs:
        total: Tensor | None = None
        for term in output.terms:
            if isinstance(polynomial.form, EdgeForm):
                assert ptr is not None  # noqa: S101 - for the type checker
                value = _edge_term(polynomial, polynomial.form, output.kind, term, operands, ptr)
            else:
                value = _chain_term(polynomial, polynomial.form, output.kind, term, operands)
            total = value if total is None else total + value
        assert total is not None  # noqa: S101 - for the type checker
        narrow = isinstance(polynomial.form, EdgeForm) and polynomial.form.bfloat16 and output.kind == WEIGHTS
        results.append(total.to(torch.bfloat16) if narrow else total)
    return results


def _edge_term(
    polynomial: Polynomial, form: EdgeForm, kind: int, term: Term, operands: list[Tensor], ptr: Tensor
) -> Tensor:
    atoms = ptr.shape[0] - 1
    centers = torch.repeat_interleave(torch.arange(atoms, device=ptr.device), ptr.diff())
    irrep = torch.tensor(form.irrep, device=ptr.device)
    product: Tensor | None = None
    for a in term:
        operand = operands[a]
        if polynomial.operands[a] == SCALE:
            factor = operand.unsqueeze(1)
        elif polynomial.operands[a] == WEIGHTS:
            factor = (operand.float() if form.bfloat16 else operand).index_select(1, irrep)
        elif polynomial.operands[a] == HARMONICS:
            factor = operand.unsqueeze(-1)
        else:
            factor = operand.index_select(0, centers)
        product = factor if product is None else product * factor
    assert product is not None  # noqa: S101 - for the type checker
    if kind == SCALE:
        return product.sum(1)
    if kind == WEIGHTS:
        shape = (product.shape[0], form.num_weights, product.shape[2])
        return product.new_zeros(shape).index_add(1, irrep, product)
    if kind == HARMONICS:
        return product.sum(2)
    return product.new_zeros(atoms, product.shape[1], product.shape[2]).index_add(0, centers, product)


def _chain_term(polynomial: Polynomial, form: ChainForm, kind: int, term: Term, operands: list[Tensor]) -> Tensor:
    nonzeros = form.layer.nonzeros
    index = {PATHS: nonzeros.p, ENVIRONMENT: nonzeros.j, VECTOR: nonzeros.m, OUT: nonzeros.i}
    first = operands[term[0]]
    product = torch.tensor(nonzeros.value, device=first.device).to(first.dtype).unsqueeze(-1)
    for a in term:
        which = torch.tensor(index[polynomial.operands[a]], device=first.device)
        product = product * operands[a].index_select(0 if polynomial.operands[a] == PATHS else 1, which)
    which = torch.tensor(index[kind], device=first.device)
    if kind == PATHS:
        product = product.sum(0)
        return product.new_zeros(form.sizes[PATHS], product.shape[1]).index_add(0, which, product)
    shape = (product.shape[0], form.sizes[kind], product.shape[2])
    return product.new_zeros(shape).index_add(1, which, product)


__all__ = ["ATOM", "evaluate"]
