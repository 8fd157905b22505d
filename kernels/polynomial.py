"""Descriptors of the track's multilinear forms: what a kernel computes, and the descriptor of its derivative.

Everything the tensor track computes is a partial derivative of a sum of multilinear terms, each with at most one
operand of each kind. Two forms exist (Musaelian et al., Nat. Commun. 14, 579 (2023), collapsed onto the centres):

* edges: ``sum_{z,u,i} g[z,u] w[z,r(i),u] Y[z,i] A[c(z),i,u]``; the trilinear primitives have no scale ``g``;
* chain: ``sum_{n,u} sum_{nonzeros} C^p_ijm W[p,u] G[n,j,u] v[n,m,u] b[n,i,u]``.

A `Polynomial` lists the kinds of its operands, and for each output its kind and its terms. The derivative of a
polynomial contracted with cotangents is again a polynomial of the same form, so one generator serves every order of
differentiation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from asenequip.kernels.paths import Irrep, LayerPaths, dimension

SCALE, WEIGHTS, HARMONICS, ATOM = range(4)
"""Kinds of the edge form: g (z,u), w (z,r,u), Y (z,i), A (n,i,u)."""
PATHS, ENVIRONMENT, VECTOR, OUT = range(4)
"""Kinds of the chain form: W (p,u), G (n,j,u), v (n,m,u), b (n,i,u)."""

Term = tuple[int, ...]
"""Operands (positions in `Polynomial.operands`) whose product is one term, ordered by kind."""


@dataclass(frozen=True)
class EdgeForm:
    """The edge form: which weight each component uses, and how the weights are stored.

    Attributes
    ----------
    irrep : tuple of int
        r(i) of each component of the harmonics.
    num_weights : int
        Length of the axis r.
    bfloat16 : bool
        Whether the edge weights (kind w) are stored as bfloat16; sums are float32 all the same.
    """

    irrep: tuple[int, ...]
    num_weights: int
    bfloat16: bool = False


@dataclass(frozen=True)
class ChainForm:
    """The chain form of one layer."""

    layer: LayerPaths

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Lengths of the axes p, j, m, i."""
        layer = self.layer
        env, out, first = map(dimension, (layer.irreps_env, layer.irreps_out, layer.irreps_in))
        return len(layer.paths), env, out, first


@dataclass(frozen=True)
class Output:
    """One output: its kind, and the terms summed into it (each lacks exactly that kind)."""

    kind: int
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Polynomial:
    """A kernel: the form, the kind of each operand, and the outputs."""

    form: EdgeForm | ChainForm
    operands: tuple[int, ...]
    outputs: tuple[Output, ...]

    @property
    def text(self) -> str:
        """The polynomial as one line of text, the inverse of `parse`."""
        outputs = ";".join(f"{o.kind}=" + ",".join(".".join(map(str, term)) for term in o.terms) for o in self.outputs)
        return f"{_form_text(self.form)}|{''.join(map(str, self.operands))}|{outputs}"


@dataclass(frozen=True)
class Derivative:
    """The derivative of a polynomial.

    Attributes
    ----------
    polynomial : Polynomial
    sources : tuple of int
        Its operands as positions in (operands of the original, then all cotangents).
    targets : tuple of int
        The original operand that each output is the gradient of.
    """

    polynomial: Polynomial
    sources: tuple[int, ...]
    targets: tuple[int, ...]


def env_sum(form: EdgeForm) -> Polynomial:
    """``(w, Y) -> A``: the environment of each centre."""
    return Polynomial(form, (WEIGHTS, HARMONICS), (Output(ATOM, ((0, 1),)),))


def edge_dot(form: EdgeForm) -> Polynomial:
    """``(w, Y, A) -> g``: the weighted dot product of each edge with its centre."""
    return Polynomial(form, (WEIGHTS, HARMONICS, ATOM), (Output(SCALE, ((0, 1, 2),)),))


def edge_proj(form: EdgeForm) -> Polynomial:
    """``(Y, A) -> w``: the projection of each centre on its edges."""
    return Polynomial(form, (HARMONICS, ATOM), (Output(WEIGHTS, ((0, 1),)),))


def edge_dir(form: EdgeForm) -> Polynomial:
    """``(w, A) -> Y``: the gradient with respect to the harmonics."""
    return Polynomial(form, (WEIGHTS, ATOM), (Output(HARMONICS, ((0, 1),)),))


def chain(form: ChainForm) -> Polynomial:
    """``(W, G, v) -> b``: one layer's matrix times a vector."""
    return Polynomial(form, (PATHS, ENVIRONMENT, VECTOR), (Output(OUT, ((0, 1, 2),)),))


@lru_cache(maxsize=1024)
def differentiate(polynomial: Polynomial, given: tuple[bool, ...], wanted: tuple[bool, ...]) -> Derivative | None:
    """Gradient of ``sum_o <cotangent_o, output_o>`` with respect to the wanted operands.

    Parameters
    ----------
    polynomial : Polynomial
    given : tuple of bool
        For each output, whether its cotangent is nonzero.
    wanted : tuple of bool
        For each operand, whether its gradient is asked for.

    Returns
    -------
    Derivative or None
        Operands that no term needs are left out. None when every gradient vanishes.
    """
    count = len(polynomial.operands)
    kinds = (*polynomial.operands, *(o.kind for o in polynomial.outputs))
    terms: dict[int, list[Term]] = {}
    for number, output in enumerate(polynomial.outputs):
        if not given[number]:
            continue
        for term in output.terms:
            full = sorted((*term, count + number), key=lambda a: kinds[a])
            for operand in term:
                if wanted[operand]:
                    terms.setdefault(operand, []).append(tuple(a for a in full if a != operand))
    if not terms:
        return None
    targets = tuple(sorted(terms))
    sources = tuple(sorted({a for target in targets for term in terms[target] for a in term}))
    position = {a: k for k, a in enumerate(sources)}
    outputs = tuple(
        Output(kinds[target], tuple(tuple(position[a] for a in term) for term in terms[target])) for target in targets
    )
    return Derivative(Polynomial(polynomial.form, tuple(kinds[a] for a in sources), outputs), sources, targets)


def orders(polynomial: Polynomial, count: int) -> list[Polynomial]:
    """The polynomial and its first ``count`` full derivatives: forward, backward, double backward, ..."""
    found = [polynomial]
    for _ in range(count):
        last = found[-1]
        derivative = differentiate(last, (True,) * len(last.outputs), (True,) * len(last.operands))
        if derivative is None:
            break
        found.append(derivative.polynomial)
    return found


def _form_text(form: EdgeForm | ChainForm) -> str:
    if isinstance(form, EdgeForm):
        return f"edge:{'.'.join(map(str, form.irrep))}:{form.num_weights}:{'b' if form.bfloat16 else 'f'}"
    layer = form.layer
    irreps = ":".join(
        "+".join(f"{l}{'e' if p == 1 else 'o'}" for l, p in group)
        for group in (layer.irreps_in, layer.irreps_env, layer.irreps_out)
    )
    return f"chain:{irreps}:{','.join('.'.join(map(str, path)) for path in layer.paths)}"


def _parse_form(text: str) -> EdgeForm | ChainForm:
    name, *rest = text.split(":")
    if name == "edge":
        return EdgeForm(tuple(map(int, rest[0].split("."))), int(rest[1]), rest[2] == "b")
    groups: list[tuple[Irrep, ...]] = [
        tuple((int(s[:-1]), 1 if s[-1] == "e" else -1) for s in group.split("+")) for group in rest[:3]
    ]
    paths = tuple((int(a), int(b), int(c)) for a, b, c in (p.split(".") for p in rest[3].split(",")))
    return ChainForm(LayerPaths(groups[0], groups[1], groups[2], paths))


@lru_cache(maxsize=1024)
def parse(text: str) -> Polynomial:
    """The polynomial written as ``text`` (see `Polynomial.text`)."""
    form, operands, outputs = text.split("|")
    return Polynomial(
        _parse_form(form),
        tuple(map(int, operands)),
        tuple(
            Output(int(kind), tuple(tuple(map(int, t.split("."))) for t in terms.split(",")))
            for kind, terms in (o.split("=") for o in outputs.split(";"))
        ),
    )


def harmonics_pattern(components: int, num_weights: int) -> tuple[int, ...] | None:
    """r(i) of spherical harmonics 0..l_max, from the lengths of the axes i and r; None if they fit no such pattern."""
    if num_weights == 1:
        return tuple(0 for _ in range(components))
    if num_weights * num_weights != components:
        return None
    return tuple(l for l in range(num_weights) for _ in range(2 * l + 1))
