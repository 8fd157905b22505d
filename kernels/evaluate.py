"""Any polynomial in plain torch operations: what runs where no kernel can be compiled."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from asenequip.kernels.polynomial import (
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
        values = []
        for term in output.terms:
            if not isinstance(polynomial.form, EdgeForm):
                values.append(_chain_term(polynomial, polynomial.form, output.kind, term, operands))
            elif ptr is None:
                raise ValueError("The 'ptr' parameter must be the edges of each atom, (n+1,). Got None instead.")
            else:
                values.append(_edge_term(polynomial, polynomial.form, output.kind, term, operands, ptr))
        total = functools.reduce(torch.add, values)
        narrow = isinstance(polynomial.form, EdgeForm) and polynomial.form.bfloat16 and output.kind == WEIGHTS
        results.append(total.to(torch.bfloat16) if narrow else total)
    return results


def _edge_term(
    polynomial: Polynomial, form: EdgeForm, kind: int, term: Term, operands: list[Tensor], ptr: Tensor
) -> Tensor:
    atoms = ptr.shape[0] - 1
    centers = torch.repeat_interleave(torch.arange(atoms, device=ptr.device), ptr.diff())
    irrep = torch.tensor(form.irrep, device=ptr.device)
    factors = []
    for a in term:
        operand = operands[a]
        if polynomial.operands[a] == SCALE:
            factors.append(operand.unsqueeze(1))
        elif polynomial.operands[a] == WEIGHTS:
            factors.append((operand.float() if form.bfloat16 else operand).index_select(1, irrep))
        elif polynomial.operands[a] == HARMONICS:
            factors.append(operand.unsqueeze(-1))
        else:
            factors.append(operand.index_select(0, centers))
    product = functools.reduce(torch.mul, factors)
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
